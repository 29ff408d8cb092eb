# ruff: noqa: E501 (a table: a row stands on a line)
"""Flags of `vargen sample`, `train`, `import` and the like, and their values."""

from beginnings import EVALUATE, RECONSTRUCT, SAMPLE, TRAIN
from runner import Row

NUMBERS = [  # flag, values that are refused
    (
        "--seed",
        ["-1", "18446744073709551616", "1.5", "x", "1_000", "+3", "٣", "１２", "", "1e3", "0x10", "nan"],
    ),
    ("--count", ["0", "-1", "100000000000", "10**11", "1.5", "many", "１", "1e3"]),
    ("--guidance", ["inf", "-inf", "nan", "1e308", "-1", "two", "1_0", "1e5"]),
    ("--temperature", ["inf", "nan", "-0.1", "1e9", "hot"]),
    ("--top-p", ["0", "-0.5", "1.1", "inf", "nan", "most"]),
    ("--top-k", ["-1", "2.5", "99999999999", "all", "１"]),
    ("--steps", ["-1", "1.5", "10000000", "few"]),
    ("--levels", ["0", "x", "1,,2", "1x2x3", "5000", "-1", "1.5", "１"]),
    ("--batch-size", ["0", "-4", "10000000", "1.5"]),
]

FLAGS = [
    *(Row(f"{SAMPLE} {flag} {value or repr('')}", (flag,)) for flag, values in NUMBERS for value in values),
    *(
        Row(f"{EVALUATE} --samples {value}", ("--samples",))
        for value in ("0", "3", "-1", "1e9", "some", "10000000000")
    ),
    *(Row(f"{RECONSTRUCT} --tile {value}", ("--tile",)) for value in ("0", "-1", "1.5", "１", "9" * 9)),
    *(Row(f"{RECONSTRUCT} --count {value}", ("--count",)) for value in ("0", "-1", "1.5", "１", "10**9")),
    *(
        Row(f"{SAMPLE} --classes {text}", ("class",))
        for text in (
            "10",
            "-1",
            "3-12",
            "5-3",
            "1,,2",
            "bird",
            "１２",
            "1.5",
            "0x1",
            "99999999999999999999999",
            "'5 6'",
            "'1, 22'",
        )
    ),
    Row("", ("COMMAND",)),
    Row("smaple", ("smaple",)),
    Row("sample", ("--workdir",)),
    Row(f"{SAMPLE} --clases 3", ("--clases",)),
    Row(f"{SAMPLE} --class 3", ("--class",)),  # no abbreviations
    Row(f"{SAMPLE} 3", ("3",)),
    Row(f"{SAMPLE} --preset papers", ("--preset", "papers")),
    *(
        Row(f"{SAMPLE} --fid-samples {value} --out {{tmp}}/x.npz", ("--fid-samples",))
        for value in ("0", "-1", "1e4", "9", "99999999999")
    ),
    Row(f"{SAMPLE} --fid-samples 20", ("--out", "FILE.npz", "found none")),
    Row(f"{SAMPLE} --fid-samples 20 --out {{tmp}}/x", ("--out", "FILE.npz")),
    Row(f"{SAMPLE} --fid-samples 20 --out {{tmp}}/nowhere/x.npz", ("--out", "nowhere", "found none")),
    Row(
        f"{SAMPLE} --fid-samples 20 --out {{tmp}}/x.npz --count 2", ("--fid-samples or --count", "found both")
    ),
    Row(f"{SAMPLE} --fid-samples 20 --out {{tmp}}/x.npz --classes bird", ("class",)),
    Row("sample --fid-samples 20 --out x.npz", ("--workdir",)),
    Row(f"{SAMPLE} --num-processes 2", ("--fid-samples",)),
    Row(f"{SAMPLE} --captions {{tmp}}/none.npz", ("--classes", "--captions")),
    Row(f"{SAMPLE} --codes {{tmp}}/none.npy --classes 3", ("--codes", "--classes")),
    Row(f"{SAMPLE} --steps 1000", ("steps",)),
    Row(f"{SAMPLE} --levels 1,4", ("sampling.levels", "independent")),
    Row(f"{EVALUATE} --steps 1000", ("steps",)),
    Row("sample --workdir ''", ("--workdir", "expected a path")),
    Row("sample --workdir ~nosuchuser/x", ("--workdir", "~nosuchuser")),
    Row("sample --workdir gs:/bucket/x", ("--workdir", "gs:/bucket/x")),
    Row("sample --workdir http://host/x", ("--workdir", "http://host/x")),
    Row("sample --workdir {tmp}/nowhere", ("nowhere", "found none")),
    Row("sample --workdir {tmp}", ("checkpoint", "found none")),
    Row("sample --workdir {config}", ("expected a directory",)),
    Row(f"{SAMPLE} --out ''", ("--out", "expected a path")),
    Row(f"{SAMPLE} --out {{config}}", ("--out", "expected a directory")),
    Row(f"{SAMPLE} --out {{config}}/x", ("system.py",)),
    Row(f"{SAMPLE} --out /dev/null", ("--out", "/dev/null")),
    Row(f"{SAMPLE} --count 1 --classes 1 --out /proc/nowhere", ("/proc/nowhere",)),
    Row(f"{SAMPLE} --count 1 --classes 1 --out {{tmp}}/" + "n" * 300, ("name too long",)),
    Row(f"{EVALUATE} --out {{config}}", ("--out", "expected a directory")),
    Row(f"{RECONSTRUCT} --out {{config}}", ("--out", "expected a directory")),
    Row("train --config '' --workdir {tmp}/w", ("--config", "expected a path")),
    Row("train --config {config} --workdir ''", ("--workdir", "expected a path")),
    Row("train --workdir {tmp}/w", ("expected --config",)),
    Row("train --config {tmp} --workdir {tmp}/w", ("expected a file", "a directory")),
    Row("train --config {tmp}/none.py --workdir {tmp}/w", ("none.py", "found none")),
    Row("train --config {config}:big --workdir {tmp}/w", ("no variants", "big")),
    Row(f"{TRAIN} --stage both", ("--stage", "both")),
    Row(f"{TRAIN} --tokenizer {{tmp}}/none", ("--tokenizer", "found none")),
    Row(f"{TRAIN} --tokenizer ''", ("--tokenizer", "expected a path")),
    Row(f"{TRAIN} --from {{tmp}}/none", ("--from", "found none")),
    Row(f"{TRAIN} --from {{model}} --tokenizer {{model}}", ("--from", "--tokenizer", "both")),
    Row("train --from {tmp}/none --workdir {tmp}/w", ("--from", "found none")),
    Row("train --from {model} --workdir {tmp}/w --stage tokenizer", ("--stage", "found tokenizer")),
    Row(f"{TRAIN} --tokenizer {{model}} --stage tokenizer", ("--stage", "found tokenizer")),
    Row(f"{TRAIN} --coordinator localhost", ("--num-processes", "--process-id")),
    Row(f"{TRAIN} --coordinator localhost --num-processes 2 --process-id 0", ("--coordinator", "HOST:PORT")),
    Row(f"{TRAIN} --coordinator localhost:1 --num-processes 2 --process-id 2", ("--process-id", "0 to 1")),
    Row(
        f"{TRAIN} --coordinator localhost:9 --num-processes 2 --process-id 1 --timeout 1",
        ("localhost:9", "1 s"),
    ),
    Row(f"{TRAIN} --num-processes 0", ("--num-processes",)),
    Row(f"{TRAIN} --process-id -1", ("--process-id",)),
    Row(f"{TRAIN} --timeout inf", ("--timeout",)),
    Row(f"{TRAIN} --timeout 0", ("--timeout",)),
    Row("tokenize --workdir {tmp}", ("expected --config",)),
    Row("tokenize --workdir {tmp} --config {config}", ("checkpoint", "found none")),
    Row("import vqgann --tokenizer x --out {tmp}/o", ("vqgann",)),
    Row("import var --tokenizer {tmp}/none.pth --out {tmp}/o", ("none.pth", "found none")),
    Row("import var --tokenizer {tmp} --out {tmp}/o", ("directory",)),
    Row("import var --tokenizer {config} --out {tmp}/o", ("system.py",)),
    Row("import var --tokenizer {model}/config.json --out {model}", ("--out", "there already")),
    Row("import var --tokenizer x --out ''", ("--out",)),
    Row("import var --tokenizer x --out {tmp}/o --image-size 0", ("--image-size",)),
    Row("import var --tokenizer x --out {tmp}/o --heads 1e3", ("--heads",)),
    Row("import var --tokenizer x --out {tmp}/o --params best", ("--params", "best")),
    Row("sample --workdir {model} --weights int4", ("--weights", "int4")),
    Row("export var --workdir {model}", ("--generator", "--tokenizer")),
    Row("export var --workdir {model} --generator {tmp}/x.h5", (".safetensors",)),
    Row("export var --workdir {model} --generator {tmp}/x.npz --tokenizer {tmp}/x.npz", ("two files",)),
    Row("export var --workdir {model} --generator {tmp}/x.npz --tokenizer {tmp}/./x.npz", ("two files",)),
    Row(
        "export var --workdir {model} --tokenizer {model}/tokenizer/params.safetensors",
        ("outside the model",),
    ),
    Row(
        "export var --workdir {model} --tokenizer {model}/generator/../tokenizer/x.npz",
        ("outside the model",),
    ),
    Row("export var --workdir {tmp} --tokenizer {tmp}/x.npz", ("checkpoint", "found none")),
]
