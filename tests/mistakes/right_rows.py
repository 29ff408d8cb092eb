# ruff: noqa: E501 (a table: a row stands on a line)
"""Commands that are no mistakes."""

from beginnings import RECONSTRUCT, SAMPLE, TRAINED
from runner import Row

RIGHT = [
    Row("import rar --tokenizer {arrays}/good.npz --out {tmp}/o", code=0),
    Row("export var --workdir {model} --generator {tmp}/g.npz", code=0),
    Row("interop.check {arrays}/good.npz", code=0),
    Row(f"{RECONSTRUCT} --input {{tmp}}/flat --out {{tmp}}/o", code=0),
    Row(f"{TRAINED} --config.training.log_every=1 --config.tokenizer_training.keep=9", code=0),
    Row("tokenize --workdir {model}", code=0),
    Row("tokenize --workdir {model} --check-data", code=0),
    Row("--help", code=0),
    Row("train --help", code=0),
    Row("env", code=0),
    Row("env --json --config {config}", code=0),
    Row("env --workdir {model}", code=0),
    Row(f"{SAMPLE} --classes 3 --count 1 --seed 18446744073709551615 --out {{tmp}}/o", code=0),
    Row(
        f"{SAMPLE} --classes 1-2,7 --count 1 --temperature 0 --top-k 5 --top-p 0.5 --guidance 0 --out {{tmp}}/o",
        code=0,
    ),
    Row(f"{RECONSTRUCT} --count 2 --out {{tmp}}/o", code=0),
    Row(f"{SAMPLE} --codes {{tmp}}/codes.npy --out {{tmp}}/o", code=0),
    Row(TRAINED, code=0),
    Row(f"{TRAINED} --config.evaluation.samples=44 --config.sampling.guidance=2", code=0),
]
