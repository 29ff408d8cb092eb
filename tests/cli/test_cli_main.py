"""The command line: help without JAX, and mistakes in one line with exit code 2."""

import subprocess
import sys

import pytest

from vargen.cli import main

WITHOUT_JAX = """
import sys
from vargen.cli import main
try:
    main.main(sys.argv[1:])
finally:
    heavy = {"jax", "flax", "optax", "numpy", "grain", "orbax", "PIL", "etils", "ml_collections"} & set(sys.modules)
    assert not heavy, heavy
"""


@pytest.mark.parametrize("command", [[], *([name] for name in main.COMMANDS)])
def test_help_needs_no_jax(command):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_JAX, *command, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout
    assert all(len(line) <= 110 for line in done.stdout.splitlines())


def test_overrides_in_both_spellings():
    rest, overrides = main.split_overrides(
        ["train", "--config.a.b=1=2", "--workdir", "w", "--config.c", "3", "--config.d", "--config", "f.py"]
    )
    assert rest == ["train", "--workdir", "w", "--config", "f.py"]
    assert overrides == [("a.b", "1=2"), ("c", "3"), ("d", "true")]


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], ["COMMAND"]),
        (["smaple"], ["unknown command 'smaple'", "did you mean sample?"]),
        (["qqq"], ["unknown command 'qqq'", "quickstart, train"]),
        (["--verison"], ["--verison", "did you mean --version?"]),
        (["train", "--work-dir", "w"], ["unknown flag --work-dir", "did you mean --workdir?"]),
        (["train", "--work=w", "--workdir", "w"], ["unknown flag --work", "--workdir"]),
        (["sample", "--workdir", "w", "--config."], ["--config.FIELD=VALUE", "'--config.'"]),
        (["sample", "--workdir", "w", "--config.=3"], ["'--config.=3'"]),
        (["sample", "--workdir", "w", "--config..x=1"], ["'--config..x=1'"]),
        (["sample", "--workdir", "w", "--config.a.=1"], ["'--config.a.=1'"]),
        (["sample", "--workdir", "w", "a\nb\x1b[31m"], ["a b\\x1b[31m"]),
        (["sample", "--workdir", "w", "--seed", "\udcff"], ["--seed", "\\udcff"]),
    ],
)
def test_words_that_are_no_flags_or_commands(arguments, words, capsys):
    assert main.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("vargen"), error
    for word in words:
        assert word in error


def test_version(capsys):
    import vargen

    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"vargen {vargen.__version__}\n"


def test_the_last_of_a_repeated_flag_counts(monkeypatch):
    from vargen.cli import sample

    seen = []
    monkeypatch.setattr(sample, "run", seen.append)
    assert (
        main.main(["sample", "--workdir", "w", "--seed", "1", "--config.a=1", "--seed=2", "--config.a=2"])
        == 0
    )
    assert seen[0].seed == 2
    assert seen[0].overrides == [("a", "1"), ("a", "2")]


TINY = """
from vargen import config
def get_config():
    c = config.config()
    c.tokenizer = config.part("vq", encoder=config.part("patch"), vocab=8, channels=4)
    c.order, c.feed = config.part("raster"), config.part("shift")
    c.mixer, c.head = config.part("attention", heads=1), config.part("categorical")
    c.model = config.ConfigDict(dict(layers=1, width=8))
    return c
"""


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(TINY)
    return path


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["train"], ["--workdir"]),
        (["train", "--workdir", "{tmp}/w"], ["expected --config"]),
        (["train", "--workdir", "{tmp}/w", "--config", "{tmp}/none.py"], ["none.py", "found none"]),
        (["train", "--workdir", "{tmp}/w", "--config", "{tiny}", "--stage", "none"], ["--stage", "none"]),
        (["train", "--workdir", "{tmp}/w", "--config", "{tiny}", "--config.seeed=3"], ["seeed", "seed"]),
        (["train", "--workdir", "{tmp}/w", "--config", "{tiny}", "--config.seed=x"], ["seed", "'x'"]),
        (["train", "--workdir", "{tmp}/w", "--config", "{tiny}", "--config.head.x=1"], ["head.x", "unknown"]),
        (["train", "--workdir", "{tmp}/w", "--config", "{tiny}", "--config.order.name=spiral"], ["'spiral'"]),
        (
            ["train", "--workdir", "{tmp}/w", "--config", "{tiny}", "--config.data.source=folder"]
            + ["--config.data.path={tmp}/empty"],
            ["empty", "found none"],
        ),
        (
            ["train", "--workdir", "{tmp}/w", "--config", "{tiny}", "--tokenizer", "{tmp}/empty"],
            ["checkpoint", "found none"],
        ),
        (["tokenize", "--workdir", "{tmp}/w", "--config", "{tiny}"], ["checkpoint", "found none"]),
        (["sample", "--workdir", "{tmp}/nowhere"], ["nowhere", "found none"]),
        (["sample", "--workdir", "{tmp}/empty"], ["checkpoint", "found none"]),
        (["sample", "--workdir", "{tmp}/empty", "--top-p", "2"], ["--top-p", "above 0 to 1", "'2'"]),
        (["sample", "--workdir", "{tmp}/empty", "--count", "0"], ["--count", "from 1 to 1000000", "'0'"]),
        (["evaluate", "--workdir", "{tmp}/empty"], ["checkpoint", "found none"]),
        (["reconstruct", "--workdir", "{tmp}/empty"], ["checkpoint", "found none"]),
        (["smaple"], ["smaple", "sample"]),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments, words, tmp_path, tiny, capsys):
    (tmp_path / "empty").mkdir()
    code = main.main([a.format(tmp=tmp_path, tiny=tiny) for a in arguments])
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1, error
    for word in words:
        assert word in error
    assert "Traceback" not in error


def test_interrupt(monkeypatch, capsys):
    from vargen.cli import sample

    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(sample, "run", interrupted)
    assert main.main(["sample", "--workdir", "x"]) == 130
    assert "interrupted" in capsys.readouterr().err
