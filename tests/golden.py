"""Reading goldens: what the authors' own code computed at tiny sizes."""

from __future__ import annotations

import json
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "goldens"
# By golden of a system or a tokenizer: the family of vargen.interop.parity that it is recognised as.
GOLDENS = dict(
    acdit="acdit",
    acdit_video="acdit",
    arpg="arpg",
    bsqvit="bsqvit",
    dar="dar",
    flextok="flextok",
    flexvar="flexvar",
    flexvar_tokenizer="flexvar_vq",
    gigatok="gigatok",
    hart_tokenizer="hart_tokenizer",
    ibq="ibq",
    imagefolder_ms="imagefolder",
    imagefolder_vp="imagefolder",
    larp_tokenizer="larp",
    llamagen_gpt_c2i="llamagen",
    llamagen_gpt_gqa="llamagen",
    llamagen_gpt_t2i="llamagen",
    llamagen_vq="llamagen_vq",
    mar="mar",
    mar_kl="mar_kl",
    maskgit="maskgit",
    maskgit_vqgan="maskgit_vqgan",
    open_magvit2="open_magvit2",
    ops="ops",
    randar="randar",
    rar="rar",
    restok="restok",
    rqtransformer="rqtransformer",
    rqvae="rqvae",
    semanticist="semanticist",
    taming_mingpt="taming_mingpt",
    taming_vqgan="taming_vqgan",
    titok_bert="titok",
    titok_kl="titok_tokenizer",
    titok_proxies="titok_tokenizer",
    titok_text="titok_tokenizer",
    titok_uvit="titok",
    titok_vq="titok_tokenizer",
    var_tokenizer="var_tokenizer",
    var_transformer_l2norm="var",
    var_transformer_sharedaln="var",
)


class Golden:
    """Arrays of one file: `weights` by the authors' names, `[...]` for inputs and outputs, `meta`."""

    def __init__(self, name: str):
        self.arrays = np.load(FOLDER / f"{name}.npz")
        self.meta = json.loads(str(self.arrays["meta"]))
        self.weights = {k[3:]: self.arrays[k] for k in self.arrays.files if k.startswith("sd/")}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def gradient_norms(self) -> dict[str, float]:
        """By the authors' parameter names."""
        names = [k for k in self.arrays.files if k.startswith("out/gradnorm/")]
        return {k.removeprefix("out/gradnorm/"): float(self.arrays[k]) for k in names}
