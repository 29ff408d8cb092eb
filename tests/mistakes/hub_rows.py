# ruff: noqa: E501 (a table: a row stands on a line)
"""Names of the hub that are none, and places where it is neither read nor written; no row asks the network."""

from runner import Row

FORM = "expected hf://OWNER/REPO[@REVISION][/PATH] of a model repository"
NAMES = {
    "hf://": "Empty body",
    "hf://digits": "'namespace/name'",
    "hf:///digits": "'namespace/name'",
    "hf://me/digits@": "Empty revision",
    "hf://me//digits": "'me/'",
    "hf://me/di--gits": "Cannot have -- or ..",
    "hf://me/digits/../x": "leaves the repository",
    "hf://me/digits/./x": "leaves the repository",
    "hf://me/digits//x": "empty segments",
    "'hf://me/my digits'": "alphanumeric",
    "hf://datasets/me/digits": "that of a dataset",
    "hf://spaces/me/digits": "that of a space",
    "hf://buckets/me/digits": "that of a bucket",
}
ELSEWHERE = "a path of this machine, gs:// or s3://"

HUB = [
    *(Row(f"sample --workdir {name} --out {{tmp}}/o", ("--workdir", FORM, reason)) for name, reason in NAMES.items()),
    *(Row(command.replace("HUB", "hf://digits"), (flag, FORM, "'hf://digits'")) for command, flag in {
        "evaluate --workdir HUB --out {tmp}/o": "--workdir",
        "reconstruct --workdir HUB --out {tmp}/o": "--workdir",
        "export rar --workdir HUB --generator {tmp}/o.npz": "--workdir",
        "env --workdir HUB": "--workdir",
        "train --from HUB --workdir {tmp}/w": "--from",
        "train --config {config} --from HUB --workdir {tmp}/w": "--from",
        "train --config {config} --tokenizer HUB --workdir {tmp}/w": "--tokenizer",
        "import rar --tokenizer HUB --out {tmp}/o": "--tokenizer",
        "import rar --tokenizer {arrays}/good.npz --generator HUB --out {tmp}/o": "--generator",
        "train --config {config} --workdir {tmp}/w --config.tokenizer_training.losses.perceptual=1 --config.tokenizer_training.losses.perceptual_weights=HUB": "perceptual_weights",
        "push {model} HUB": "push",
    }.items()),
    *(Row(command.replace("HUB", "hf://me/digits"), (flag, ELSEWHERE, "'hf://me/digits", "`vargen push`")) for command, flag in {
        "train --config {config} --workdir HUB": "--workdir",
        "train --workdir HUB": "--workdir",
        "train --from {model} --workdir HUB": "--workdir",
        "tokenize --workdir HUB": "--workdir",
        "quickstart --config {config} --workdir HUB": "--workdir",
        "sample --workdir {model} --out HUB": "--out",
        "evaluate --workdir {model} --out HUB": "--out",
        "reconstruct --workdir {model} --out HUB": "--out",
        "import rar --tokenizer {arrays}/good.npz --out HUB": "--out",
        "export var --workdir {model} --generator HUB/x.npz": "--generator",
        "sample --workdir {model} --codes HUB/x.npy": "--codes",
        "reconstruct --workdir {model} --input HUB/x.png": "--input",
        "train --config HUB/config.json --workdir {tmp}/w": "--config",
        "train --config {config} --workdir {tmp}/w --config.data.source=folder --config.data.path=HUB": "data.path",
        "push HUB hf://me/digits": "directory",
    }.items()),
    *(Row(f"{command} --workdir hf://me/digits", ("--out", "nothing is written to hf://me/digits")) for command in ("sample", "evaluate", "reconstruct")),
    Row("push {model}", ("hf://OWNER/REPO",)),
    Row("push {model} me/digits", ("'me/digits'", "expected hf://OWNER/REPO")),
    Row("push {model} {tmp}/o", ("expected hf://OWNER/REPO",)),
    Row("push '' hf://me/digits", ("directory", "expected a path")),
    Row("push ~nosuchuser/x hf://me/digits", ("directory", "~nosuchuser")),
    Row("push {model} hf://me/digits --branch ''", ("--branch", "expected a name")),
    Row("push {model} hf://me/digits@a --branch b", ("'a'", "'b'", "one branch")),
    Row("push {model} hf://me/digits --licence mit", ("--licence",)),
    Row("push {model} hf://me/digits --config.seed=1", ("--config.seed",)),
]  # fmt: skip
