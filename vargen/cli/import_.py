"""`vargen import`: published checkpoints of other programs."""

from __future__ import annotations

import argparse

from vargen import schema
from vargen.cli import flags
from vargen.interop.names import SYSTEMS

SUMMARY = "turn a published checkpoint into a vargen model"
DESCRIPTION = """
Reads the authors' files (.safetensors, .npz, Flax's, SentencePiece's .model, or PyTorch's .pth .pt .bin
.ckpt, which need the extra vargen[torch]; a file that would run code is refused) and writes a directory with
config.json and the parameters as safetensors, on which every other command works. Sizes are inferred from
the arrays, with JPEG-LM's and Orthus' from the config.json beside them, too.

A file may lie on the Hugging Face Hub (vargen[hub]): hf://OWNER/REPO[@REVISION]/FILE. It is kept in the
hub's cache; origin.json says which commit it was of.
"""
EXAMPLES = """\
  vargen import var --generator var_d16.pth --tokenizer vae_ch160v4096z32.pth --out models/var_d16
  vargen import var --generator hf://FoundationVision/var/var_d16.pth \\
      --tokenizer hf://FoundationVision/var/vae_ch160v4096z32.pth --out models/var_d16
  vargen import llamagen --generator c2i_L_384.pt --tokenizer vq_ds16_c2i.pt --image-size 384 \\
      --out models/llamagen_l
  vargen import mar --generator mar_base/checkpoint-last.pth --tokenizer kl16.ckpt --out models/mar_b
  vargen import rar --generator rar_b.bin --tokenizer maskgit-vqgan-imagenet-f16-256.bin \\
      --out models/rar_b
  vargen import jpeglm --generator hf://uwnlp/jpeg-lm-reimplementation/pytorch_model.bin \\
      --tokenizer hf://uwnlp/jpeg-lm-reimplementation/tokenizer.model --out models/jpeglm
  vargen import orthus --generator hf://SJTU-Deng-Lab/Orthus-7B-instruct \\
      --tokenizer hf://SJTU-Deng-Lab/Orthus-7B-instruct --out models/orthus
  vargen import semanticist --tokenizer hf://tennant/semanticist/semanticist_tok_XL.pkl --outer kl16.ckpt \\
      --out models/semanticist_xl
  vargen import maskgit --generator maskgit_imagenet256_checkpoint \\
      --tokenizer tokenizer_imagenet256_checkpoint --out models/maskgit
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    known = f"whose files they are: {', '.join(SYSTEMS)}"
    parser.add_argument("system", choices=list(SYSTEMS), metavar="system", help=known)
    parser.add_argument(
        "--tokenizer", metavar="FILE", required=True, help="the tokenizer's weights, also on the hub"
    )
    parser.add_argument(
        "--generator",
        metavar="FILE",
        help="the generator's weights, also on the hub; none: the tokenizer alone",
    )
    parser.add_argument(
        "--outer",
        metavar="FILE",
        help="of a tokenizer of an autoencoder's latents (semanticist) that one's weights, also on the hub",
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="the directory to make")
    parser.add_argument(
        "--params",
        choices=("auto", "ema", "plain"),
        default="auto",
        help="which of several sets in a file: averaged ones where there are (auto), or insist",
    )
    parser.add_argument(
        "--image-size",
        type=flags.number(int, 1, schema.LARGEST_IMAGE),
        default=0,
        metavar="N",
        help="pixels, where arrays don't tell (256)",
    )
    parser.add_argument(
        "--heads",
        type=flags.number(int, 1, 4096),
        default=0,
        metavar="H",
        help="attention heads of sizes never published",
    )


def run(args: argparse.Namespace) -> None:
    """Imports, and says what came out."""
    from vargen import models
    from vargen.interop import checkpoint, systems

    c = checkpoint.import_checkpoint(
        args.system,
        args.out,
        tokenizer=args.tokenizer,
        generator=args.generator,
        outer=args.outer,
        params=args.params,
        image_size=args.image_size,
        heads=args.heads,
    )
    tokenizer, generator = systems.build(c)
    sizes = [f"tokenizer {models.parameter_count(tokenizer) / 1e6:.1f} M"]
    if generator is not None:
        sizes.append(f"generator {models.parameter_count(generator) / 1e6:.1f} M parameters")
    size = c.data.image_size
    print(f"{c.name or args.system}, {size}x{size}: {', '.join(sizes)}, in {args.out}")
    if args.system == "llamagen" and not args.image_size:
        print(f"its arrays don't tell the image size: {size} assumed, --image-size where it is another")
    if generator is None:
        print(f"next: vargen reconstruct --workdir {args.out} --input PICTURES")
    elif generator.condition.takes == "embeddings":
        print(f"next: vargen sample --workdir {args.out} --captions FILE.npz")
    elif generator.condition.takes == "texts":
        print(f"next: vargen sample --workdir {args.out} --captions FILE.npy")
    elif c.data.num_classes:
        print(f"next: vargen sample --workdir {args.out} --classes 207,360,387 --count 4")
    else:
        print(f"next: vargen sample --workdir {args.out} --count 4")
