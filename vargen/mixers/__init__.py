"""Mixers: how rows exchange information inside a block. The axis's contract is `Mixer`."""

from vargen import parts
from vargen.mixers.attention import Attention
from vargen.mixers.axial import Axial
from vargen.mixers.chain import Chain
from vargen.mixers.conv_s5 import ConvS5
from vargen.mixers.gla import GLA
from vargen.mixers.lightnet import LightNet
from vargen.mixers.linear import LinearAttention
from vargen.mixers.mamba import Mamba
from vargen.mixers.mamba_2d import Mamba2D
from vargen.mixers.manhattan import Manhattan
from vargen.mixers.mixer import Mixer
from vargen.mixers.retention import Retention
from vargen.mixers.s5 import S5
from vargen.mixers.ssd import SSD, VSSD
from vargen.mixers.ssm_2d import SSM2D


def _chain(mixers, grid, width, kernel_init, out_init, dtype) -> Chain:
    """Mixers one after another.

    Args:
      mixers: the parts, a tuple.
    """
    context = dict(grid=grid, width=width, kernel_init=kernel_init, out_init=out_init, dtype=dtype)
    return Chain(tuple(parts.build(MIXERS, mixer, "mixer.mixers", **context) for mixer in mixers))


MIXERS = {
    "attention": Attention,
    "axial": Axial,
    "chain": _chain,
    "conv_s5": ConvS5,
    "gla": GLA,
    "lightnet": LightNet,
    "linear": LinearAttention,
    "mamba": Mamba,
    "mamba_2d": Mamba2D,
    "manhattan": Manhattan,
    "retention": Retention,
    "s5": S5,
    "ssd": SSD,
    "ssm_2d": SSM2D,
    "vssd": VSSD,
}

__all__ = ["MIXERS", "Attention", "Mixer"]
