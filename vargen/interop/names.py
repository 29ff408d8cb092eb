"""The published systems by name, for whoever must not import JAX."""

# By name: the modules of the generator ("" of a tokenizer alone) and of its tokenizer.
SYSTEMS = {
    "var": ("var", "var_tokenizer"),
    "llamagen": ("llamagen", "llamagen_vq"),
    "mar": ("mar", "mar_kl"),
    "rar": ("rar", "maskgit_vqgan"),
    "randar": ("randar", "llamagen_vq"),
    "arpg": ("arpg", "llamagen_vq"),
    "acdit": ("acdit", "sd_kl"),
    "xar": ("xar", "mar_kl"),
    "maskgit": ("maskgit", "maskgit_tokenizer"),
    "dnd": ("dnd", "dnd_rqvae"),
    "rqtransformer": ("rqtransformer", "rqvae"),
    "flexvar": ("flexvar", "flexvar_vq"),
    "hmar": ("hmar", "var_tokenizer"),
    "flowar": ("flowar", "flowar_kl"),
    "himar": ("himar", "himar_kl"),
    "jpeglm": ("jpeglm", "jpeglm_tokenizer"),
    "orthus": ("orthus", "orthus_kl"),
    "titok": ("titok", "titok_tokenizer"),
    "taming": ("taming_mingpt", "taming_first_stage"),
    "vqgan": ("", "taming_vqgan"),
    "ibq": ("", "ibq"),
    "hart": ("", "hart_tokenizer"),
    "bsqvit": ("", "bsqvit"),
    "open_magvit2": ("", "open_magvit2"),
}
