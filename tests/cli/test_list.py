"""`vargen list`: everything there is, as it is declared and measured."""

import json
import pathlib
import re
import runpy
import shutil
import subprocess
import sys

import pytest
from golden import FOLDER, GOLDENS

from vargen import axes, bundled, config, systems
from vargen.cli import main
from vargen.interop import check

ROOT = pathlib.Path(__file__).parents[2]
DIGITS = json.loads((ROOT / "benchmarks" / "results" / "digits.json").read_text())
NO_BACKEND = """
import sys
from vargen.cli import main
code = main.main(sys.argv[1:])
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
sys.exit(code)
"""


def listed(capsys, *arguments):
    assert main.main(["list", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_all_of_it_without_starting_a_backend():
    done = subprocess.run([sys.executable, "-c", NO_BACKEND, "list"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for axis in axes.QUESTIONS:
        assert f"{axis}: {axes.QUESTIONS[axis]}\n" in done.stdout
        for name in axes.PARTS[axis]:
            assert f"\n  {name} " in done.stdout
    for name in systems.names():
        assert f"\n  {name} " in done.stdout
    assert "label accuracy 99.2 %, Fréchet distance 0.76" in done.stdout  # VAR on the digits
    assert max(map(len, done.stdout.splitlines())) <= 110


@pytest.mark.parametrize("place", [place for place in axes.PARTS if place.count(".") < 2])
def test_every_part_has_a_sentence(place):
    sentences = [axes.summary(place, name) for name in axes.PARTS[place]]
    assert len({*sentences}) == len(sentences)
    assert all(10 < len(s) < 260 and not s.startswith("The part") and s[-1] not in ".;:" for s in sentences)


@pytest.mark.parametrize("name", systems.names())
def test_every_system(name):
    """What is said of each is what its config and the results say."""
    s = systems.read(name)
    table = next(
        v
        for k, v in runpy.run_path(str(bundled.folder() / f"{name}.py")).items()
        if k.isupper() and isinstance(v, dict)
    )
    assert s.sizes == tuple(table) and s.published
    assert s.parameters.startswith("Parameters") and s.parameters.endswith(".")
    # tests/test_configs.py holds the numbers against what the builds have.
    assert s.counts and {*s.counts} <= {*s.published}
    # Against a golden, which tests/interop/test_parity.py compares; or it says what else it was held against.
    assert bool(s.goldens) != bool(re.search("no golden|no licence|by a float64 formula|libjpeg", s.checked))
    for golden in s.goldens:
        assert (FOLDER / f"{golden}.npz").is_file() and GOLDENS[golden] in check.FAMILIES
    measured = DIGITS.get(name) or DIGITS["on_a_shared_core"].get(name) or {}
    assert bool(s.measured) == bool(measured) == (name != "orthus")
    assert all(s.measured[key] == measured[key] for key in systems.FIGURES if measured)


def test_goldens_of_systems():
    """Each golden of a system's generator stands in what the system says of itself."""
    said = {golden: name for name in systems.names() for golden in systems.read(name).goldens}
    for golden, family in GOLDENS.items():
        assert family not in systems.names() or said[golden] == family


def test_one_system(capsys):
    found = listed(capsys, "mar")
    assert [*found] == ["systems"] and [*found["systems"]] == ["mar"]
    mar, c = found["systems"]["mar"], config.load("mar:b")
    assert mar["title"] == "MAR" and mar["paper"] == "https://arxiv.org/abs/2406.11838"
    assert mar["parts"] == {axis: c[axis].name for axis in config.AXES}
    assert "B 207.9 M" in mar["parameters"] and mar["counts"]["b"] == 207_900_000
    assert mar["goldens"] == ["mar", "mar_kl"]
    assert any("FID 2.31 (B)" in note for note in mar["notes"])


def test_one_part_of_two_axes(capsys):
    found = listed(capsys, "staged")
    assert [*found] == ["axes"] and [*found["axes"]] == ["feed", "head"]
    holds, meaning = found["axes"]["head"]["parts"]["staged"]["options"]["norm"]
    assert holds == "one of layer, rms; default 'rms'" and meaning


@pytest.mark.parametrize(
    "word, axis", [("mixer", "mixer"), ("mixers", "mixer"), ("encoders", "tokenizer.encoder")]
)
def test_one_axis(capsys, word, axis):
    found = listed(capsys, word)
    assert [*found["axes"]] == [axis] and [*found["axes"][axis]["parts"]] == [*axes.PARTS[axis]]
    assert "systems" not in found


def test_what_goes_with_a_part(capsys):
    """As the parts' own checks say: see tests/test_matrix.py, which trains what goes together."""
    found = listed(capsys, "pivots", "--combinations")
    assert found["axes"]["feed"]["parts"]["pivots"]["goes_with"] == dict(
        order=["level_sets"],
        head=["diffusion", "flow", "rounds", "v_diffusion"],
        mixer=["attention", "gla", "mamba", "retention", "s5", "ssd"],
    )


def test_where_no_results_are_at_hand(capsys, monkeypatch, tmp_path):
    """As in a wheel."""
    shutil.copytree(bundled.folder(), tmp_path / "vargen" / "configs")
    monkeypatch.setattr(bundled, "folder", lambda: tmp_path / "vargen" / "configs")
    assert main.main(["list", "var"]) == 0
    printed = capsys.readouterr().out
    assert "greedy tokens exact" in printed and "on the digits" not in printed


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["ordres"], ["found 'ordres'; did you mean orders?"]),
        (["maskgti"], ["found 'maskgti'; did you mean maskgit?"]),
        (["xyzzy"], ["found 'xyzzy'", "systems"]),
        (["var", "--markdown"], ["--markdown: expected systems, found 'var'"]),
        (["--json", "--markdown"], ["--markdown: not allowed with argument --json"]),
    ],
)
def test_mistakes(arguments, words, capsys):
    assert main.main(["list", *arguments]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert all(word in said.err for word in words), said.err
