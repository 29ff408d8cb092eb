"""`--help-config`, and what it says of every field that there is."""

import inspect

import pytest

from vargen import axes, bundled, config, limits, models, parts, schema, tokenizers
from vargen.cli import help_config, main, meanings
from vargen.config import part
from vargen.tokenizers import discriminators, teachers


def test_docstrings_are_read():
    def example():
        """Makes something.

        Args:
          heads: H, of queries
            and of keys.
          a, b: two of a kind.

        Raises:
          UserError: never.
        """

    found = dict(heads="H, of queries and of keys.", a="two of a kind.", b="two of a kind.")
    assert meanings.of(example) == found


def test_docstrings_of_what_a_function_returns():
    assert meanings.of(axes.PARTS["tokenizer"]["vq"])["beta"].startswith("weight of the commitment")


@pytest.mark.parametrize("name, group", schema.GROUPS.items(), ids=list(schema.GROUPS))
def test_every_field_of_a_group_has_a_meaning(name, group):
    fields = {k for k, f in limits.fields(group).items() if k != "mesh"}
    assert fields <= set(meanings.of(group)), name


@pytest.mark.parametrize(
    "place, name", [(place, name) for place, registry in axes.PARTS.items() for name in registry]
)
def test_every_option_of_a_part_has_a_meaning(place, name):
    missing = set(axes.options(place, name)) - set(meanings.of(axes.PARTS[place][name])) - {"encoder"}
    assert not missing


def test_given_is_what_the_assembly_gives(monkeypatch):
    """`axes.GIVEN` against the calls that build a model."""
    seen = {}
    build = parts.build

    def watched(registry, part, axis, **context):
        seen.setdefault(axis, set()).update(context)
        return build(registry, part, axis, **context)

    monkeypatch.setattr(parts, "build", watched)
    own = [("head.mixer", "attention"), ("head.mixer.heads", "2")]
    for name in ("var", "mar", "orthus", "himar", "hart", "rqtransformer"):
        c = config.override(config.load(name), own if name == "rqtransformer" else [])
        models.build_generator(c, models.build_tokenizer(c))
        discriminators.build(c.tokenizer_training.losses.discriminator)
    conv = part("conv", width=32, multipliers=(1, 1, 1))
    decoder = part("direct", pixels=conv)
    tokenizers.build(part("fsq", encoder=part("registers", patch=4, stem=conv, decoder=decoder)), 16, 1)
    kl = part("kl", encoder=part("patch", patch=2), channels=4)
    tokenizers.build(part("within", outer=kl, inner=kl), 16, 1)
    for place in ("tokenizer", "tokenizer_training.losses"):
        teachers.build(part("dinov2"), f"{place}.teacher")
    assert seen == {place: set(names.split()) for place, names in axes.GIVEN.items()}


@pytest.mark.parametrize("name", bundled.names())
def test_lists_every_field(name):
    c = config.load(name)
    shown = help_config.text(c)

    def walk(node, prefix):
        for key, value in node.items():
            if hasattr(value, "items"):
                walk(value, f"{prefix}{key}.")
            elif key != "name":
                assert f"{prefix}{key} = {value!r}" in shown

    walk(c, "")
    for axis in config.AXES:
        assert f"\n{axis} = {c[axis].name}  [" in shown


def test_a_workdir(tmp_path, capsys, monkeypatch):
    """Its own config; one of vargen's own of that name comes first."""
    monkeypatch.chdir(tmp_path)
    for name in ("run", "mar"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config.to_json(config.load("var", [("seed", 77)])))
    for name, words in dict(run=("name = 'VAR", "seed = 77 "), mar=("name = 'MAR", "seed = 0 ")).items():
        with pytest.raises(SystemExit) as ended:
            main.parser().parse_args(["train", "--help-config", name])
        printed = capsys.readouterr().out
        assert ended.value.code == 0 and all(word in printed for word in words)


def test_command(capsys):
    """With overrides: what the swapped part takes."""
    with pytest.raises(SystemExit) as ended:
        main.parser([("mixer", "gla")]).parse_args(["train", "--help-config", "llamagen:b"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    assert "mixer = gla  [" in printed and "mixer.gate_rank = 16  [" in printed
    assert inspect.getdoc(axes.PARTS["mixer"]["gla"]).splitlines()[0] in printed
