# ruff: noqa: E501 (a table: a row stands on a line)
"""Bad input of every kind, as commands, with what the line about it must name. A kind of fault has many rows here."""

from __future__ import annotations

from interop_rows import INTEROP
from ranges import RANGES
from runner import Row

TRAIN = "train --config {config} --workdir {tmp}/w"
SAMPLE = "sample --workdir {model}"
EVALUATE = "evaluate --workdir {model}"
RECONSTRUCT = "reconstruct --workdir {model}"
FOLDER = f"{TRAIN} --config.data.source=folder --config.data.num_classes=0 --config.data.channels=3"

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
    ("--batch-size", ["0", "-4", "10000000", "1.5"]),
]

FLAGS = [
    *(Row(f"{SAMPLE} {flag} {value or repr('')}", (flag,)) for flag, values in NUMBERS for value in values),
    *(
        Row(f"{EVALUATE} --samples {value}", ("--samples",))
        for value in ("0", "3", "-1", "1e9", "some", "10000000000")
    ),
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
            "１",
            "1.0",
            "0x1",
            "99999999999999999999999",
            "' 5'",
            "'1, 2'",
        )
    ),
    Row("", ("COMMAND",)),
    Row("smaple", ("smaple",)),
    Row("sample", ("--workdir",)),
    Row(f"{SAMPLE} --clases 3", ("--clases",)),
    Row(f"{SAMPLE} --class 3", ("--class",)),  # no abbreviations
    Row(f"{SAMPLE} 3", ("3",)),
    Row(f"{SAMPLE} --preset papers", ("--preset", "papers")),
    Row(f"{SAMPLE} --captions {{tmp}}/none.npz", ("--classes", "--captions")),
    Row(f"{SAMPLE} --codes {{tmp}}/none.npy --classes 3", ("--codes", "--classes")),
    Row(f"{SAMPLE} --steps 1000", ("steps",)),
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
    Row("import vqgan --tokenizer x --out {tmp}/o", ("vqgan",)),
    Row("import var --tokenizer {tmp}/none.pth --out {tmp}/o", ("none.pth", "found none")),
    Row("import var --tokenizer {tmp} --out {tmp}/o", ("directory",)),
    Row("import var --tokenizer {config} --out {tmp}/o", ("system.py",)),
    Row("import var --tokenizer {model}/config.json --out {model}", ("--out", "there already")),
    Row("import var --tokenizer x --out ''", ("--out",)),
    Row("import var --tokenizer x --out {tmp}/o --image-size 0", ("--image-size",)),
    Row("import var --tokenizer x --out {tmp}/o --heads 1e3", ("--heads",)),
    Row("import var --tokenizer x --out {tmp}/o --weights best", ("--weights", "best")),
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

FIELDS = [  # field=value, words; all are found before anything is written
    *((f"{field}={value}", (field,)) for field, values in {
        "training.steps": ["0", "-1", "many", "1.5", "1e400", "nan", "true", "10**3", ""],
        "training.batch_size": ["0", "-64", "1e9", "x"],
        "training.learning_rate": ["-1", "inf", "nan", "fast", "1e400"],
        "training.schedule": ["cosin", "", "None"],
        "training.optimizer": ["adam", "sgd"],
        "training.b1": ["1", "-0.1", "2"],
        "training.ema_decay": ["1", "1.1", "-1"],
        "training.ema_warmup": ["0"],
        "training.hold": ["1", "-0.1"],
        "training.warmup_start": ["1.5", "-0.1", "half"],
        "training.final_weight_decay": ["-1", "x"],
        "training.decay": ["*kernel", '("kernels",)', '("*kernel","!tables")', "(1,)"],
        "tokenizer_training.decay": ['("blocks/*",)'],
        "tokenizer_training.crop": ["middle"],
        "tokenizer_training.crop_range": ["()", "1.1"],
        "training.keep": ["0", "-1"],
        "training.accumulate": ["0", "-2"],
        "training.warmup_steps": ["-1", "soon"],
        "training.codes": ["1", "yes", "maybe"],
        "training.mesh.data": ["-2"],
        "tokenizer_training.steps": ["0", "x"],
        "tokenizer_training.losses.adversarial_kind": ["hing"],
        "tokenizer_training.losses.discriminator_layers": ["0"],
        "evaluation.samples": ["0", "3", "x"],
        "evaluation.batch_size": ["0", "-1"],
        "sampling.guidance": ["inf", "-1", "x"],
        "sampling.top_p": ["0", "1.5"],
        "sampling.guidance_schedule": ["ramps"],
        "sampling.steps": ["3", "-1"],
        "data.source": ["digit", "imagenet", ""],
        "data.crop": ["middle"],
        "data.crop_range": ["()", "(1.2,1.1)", "(0.5,)", "1.1", "(1,1)", "(9,)"],
        "data.filter": ["box"],
        "data.channels": ["2", "0", "4"],
        "data.image_size": ["0", "-16", "100000", "7"],
        "data.shift": ["-1", "99"],
        "data.test_fraction": ["0", "1", "-0.1", "2"],
        "data.num_classes": ["3", "-1"],
        "model.layers": ["0", "-2", "x", "(1,)(2,)"],
        "model.width": ["0", "-8", "wide"],
        "model.mlp": ["relu"],
        "model.norm": ["batch"],
        "model.adaptive": ["yes"],
        "model.gate_gain": ["-1"],
        "model.init": ["uniform"],
        "model.dropout": ["1", "-0.5", "2"],
        "model.eps": ["0", "-1"],
        "mixer.heads": ["0", "3", "-1", "x"],
        "mixer.qk_norm": ["l3"],
        "mixer.rope": ["2d"],
        "mixer.weight_dropout": ["1", "-0.1"],
        "mixer.in_gain": ["0"],
        "mixer.name": ["atention", ""],
        "order.name": ["spiral"],
        "head.name": ["softmax"],
        "head.label_smoothing": ["1", "-1"],
        "tokenizer.name": ["vqgan"],
        "tokenizer.vocab": ["0", "1", "x"],
        "tokenizer.levels": ["(1,2,3)", "(0,4)", "x"],
        "tokenizer.encoder.patch": ["0", "5", "x"],
        "tokenizer.encoder.name": ["resnet"],
        "conditioning.dropout": ["-1", "2"],
        "compute_dtype": ["float16", "half", ""],
        "seed": ["-1", "1.5", "x", "18446744073709551616"],
    }.items() for value in values),
    ("tokenizer_training.losses.perceptual=1", ("perceptual_weights", "vgg.pth", "losses.perceptual=0")),
    ("training.stpes=3", ("training.stpes", "training.steps")),
    ("trainig.steps=3", ("trainig.steps", "training.steps")),
    ("nonsense=1", ("nonsense",)),
    ("training=3", ("training", "is a group")),
    ("seed.x=3", ("seed",)),
    ("training.mesh.data=0", ("training.mesh",)),
    ("training.mesh.data=3", ("training.mesh",)),
    ("mixer.ropes=places", ("mixer.ropes", "rope")),
    ("=3", ("--config.FIELD=VALUE",)),
    (".=3", ("--config.FIELD=VALUE",)),
    ("training..steps=3", ("--config.FIELD=VALUE",)),
]  # fmt: skip
CONFIGS = [Row(f"{TRAIN} '--config.{text}'", words) for text, words in FIELDS]
CONFIGS += [Row(f"{SAMPLE} --config.{text}", words) for text, words in (
    ("model.layers=3", ("model.layers", "fixed by training")),
    ("sampling.top_p=0", ("sampling.top_p",)),
    ("sampling.guidance=inf", ("sampling.guidance",)),
    ("data.image_size=32", ("data.image_size",)),
    ("data.channels=3", ("data.channels",)),
    ("compute_dtype=fp8", ("compute_dtype",)),
)]  # fmt: skip

PROGRAMS = {  # config files, by what they hold
    "raises": ("def get_config():\n    raise RuntimeError('no')\n", ("line 2", "RuntimeError: no")),
    "imports": ("import nowhere_at_all\n", ("line 1", "nowhere_at_all")),
    "nothing": ("def get_config():\n    pass\n", ("NoneType",)),
    "recurses": ("def get_config():\n    return get_config()\n", ("line 2", "RecursionError")),
    "exits": ("import sys\nsys.exit(0)\n", ("line 2", "exits")),
    "syntax": ("def get_config(:\n", ("line 1",)),
    "lacks": ("from vargen import config\ndef get_config():\n    return config.config()\n", ("tokenizer",)),
    "empty": ("", ("get_config()",)),
}
JSONS = {
    "cut": ('{"seed": 1', ("line 1",)),
    "list": ("[]", ("object",)),
    "types": ('{"training": {"steps": "x"}}', ("training.steps",)),
    "empty": ("", ("JSON",)),
    "bare": ("{}", ("config",)),
}
FILES = [
    Row(
        f"train --config {{tmp}}/{name}.py --workdir {{tmp}}/w",
        (f"{name}.py", *words) if name != "lacks" else words,
    )
    for name, (_, words) in PROGRAMS.items()
]
FILES += [
    Row(f"train --config {{tmp}}/{name}.json --workdir {{tmp}}/w", words)
    for name, (_, words) in JSONS.items()
]
FILES += [
    Row("train --config {tmp}/pipe.py --workdir {tmp}/w", ("pipe.py", "no plain file")),
    Row("train --config {tmp}/latin.py --workdir {tmp}/w", ("latin.py", "UTF-8")),
    Row("train --config {tmp}/text.txt --workdir {tmp}/w", (".txt",)),
    *(Row(f"{SAMPLE} --codes {{tmp}}/{name}", words) for name, words in (
        ("none.npy", ("none.npy", "found none")),
        ("codes_float.npy", ("codes_float.npy", "float64")),
        ("codes_large.npy", ("128",)),
        ("codes_negative.npy", ("-1",)),
        ("codes_short.npy", ("shape",)),
        ("codes_none.npy", ("shape",)),
        ("codes_object.npy", ("codes_object.npy",)),
        ("codes_text.npy", ("codes_text.npy",)),
        ("codes_cut.npy", ("codes_cut.npy",)),
        ("codes.npz", (".npy",)),
        ("pipe.py", ("no plain file",)),
        ("text.txt", (".npy",)),
        ("", ("directory",)),
    )),
]  # fmt: skip

DATA = [
    Row(f"{FOLDER} --config.data.path={{tmp}}/{name}", words)
    for name, words in (
        ("none", ("none", "no such folder")),
        ("text.txt", ("a file",)),
        ("flat", ("subfolders",)),
        ("empty", ("subfolders",)),
        ("hollow", ("hollow", "expected images")),
    )
] + [
    Row(f"{FOLDER} --config.data.path=~nosuchuser", ("data.path", "~nosuchuser")),
    Row(f"{FOLDER}", ("data.path",)),
    Row(f"{FOLDER} --config.data.path=gs:/bucket", ("data.path", "gs:/bucket")),
    Row(f"{TRAIN} --config.data.source=tfds --config.data.path={{tmp}}", ("tfds",)),
    Row(f"{TRAIN} --config.data.source=tfds", ("data.path",)),
    *(Row(f"{RECONSTRUCT} --input {{tmp}}/{name}", words) for name, words in (
        ("none.png", ("none.png", "found none")),
        ("pipe.png", ("pipe.png", "no plain file")),
        ("text.txt", ("text.txt", "broken")),
        ("empty", ("empty", "found none")),
        ("huge/a/huge.png", ("huge.png", "megapixels")),
        ("broken/a/broken.png", ("broken.png", "broken one")),
    )),
    Row(f"{EVALUATE} --config.data.source=folder --config.data.path={{tmp}}/two --config.data.num_classes=0", ("held-out images",)),
]  # fmt: skip

TRAINED = "train --config {config} --workdir {model}"
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
    Row(f"{SAMPLE} --classes 3 --out {{tmp}}/flat", ("--out", "of samples alone", "1.png")),
    Row(f"{SAMPLE} --classes 3 --out {{tmp}}/flat --overwrite", ("--out", "of samples alone", "1.png")),
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
    Row(f"{EVALUATE} --preset papers", ("--preset", "papers")),
    Row(f"{EVALUATE} --out /proc/nowhere", ("/proc/nowhere",)),
    Row(f"{RECONSTRUCT} --input", ("--input",)),
    Row(f"{RECONSTRUCT} --input ''", ("--input", "expected a path")),
    Row(f"{RECONSTRUCT} --input {{tmp}}/codes.npy", ("codes.npy", "broken")),
    Row(f"{RECONSTRUCT} --input {{tmp}}/flat {{tmp}}/none.png", ("none.png", "found none")),
    Row(f"{RECONSTRUCT} --input ~nosuchuser/a.png", ("--input", "~nosuchuser")),
    Row(f"{FOLDER} --config.data.path={{tmp}}/torn", ("torn", "broken")),  # all of it: found in the held-out part
    Row(f"{TRAIN} --stage tokenizer --config.data.source=folder --config.data.num_classes=0 --config.data.channels=3 --config.data.path={{tmp}}/torn", ("torn", "broken")),
]  # fmt: skip

RIGHT = [
    Row("import rar --tokenizer {arrays}/good.npz --out {tmp}/o", code=0),
    Row("export var --workdir {model} --generator {tmp}/g.npz", code=0),
    Row("interop.check {arrays}/good.npz", code=0),
    Row(f"{RECONSTRUCT} --input {{tmp}}/flat --out {{tmp}}/o", code=0),
    Row(f"{TRAINED} --config.training.log_every=1 --config.tokenizer_training.keep=9", code=0),
    Row("tokenize --workdir {model}", code=0),
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

KINDS = dict(
    flags=FLAGS,
    configs=CONFIGS,
    ranges=RANGES,
    files=FILES,
    data=DATA,
    workdirs=WORKDIRS,
    interop=INTEROP,
    others=OTHERS,
    right=RIGHT,
)
