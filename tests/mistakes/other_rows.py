# ruff: noqa: E501 (a table: a row stands on a line)
"""The same mistakes in other commands."""

from beginnings import EVALUATE, FOLDER, RECONSTRUCT, SAMPLE, TRAIN
from flag_rows import NUMBERS
from runner import Row

OTHERS = [
    *(Row(f"{EVALUATE} {flag} {value or repr('')}", (flag,)) for flag, values in NUMBERS if flag not in ("--count", "--batch-size") for value in values[:3]),
    *(Row(f"{RECONSTRUCT} {flag} 1", (flag,)) for flag in ("--seed", "--guidance", "--samples", "--classes")),
    *(Row(f"{command} --workdir {{tmp}}/nowhere", ("nowhere", "found none")) for command in ("evaluate", "reconstruct", "sample")),
    Row("env --workdir {tmp}/nowhere", ("nowhere", "config.json")),
    *(Row(f"{command} --workdir {{tmp}}/two", ("two", "found none")) for command in ("evaluate", "reconstruct", "sample")),
    *(Row(f"{command} --workdir ''", ("--workdir", "expected a path")) for command in ("evaluate", "reconstruct", "tokenize", "export var --generator x.npz", "quickstart", "env")),
    *(Row(f"{command} --workdir ~nosuchuser/x", ("--workdir", "~nosuchuser")) for command in ("evaluate", "reconstruct", "tokenize --config {config}", "train --config {config}")),
    *(Row(f"{command} --workdir {{config}}/x", ("system.py",)) for command in ("evaluate", "reconstruct", "sample", "train --config {config}", "quickstart --config {config}")),
    *(Row(f"{command} --workdir {{broken}}/tokenizer", ("checkpoint", "broken")) for command in ("evaluate", "reconstruct", "tokenize --config {config}", "export var --tokenizer {tmp}/o.npz")),
    *(Row(f"{command} --config {{tmp}}/none.py", ("none.py", "found none")) for command in (SAMPLE, EVALUATE, RECONSTRUCT, "env", "tokenize --workdir {model}", "quickstart --workdir {tmp}/w")),
    *(Row(f"env --config {{tmp}}/{name}.py", (f"{name}.py",)) for name in ("raises", "imports", "nothing", "recurses", "exits", "syntax", "empty")),
    *(Row(f"env --config {{config}} --config.{field}", (field.partition("=")[0],)) for field in ("training.steps=0", "model.norm=batch", "nonsense=1", "seed=-1")),
    *(Row(f"{command} --config.training.steps=0", ("training.steps",)) for command in (TRAIN, "tokenize --workdir {model}", "quickstart --config {config} --workdir {tmp}/w")),
    *(Row(f"{command} --config.model.width=64", ("model.width", "fixed by training")) for command in (EVALUATE, RECONSTRUCT)),
    *(Row(f"{command} extra", ("extra",)) for command in (TRAIN, EVALUATE, RECONSTRUCT, "env", "tokenize --workdir {model}")),
    *(Row(f"{command} --workdirs x", ("--workdirs",)) for command in ("train", "sample", "evaluate", "env")),
    Row("tokenize --workdir {model} --config.training.augmented_copies=0", ("training.augmented_copies",)),
    Row("tokenize --workdir {model} --config.data.image_size=32", ("data.image_size",)),
    Row("quickstart --workdir {tmp}/w --config {tmp}/none.py", ("none.py",)),
    Row("evaluate", ("--workdir", "--samples")),
    *(Row(f"evaluate {flags}", words) for flags, words in {
        "--samples {tmp}/none.npz --reference {tmp}/none.npz": ("--samples", "none.npz", "found none"),
        "--samples {tmp}/x.npz": ("--reference", "found none"),
        "--workdir {model} --inception x.pth": ("--reference", "found none"),
        "--workdir {model} --reference {tmp}/none.npz": ("--inception", "found none"),
        "--workdir {model} --dinov2 x.pth": ("--reference", "found none"),
        "--workdir {model} --tokenizer-only --clip x.bin": ("--clip", "of samples"),
        "--workdir {model} --reference {tmp}/none.npz --inception x.pth": ("--reference", "none.npz", "found none"),
        "--workdir {model} --reference '' --inception x.pth": ("--reference", "expected a path"),
        "--workdir {model} --samples {tmp} --reference x.npz": ("--samples", "beside --workdir"),
    }.items()),
    Row(f"{EVALUATE} --preset papers", ("--preset", "papers")),
    Row(f"{EVALUATE} --out /proc/nowhere", ("/proc/nowhere",)),
    Row("complete --workdir {model}", ("--keep",)),
    *(Row(f"complete --workdir {{model}} --keep {count}", (f"--keep {count}", "from 1 to 3")) for count in (0, 4, 9)),
    *(Row(f"complete --workdir {{model}} --keep top {flag}", (name,)) for flag, name in (("--steps 1000", "sampling.steps"), ("--config.sampling.policy=jacobi", "sampling.policy"), ("--levels 1,4", "sampling.levels"))),
    Row("caption --workdir {model} --input {tmp}/none.png", ("writes words",)),
    Row("complete --workdir {tmp}/nowhere --keep top", ("nowhere", "found none")),
    Row("complete --workdir {model} --keep {tmp}/none.png", ("--keep", "none.png", "found none")),
    Row("complete --workdir {model} --keep top --classes 0,1", ("--classes", "one class")),
    *(Row(f"complete --workdir {{model}} --keep top {flag} {value}", (flag,)) for flag, value in (("--count", "0"), ("--pictures", "x"), ("--guidance", "nan"), ("--seed", "-1"))),
    Row("complete --workdir {model} --keep top --input {tmp}/none.png", ("none.png", "found none")),
    Row(f"{RECONSTRUCT} --input", ("--input",)),
    Row(f"{RECONSTRUCT} --input ''", ("--input", "expected a path")),
    Row(f"{RECONSTRUCT} --input {{tmp}}/codes.npy", ("codes.npy", "broken")),
    Row(f"{RECONSTRUCT} --input {{tmp}}/flat {{tmp}}/none.png", ("none.png", "found none")),
    Row(f"{RECONSTRUCT} --input ~nosuchuser/a.png", ("--input", "~nosuchuser")),
    Row(f"{FOLDER} --config.data.path={{tmp}}/torn", ("torn", "broken")),  # all of it: found in the held-out part
    Row(f"{TRAIN} --stage tokenizer --config.data.source=folder --config.data.num_classes=0 --config.data.channels=3 --config.data.path={{tmp}}/torn", ("torn", "broken")),
]  # fmt: skip
