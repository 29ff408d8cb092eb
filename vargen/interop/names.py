"""The published systems by name, for whoever must not import JAX."""

# By name: the modules of the generator and of its tokenizer.
SYSTEMS = {
    "var": ("var", "var_tokenizer"),
    "llamagen": ("llamagen", "llamagen_vq"),
    "mar": ("mar", "mar_kl"),
    "rar": ("rar", "maskgit_vqgan"),
    "randar": ("randar", "llamagen_vq"),
    "arpg": ("arpg", "llamagen_vq"),
    "flexvar": ("flexvar", "flexvar_vq"),
    "flowar": ("flowar", "flowar_kl"),
}
