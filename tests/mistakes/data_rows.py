# ruff: noqa: E501 (a table: a row stands on a line)
"""Data sets and pictures."""

from beginnings import EVALUATE, FOLDER, RECONSTRUCT, SAMPLE, SHAPES, TRAIN
from runner import Row

DATA = [
    Row(f"{FOLDER} --config.data.path={{tmp}}/{name}", words)
    for name, words in (
        ("none", ("none", "no such folder")),
        ("text.txt", ("a file",)),
        ("flat", ("two different images",)),  # one picture, of one class: nothing to hold out
        ("empty", ("subfolders",)),
        ("hollow", ("hollow", "expected images")),
        ("twice", ("twice", "one folder of training pictures", "train and Training")),
        ("held", ("held", "expected train/")),
        ("foreign", ("val", "expected the classes of", "found another: b")),
        ("unlabelled", ("train", "subfolders", "1 outside the class folders")),
        ("nested", ("nested: found splits in data/", "--config.data.path=", "nested/data")),
        ("loose", ("loose", "found 2 outside and 1 in 1 class folder")),
        ("equal", ("equal", "two different images")),
        ("broken --check-data", ("found 1 of 19 images", "a/broken.png")),
        ("torn --check-data", ("found 18 of 18 images", "a/0.png", "and 8 more")),
        ("torn --check-data --config.data.skip_broken=17", ("found 18 of 18 images",)),
        ("torn --config.data.skip_broken=1 --config.data.test_fraction=0.99", ("torn", "data.skip_broken", "at most 1")),
        ("torn --config.data.skip_broken=99", ("torn", "expected a whole image of class")),
    )
] + [
    Row(f"{FOLDER} --config.data.path=~nosuchuser", ("data.path", "~nosuchuser")),
    Row(f"{FOLDER}", ("data.path",)),
    Row(f"{TRAIN} --config.data.skip_broken=3", ("data.skip_broken", "expected 0 for digits")),
    Row(f"{TRAIN} --config.data.path={{tmp}}/two", ("data.path", "expected none for digits", "--config.data.source=folder")),
    Row(f"{FOLDER.replace('train', 'quickstart', 1)} --config.data.path={{tmp}}/two", ("at least 4 held-out images", "found 2", "test_fraction")),
    *(Row(f"{command} --check-data=1", ("--check-data",)) for command in (TRAIN, EVALUATE, "tokenize --workdir {model}")),
    *(Row(f"{command} --check-data", ("--check-data",)) for command in (SAMPLE, RECONSTRUCT)),
    Row("tokenize --workdir {model} --config.data.skip_broken=3", ("data.skip_broken", "expected 0 for digits")),
    Row(f"{TRAIN} --config.data.frames=8", ("data.frames", "expected 1 for digits", "moving_digits")),
    Row(f"{FOLDER} --config.data.path={{tmp}}/two --config.data.frames=8", ("data.frames", "expected 1 for folder")),
    Row(f"{TRAIN} --config.data.source=moving_digits", ("data.frames", "at least 2 for moving_digits")),
    Row(f"{TRAIN} --config.data.source=moving_digits --config.data.frames=8", ("config field tokenizer", "for clips")),
    Row(f"{EVALUATE} --config.data.frames=8", ("data.frames", "trained with 1")),
    Row(f"{FOLDER} --config.data.path=gs:/bucket", ("data.path", "gs:/bucket")),
    Row(f"{TRAIN} --config.data.source=idx", ("data.path", "IDX files")),
    Row(f"{TRAIN} --config.data.source=idx --config.data.path={{tmp}}/none", ("idx", "none", "no such folder")),
    Row(f"{TRAIN} --config.data.source=idx --config.data.path={{tmp}}/two", ("two", "train-labels-idx1-ubyte", "found none")),
    Row(f"{TRAIN} --config.data.source=tfds --config.data.path={{tmp}}", ("tfds",)),
    Row(f"{TRAIN} --config.data.source=tfds", ("data.path",)),
    *(Row(f"{RECONSTRUCT} --input {{tmp}}/{name}", words) for name, words in (
        ("none.png", ("none.png", "found none")),
        ("pipe.png", ("pipe.png", "no plain file")),
        ("text.txt", ("text.txt", "broken")),
        ("float.tif", ("float.tif", "levels from 0 to 1")),
        ("torn", ("a/0.png", "broken one")),
        ("empty", ("empty", "found none")),
        ("huge/a/huge.png", ("huge.png", "megapixels")),
        ("broken/a/broken.png", ("broken.png", "broken one")),
    )),
    Row(f"{EVALUATE} --config.data.source=folder --config.data.path={{tmp}}/two --config.data.num_classes=0", ("held-out images",)),
    *(Row(f"{SHAPES} {flag}", words) for flag, words in (
        ("--config.data.channels=1", ("data.channels", "expected 3 for shapes")),
        ("--config.data.num_classes=10", ("data.num_classes", "24 as in shapes")),
        ("--config.data.image_size=12 --config.tokenizer.encoder.patch=4", ("data.image_size", "at least 16 for shapes")),
        ("--config.data.image_size=256", ("data.image_size", "at most 128 for shapes")),
        ("--config.data.test_fraction=0.999", ("data.test_fraction", "from 0.01 to 0.9 for shapes")),
        ("--config.data.skip_broken=3", ("data.skip_broken", "expected 0 for shapes")),
        ("--config.data.flip=true", ("data.flip", "captions")),
        ("--config.data.shift=1", ("data.shift", "captions")),
        ("--config.data.crop=five", ("data.crop", "captions")),
    )),
    *(Row(f"{SHAPES} --config.conditioning=words {flag}", words) for flag, words in (
        ("", ("conditioning.vocabulary", "found none")),
        ("""'--config.conditioning.vocabulary=("red circle",)'""", ("conditioning.vocabulary", "red circle")),
        ("""'--config.conditioning.vocabulary=("red","red")'""", ("vocabulary", "'red' twice")),
        ("""'--config.conditioning.vocabulary=("red",)' --config.conditioning.tokens=1""", ("conditioning.tokens",)),
        ("""'--config.conditioning.vocabulary=("red",)'""", ("conditioning words", "needs the feed shift")),
    )),
]  # fmt: skip
