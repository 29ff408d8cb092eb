# ruff: noqa: E501 (a table: a row stands on a line)
"""Workdirs that were trained otherwise or are broken; pictures without settings; names of configs."""

from beginnings import SAMPLE, TRAINED
from runner import Row

WORKDIRS = [
    *(Row(f"{TRAINED} --config.{field}={value}", (f"config field {field}", "was trained with", "--workdir")) for field, value in {
        "seed": 7, "data.flip": "true", "data.shift": 0, "model.layers": 4, "model.norm": "rms", "mixer.rope": "places", "mixer.heads": 1,
        "training.batch_size": 8, "training.learning_rate": 0.5, "training.schedule": "linear", "tokenizer.vocab": 64,
        "tokenizer.beta": 0.5, "tokenizer_training.batch_size": 8, "tokenizer_training.learning_rate": 0.5, "head.init_std": 0.5,
        "conditioning.dropout": 0.3, "training.accumulate": 2, "training.augmented_copies": 2,
    }.items()),
    Row(f"{TRAINED} --config.training.steps=1", ("training.steps", "was trained for")),
    Row(f"{TRAINED} --config.tokenizer_training.steps=99", ("tokenizer_training.steps",)),
    Row(f"{TRAINED} --config.order.name=raster", ("order",)),
    Row("train --config {root}/configs/mar.py:digits --workdir {model}", ("config field", "was trained with")),
    Row("train --config {root}/configs/llamagen.py:digits --workdir {model}", ("config field", "was trained with")),
    Row("quickstart --config {root}/configs/rar.py:digits --workdir {model}", ("config field", "was trained with")),
    Row("tokenize --workdir {model} --config.tokenizer.levels=(1,4)", ("tokenizer.levels",)),
    Row("tokenize --workdir {model} --config {root}/configs/mar.py:digits", ("config field",)),
    Row(f"{TRAINED} --tokenizer {{tmp}}/none", ("--tokenizer", "found none")),
    Row("sample --workdir {broken}/tokenizer", ("checkpoint", "broken")),
    Row("sample --workdir {broken}/generator", ("checkpoint", "broken")),
    Row("sample --workdir {broken}/classes", ("classes.json",)),
    Row("sample", ("--workdir", "--like")),
    Row("sample --like {tmp}/nowhere.png", ("nowhere.png", "found none")),
    Row("sample --like {tmp}/flat/1.png", ("1.png", "no settings of vargen")),
    Row("sample --like {tmp}/text.txt", ("text.txt", "no settings")),
    Row("sample --like {tmp}/pipe.png", ("pipe.png", "found none")),
    Row(f"{SAMPLE} --like {{tmp}}/flat/1.png --count 3", ("--like or --count",)),
    Row(f"{SAMPLE} --like {{tmp}}/flat/1.png --seed 3", ("--like or --seed",)),
    Row(f"{SAMPLE} --classes 3 --out {{tmp}}/flat", ("--out", "of vargen's pictures alone", "1.png")),
    Row(f"{SAMPLE} --classes 3 --out {{tmp}}/flat --overwrite", ("--out", "of vargen's pictures alone", "1.png")),
    Row(f"{SAMPLE} --classes 3 --out /", ("--out /",)),
    Row("train --help-config {tmp}/nowhere.py", ("nowhere.py", "found none")),
    Row("train --help-config nonsense", ("nonsense", "one of vargen's own")),
    Row("train --help-config {config} --config.mixer=glaa", ("mixer.name", "did you mean gla?")),
    Row("train --config {config} --workdir {tmp}/w --config.mixer=glaa", ("mixer.name", "did you mean gla?")),
    Row("train --config {config} --workdir {tmp}/w --config.tokenizer.encoder=con", ("tokenizer.encoder.name",)),
    Row("train --config var:d17 --workdir {tmp}/w", ("unknown variant 'd17'", "d16")),
    Row("train --config vra --workdir {tmp}/w", ("did you mean var?",)),
    Row("evaluate --workdir {broken}/classes", ("classes.json",)),
    Row("sample --workdir {broken}/halves", ("classes.json", "10 classes")),
]  # fmt: skip
