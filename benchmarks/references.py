"""The authors' own modules with random weights, from a checkout of theirs: for timing beside ours."""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Callable


class Reference:
    """A sampler and a decoder of the authors' code, as two functions without arguments.

    `sample()` generates a batch and its image; `split` holds the seconds that its decoder took the last time.
    """

    def __init__(self, sample: Callable[[], None], split: dict[str, float]):
        self.sample, self.split = sample, split


def var(checkout: str, batch: int, guidance: float, top_k: int, top_p: float) -> Reference:
    """VAR-d16 at 256x256 (FoundationVision/VAR)."""
    import torch

    sys.modules.setdefault("huggingface_hub", types.SimpleNamespace(PyTorchModelHubMixin=object))
    sys.path.insert(0, checkout)
    from models import build_vae_var

    torch.manual_seed(0)
    levels = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    tokenizer, model = build_vae_var(device="cpu", patch_nums=levels, depth=16, shared_aln=False)
    # Their build leaves convolutions uninitialised.
    for parameter in [*tokenizer.parameters(), *model.parameters()]:
        torch.nn.init.normal_(parameter, std=0.02)
    model.eval(), tokenizer.eval()
    split = {}
    decode = _timed(tokenizer.fhat_to_img, split)
    tokenizer.fhat_to_img = decode
    labels = torch.arange(batch)

    def sample():
        with torch.inference_mode():
            model.autoregressive_infer_cfg(batch, labels, g_seed=0, cfg=guidance, top_k=top_k, top_p=top_p)

    sys.path.remove(checkout)
    return Reference(sample, split)


def llamagen(checkout: str, batch: int, guidance: float) -> Reference:
    """LlamaGen-B at 256x256 with VQ-16 (FoundationVision/LlamaGen)."""
    import torch

    for name in [n for n in sys.modules if n.split(".")[0] in ("utils", "models", "dist")]:
        del sys.modules[name]
    sys.path.insert(0, checkout)
    from autoregressive.models.generate import generate
    from autoregressive.models.gpt import GPT_models
    from tokenizer.tokenizer_image.vq_model import VQ_models

    torch.manual_seed(0)
    model = GPT_models["GPT-B"](vocab_size=16384, block_size=256, num_classes=1000).eval()
    tokenizer = VQ_models["VQ-16"](codebook_size=16384, codebook_embed_dim=8).eval()
    split = {}
    decode = _timed(tokenizer.decode_code, split)
    labels = torch.arange(batch)

    def sample():
        with torch.inference_mode():
            codes = generate(model, labels, 256, cfg_scale=guidance, temperature=1.0, top_k=0, top_p=1.0)
            decode(codes, (batch, 8, 16, 16))

    sys.path.remove(checkout)
    return Reference(sample, split)


def _timed(function: Callable, split: dict[str, float]) -> Callable:
    def run(*args, **kwargs):
        start = time.perf_counter()
        out = function(*args, **kwargs)
        split["decoder"] = time.perf_counter() - start
        return out

    return run
