"""`vargen export`: parameters under the names of the system's authors."""

from __future__ import annotations

import argparse

from vargen.errors import UserError
from vargen.interop.names import SYSTEMS

SUMMARY = "write a model's parameters under the authors' names"
DESCRIPTION = """
Writes the parameters of a trained or imported model as the authors' own program loads them. The suffix
says the format: .safetensors, .npz, .pth .pt .bin for PyTorch (vargen[torch]), or .msgpack for Flax. `vargen
import` of the result gives the same parameters.
"""
EXAMPLES = """\
  vargen export var --workdir models/var_d16 --generator var_d16.pth --tokenizer vae.pth
  vargen export rar --workdir runs/fine --generator rar.safetensors --params last
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    known = f"whose names are wanted: {', '.join(SYSTEMS)}"
    parser.add_argument("system", choices=list(SYSTEMS), metavar="system", help=known)
    parser.add_argument(
        "--workdir", metavar="DIR", required=True, help="a trained or imported model; or hf://OWNER/REPO"
    )
    parser.add_argument("--tokenizer", metavar="FILE", help="the file for the tokenizer's weights")
    parser.add_argument("--generator", metavar="FILE", help="the file for the generator's weights")
    parser.add_argument(
        "--params",
        choices=("ema", "last"),
        default="ema",
        help="averaged parameters (ema) or those of the last step",
    )


def run(args: argparse.Namespace) -> None:
    """Exports."""
    from vargen.interop import checkpoint

    if args.tokenizer is None and args.generator is None:
        raise UserError("expected --generator, --tokenizer or both, found neither")
    which = "params" if args.params == "last" else "ema"
    checkpoint.export_checkpoint(
        args.system, args.workdir, tokenizer=args.tokenizer, generator=args.generator, which=which
    )
    print(f"wrote {', '.join(f for f in (args.tokenizer, args.generator) if f is not None)}")
