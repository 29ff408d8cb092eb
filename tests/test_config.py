"""Config files, overrides and their mistakes."""

import pathlib

import pytest

from vargen import axes, config
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
        ("tokenizer_training.losses.discriminator.layers", "2", 2),
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


BEGIN = "from vargen import config\ndef get_config():\n    c = config.config()\n    "
PROGRAMS = {
    "raises": ("def get_config():\n    raise RuntimeError('no')", ["line 2", "RuntimeError: no"]),
    "raises_at_import": ("x = 1\ny = x / 0\n", ["line 2", "ZeroDivisionError"]),
    "imports_nothing": ("import nowhere_to_be_found", ["line 1", "nowhere_to_be_found"]),
    "returns_nothing": ("def get_config():\n    pass", ["to return a config, found NoneType"]),
    "returns_text": ("def get_config():\n    return 'c'", ["found str"]),
    "recurses": ("def get_config():\n    return get_config()", ["line 2", "RecursionError"]),
    "exits": ("import sys\ndef get_config():\n    sys.exit(0)", ["line 3", "it exits"]),
    "exits_at_import": ("raise SystemExit(3)", ["line 1", "it exits (3)"]),
    "is_no_function": ("get_config = 3", ["expected a function get_config()"]),
    "wants_two": ("def get_config(a, b):\n    return a", ["expected a variant"]),
    "indents": ("def get_config():\nreturn 1", ["line 2"]),
    "sets_another_type": (
        BEGIN + "c.training.steps = 'x'\n    return c",
        ["line 4"],
    ),
    "unknown_group": (
        BEGIN + "c.trainign = 3\n    return c",
        ["trainign", "did you mean training?"],
    ),
    "axis_without_name": (
        BEGIN + "c.mixer = dict(heads=3)\n    return c",
        ["config field mixer.name"],
    ),
    "axis_no_part": (
        BEGIN + "c.mixer = 'attention'\n    return c",
        ["config field mixer: expected a group"],
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_that_fail(name, tmp_path):
    text, words = PROGRAMS[name]
    path = tmp_path / "c.py"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        config.load(path)
    assert "\n" not in str(caught.value) and "c.py" in str(caught.value)
    for word in words:
        assert word in str(caught.value), str(caught.value)


FILES = {
    "latin.py": (b"x = 1\n# caf\xe9\n", ["line 2", "UTF-8", "0xe9"]),
    "zero.py": (b"x = 1\n\0", ["line 2", "zero byte"]),
    "cut.json": (b'{"seed": 1,', ["cut.json", "line 1"]),
    "list.json": (b"[1]", ["a JSON object, found list"]),
    "deep.json": (b"[" * 100_000, ["expected JSON"]),
    "latin.json": (b'{"name": "\xe9"}', ["UTF-8"]),
    "wrong.json": (b'{"training": {"steps": "many"}}', ["training.steps", "a whole number"]),
    "group.json": (b'{"training": 3}', ["config field training: expected a group"]),
    "preset.json": (b'{"presets": {"paper": {"sampling": {"top_p": 7}}}}', ["presets.paper.sampling.top_p"]),
    "config.txt": (b"", ["a Python file (.py) or a .json, found .txt"]),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_none(name, tmp_path):
    data, words = FILES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError) as caught:
        config.load(tmp_path / name)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_no_plain_files(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "dir.py").mkdir()
    for name, found in (("pipe.py", "no plain file"), ("dir.py", "a directory"), ("none.py", "none")):
        with pytest.raises(UserError, match=f"expected a file, found .*{found}"):
            config.load(tmp_path / name)
    with pytest.raises(UserError, match="--config: expected a path, found ''"):
        config.load("")


def test_an_older_json_gets_the_defaults():
    c = config.from_json('{"training": {"steps": 7}}')
    assert c.training.steps == 7 and c.training.keep == 3 and c.training.mesh.data == -1


def test_valid_fields_that_a_file_does_not_list():
    c = config.override(example(), [("model.norm", "rms"), ("model.eps", "1e-5"), ("model.layers", "(1, 2)")])
    assert (c.model.norm, c.model.eps, c.model.layers) == ("rms", 1e-5, (1, 2))


@pytest.mark.parametrize(
    "text", ["1e400", "nan", "inf", "10**3", "١٢", "", "9" * 5000, "(" * 5000, "1\0", "[1", "0x"]
)
def test_odd_numbers(text):
    with pytest.raises(UserError, match="config field training.steps: expected a whole number") as caught:
        config.override(example(), [("training.steps", text)])
    assert len(str(caught.value)) < 400
    with pytest.raises(UserError, match="config field training.learning_rate"):
        config.override(example(), [("training.learning_rate", text)])


def test_swapping_a_part_keeps_what_both_know():
    c = config.load("llamagen:digits")
    for field in ("mixer", "mixer.name"):
        swapped = config.override(c, [(field, "gla")]).mixer
        assert swapped.to_dict() == dict(name="gla", heads=4)  # rope, dropout and out_bias are attention's
    back = config.override(c, [("mixer", "gla"), ("mixer.heads", "2"), ("mixer", "attention")]).mixer
    assert back.to_dict() == dict(name="attention", heads=2)
    assert config.override(c, [("mixer", "attention")]) == c
    encoder = config.override(c, [("tokenizer.encoder", "conv")]).tokenizer.encoder
    assert encoder.to_dict() == dict(name="conv", blocks=1)
    unknown = config.override(c, [("mixer", "glaa")]).mixer
    assert unknown.name == "glaa"  # building it says what there is


@pytest.mark.parametrize("place", [place for place in axes.PARTS if "." in place])
def test_a_part_inside_a_part_is_swapped(place):
    """By its place, and nowhere else."""
    owner = dict(
        tokenizer="var",
        mixer="rqtransformer",
        pivots="himar",
        picture="himar",
        text="orthus",
        codes="hart",
        numbers="hart",
        encoder="var",
        decoder="registers:titok",
        inner="registers:flextok_latents",
        outer="registers:flextok_latents",
        pixels="registers:titok",
        stem="registers:titok",
        discriminator="var",
        teacher="configs/tokenizers.py:teacher_kmeans",
    )
    c = config.load(owner[place.split(".")[-1]])
    other = sorted(set(axes.PARTS[place]) - {"attention"})[0]
    for field in (place, f"{place}.name"):
        swapped = config.override(c, [(field, other)])
        *parents, axis = place.split(".")
        above, before = swapped, c
        for key in parents:
            above, before = above[key], before[key]
        assert above[axis].name == other
        if axis in before:
            with above.ignore_type():
                above[axis] = before[axis]
        else:
            del above[axis]
        assert swapped == c


def test_a_group_alone_makes_no_field_near():
    for field, near in {
        "tokenizer_training.revive_until": "; tokenizer_training has ",
        "tokenizer_training.positionz": "; tokenizer_training has ",
        "tokenizer_training.stepz": "did you mean tokenizer_training.steps",
        "learning_rat": "did you mean ",
    }.items():
        with pytest.raises(UserError) as caught:
            config.override(config.load("var"), [(field, 1)])
        assert near in str(caught.value)


def test_swapping_leaves_what_the_other_cannot_hold():
    c = config.load("mar:digits")
    c.head.schedule = "linear"
    assert config.override(c, [("head", "categorical")]).head.to_dict() == dict(name="categorical")
    with pytest.raises(UserError, match="config field mixer: is a group"):
        config.override(c, [("mixer", 3)])


OWN = sorted(path.stem for path in (pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


def test_own_configs_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.load("var") == config.load("var:digits")
    assert config.load("mar:b").name == "MAR-B"
    (tmp_path / "var").write_text(FILE)  # a file of that name comes first, and has to be one of ours
    with pytest.raises(UserError, match="expected a Python file"):
        config.load("var")
    for typed, words in {
        "vra:d16": "did you mean var:d16?",
        "configs/mar.py": "did you mean mar?",
        "configs/mar_digits.py": "did you mean mar?",
        "nonsense": f"nor one of vargen's own: {', '.join(OWN)}",
        "mar:d16": "unknown variant 'd16', expected one of digits, pictures32",
        "tokenizers:vq-digits": "teacher_kmeans, each also with -pictures32",
    }.items():
        with pytest.raises(UserError) as caught:
            config.load(typed)
        assert words in str(caught.value) and "\n" not in str(caught.value)
