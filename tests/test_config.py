"""Config files, overrides and their mistakes."""

import pytest

from vargen import config
from vargen.errors import UserError


def example():
    c = config.config()
    c.tokenizer = config.part("vq", encoder=config.part("patch", width=8))
    c.order = config.part("levels", sides=(1, 2, 4))
    c.model = config.ConfigDict(dict(layers=2))
    return c


def field(c, dotted):
    for key in dotted.split("."):
        c = c[key]
    return c


@pytest.mark.parametrize(
    "dotted, text, expected",
    [
        ("training.steps", "200", 200),
        ("training.steps", "1e3", 1000),
        ("training.learning_rate", "1", 1.0),
        ("training.learning_rate", "3e-4", 3e-4),
        ("training.codes", "false", False),
        ("training.mesh.fsdp", "2", 2),
        ("tokenizer_training.losses.l1", "0.5", 0.5),
        ("data.path", "007", "007"),
        ("order.sides", "1,3", (1, 3)),
        ("order.sides", "(1, 3)", (1, 3)),
        ("order.unheard_of", "1.5", 1.5),  # options of parts are checked when the part is built
        ("tokenizer.encoder.blocks", "3", 3),
    ],
)
def test_overrides_are_read_as_the_type_of_the_field(dotted, text, expected):
    original = example()
    found = field(config.override(original, [(dotted, text)]), dotted)
    assert found == expected and type(found) is type(expected)
    assert original == example()  # a copy was changed


@pytest.mark.parametrize(
    "dotted, value, words",
    [
        ("training.stpes", "3", ["training.stpes", "unknown", "training.steps"]),
        ("trainng.steps", "3", ["trainng.steps", "unknown", "training.steps"]),
        ("steps", "3", ["unknown", "sampling.steps"]),
        ("nonsense", "3", ["nonsense", "unknown", "training", "sampling"]),
        ("training.steps", "many", ["training.steps", "a whole number", "'many'"]),
        ("training.steps", "1.5", ["training.steps", "a whole number", "1.5"]),
        ("training.codes", "1", ["training.codes", "true or false"]),
        ("training.learning_rate", "fast", ["a number", "'fast'"]),
        ("training.learning_rate", True, ["a number", "True"]),
        ("training", "3", ["is a group", "steps"]),
        ("seed.x", "3", ["seed has no fields"]),
    ],
)
def test_mistakes_name_the_field(dotted, value, words):
    with pytest.raises(UserError) as caught:
        config.override(example(), [(dotted, value)])
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_round_trip_keeps_tuples_and_floats():
    c = example()
    c.training.learning_rate = 1.0
    again = config.from_json(config.to_json(c))
    assert again == c
    assert again.order.sides == (1, 2, 4) and isinstance(again.training.learning_rate, float)


FILE = """
from vargen import config
SIZES = {"s": 2, "m": 4}
def get_config(size="s"):
    c = config.config()
    c.model = config.ConfigDict(dict(layers=SIZES[size]))
    return c
"""


def test_files_variants_and_json(tmp_path):
    path = tmp_path / "system.py"
    path.write_text(FILE)
    assert config.load(path).model.layers == 2
    assert config.load(f"{path}:m").model.layers == 4
    assert config.load(path, [("model.layers", "7")]).model.layers == 7
    stored = tmp_path / "config.json"
    stored.write_text(config.to_json(config.load(path)))
    assert config.load(stored) == config.load(path)


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("other.py", FILE, ["sytem.py", "found none"]),
        ("system.py", FILE, ["sytem.py", "did you mean system.py?"]),
        ("sytem.py", "x = 1", ["get_config()"]),
        ("sytem.py", "def get_config(:", ["line 1"]),
        ("sytem.json", "", ["sytem.py", "found none"]),
    ],
)
def test_broken_files(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as caught:
        config.load(tmp_path / "sytem.py")
    for word in words:
        assert word in str(caught.value)


def test_unknown_variant(tmp_path):
    path = tmp_path / "system.py"
    path.write_text(FILE)
    with pytest.raises(UserError, match="unknown variant 'xl'"):
        config.load(f"{path}:xl")


def test_helpers_refuse_unknown_fields():
    with pytest.raises(UserError, match="stepz"):
        config.training(stepz=3)
    assert config.imagenet(256, crop="random").crop == "random"
    assert config.digits().channels == 1
