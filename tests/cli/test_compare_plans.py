"""What `vargen compare` plans, counts and writes, with children that leave at once what commands would leave."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

from vargen import models
from vargen.cli import children, compare, compare_plan, compare_progress, main, stages
from vargen.cli.budgets import parse
from vargen.report import comparison
from vargen.training import work

TINY = """
model.layers=2 model.width=32 mixer.heads=2 tokenizer.encoder.width=16 tokenizer.encoder.blocks=1
evaluation.samples=40 evaluation.batch_size=40 tokenizer_training.batch_size=16 training.batch_size=16
""".split()
MEASURED = dict.fromkeys(
    "label_accuracy precision recall psnr_db generator_parameters tokenizer_parameters training_images_per_second "
    "training_flops sampling_passes sampling_flops images_per_second generator_train_seconds".split()
)


class Children:
    """In the place of `children.run`: jobs end one after another, each after three seconds by its own word.

    Attributes:
      compiling: by system the seconds that a pilot of its generator compiles for; 2 where none is said, and an update
        takes one.
      names: of the jobs, in order.
      stop: how many more may end, before the command is stopped; None: all.
    """

    def __init__(self):
        self.compiling, self.names, self.stop = {}, [], None

    def run(self, jobs, count, environment, on_end, watch):
        for job in jobs:
            if self.stop == 0:
                raise KeyboardInterrupt
            self.stop = None if self.stop is None else self.stop - 1
            self.names.append(job.name)
            watch([job])
            if broken := next((j for j in job.needs if j.failed), None):
                job.failed = f"{broken.name}: {broken.failed}"
            elif job.name.startswith("pilot"):
                self.time(job)
            elif "tokenizer" in job.name:
                (job.workdir / "tokenizer" / "complete").parent.mkdir(parents=True)
                (job.workdir / "tokenizer" / "complete").touch()
                job.done = True
            else:
                self.measure(job)
            job.seconds = 3.0
            on_end(job)

    def time(self, job):
        stage = "tokenizer" if "tokenizer" in job.name else "generator"
        compiling = self.compiling.get(job.workdir.name, 2.0) if stage == "generator" else 2.0
        if compiling is None:
            job.failed = "it broke"
            return
        (job.workdir / stage).mkdir(parents=True, exist_ok=True)
        rows = [json.dumps(dict(step=i + 1, seconds=compiling + 1 + i)) for i in range(8)]
        (job.workdir / stage / "metrics.jsonl").write_text("\n".join(rows) + "\n")

    def measure(self, job):
        seed = int(job.workdir.name.removeprefix("seed"))
        metrics = dict.fromkeys(MEASURED, 1.0 + seed)
        metrics |= dict(frechet_distance_classifier=2.0 + seed, fid=5.0 + seed, bits_per_dimension=0.5)
        job.workdir.mkdir(parents=True, exist_ok=True)
        (job.workdir / "metrics.json").write_text(json.dumps(metrics))
        (job.workdir / "report.html").touch()


@pytest.fixture
def at_work(monkeypatch):
    made = Children()
    monkeypatch.setattr(children, "run", made.run)
    monkeypatch.setattr(compare, "judge", lambda *_: None)
    monkeypatch.setattr(compare, "check", lambda _: None)  # tests of mistakes trace what is traced here
    monkeypatch.setattr(models, "parameter_count", lambda _: 1000)
    monkeypatch.setattr(work, "of_generator", lambda *_: work.Work(1e6, 16))
    monkeypatch.setattr(work, "of_tokenizer", lambda *_: work.Work(1e6, 0))
    monkeypatch.setattr(compare_plan, "machine", lambda _: "2 CPU cores of a kind")
    monkeypatch.setattr(stages, "complete", lambda directory, steps: (directory / "complete").exists())
    return made


def run(capsys, out, *words, code=0, systems=("llamagen:digits", "randar:digits")):
    """The command; what it said, and the plan."""
    capsys.readouterr()
    fields = [f"--config.{field}" for field in TINY]
    assert main.main(["compare", *map(str, systems), "--out", str(out), *fields, *words]) == code
    found = capsys.readouterr()
    plan = json.loads((out / "plan.json").read_text()) if (out / "plan.json").is_file() else None
    return found.out + found.err, plan


def test_systems_that_a_budget_does_not_fit_are_left_out(at_work, tmp_path, capsys):
    """Each with the line that says why, of that budget alone; nothing is planned where none is left."""
    out, budget = tmp_path / "o", ("--budget", "10s,40s", "--seeds", "1")
    at_work.compiling = dict(randar=20.0, rar=50.0)
    systems = ("llamagen:digits", "randar:digits", "rar:digits")
    said, plan = run(capsys, out, *budget, code=2, systems=systems)
    assert [own["updates"] for own in plan["systems"].values()] == [{"10s": 8, "40s": 38}, {"40s": 20}, {}]
    assert plan["tokenizers"] == {"llamagen": dict(trained=True, updates=38)}
    line = "--budget 10s: expected time for compiling randar, 20.0 s, and an update, 1.00 s, found 10 s"
    assert f"randar: left out: {line}\n" in said
    assert f"vargen compare: 3 of 6 runs failed; randar, 10s, seed 0: {line}; the page has" in said
    assert "10 of 11: randar, 40s, seed 0: Label accuracy" not in said and "11 of 11: randar, 40s" in said
    found = json.loads((out / "compare.json").read_text())
    assert [r["failed"][:13] for r in found["runs"]] == ["", line[:13], line[:13], "", "", "--budget 40s:"]
    assert line in (out / "compare.html").read_text()
    assert list(found["ranking"]["ranks"]) == ["llamagen", "randar"]
    # Nothing of it is done again.
    at_work.names.clear()
    again, same = run(capsys, out, *budget, code=2, systems=systems)
    assert at_work.names == [] and same == plan and "3 of 6 runs failed" in again

    said, plan = run(capsys, tmp_path / "p", "--budget", "2s", "--seeds", "1", code=2)
    assert plan is None and "; no other of the 2 systems can be trained either\n" in said
    assert (
        "vargen compare: --budget 2s: expected time for compiling llamagen, 2.0 s, and an update, 1.00 s"
        in said
    )
    assert not (tmp_path / "p" / "compare.html").exists()


def test_a_pilot_that_fails_leaves_the_others_and_is_tried_again(at_work, tmp_path, capsys):
    at_work.compiling = dict(llamagen=None)
    said, plan = run(capsys, tmp_path, "--budget", "10s", "--seeds", "1", code=2)
    assert "pilot of llamagen: failed, and is left out: it broke\n" in said
    # Its tokenizer is there for the other.
    assert at_work.names[-2:] == ["the tokenizer of llamagen", "randar, 10s, seed 0"]
    assert plan["systems"]["llamagen"]["failed"] == dict(generator="it broke")
    at_work.compiling = {}
    at_work.names.clear()
    assert "6 of 6: randar, 10s, seed 0: " in said
    said, plan = run(capsys, tmp_path, "--budget", "10s", "--seeds", "1")
    assert at_work.names == ["pilot of llamagen", "llamagen, 10s, seed 0"]
    assert not plan["systems"]["llamagen"]["failed"] and "6 of 6: llamagen, 10s, seed 0: " in said


def test_systems_and_seeds_are_added(at_work, tmp_path, capsys, monkeypatch):
    """What was planned stays as it was, with its names; what is new alone is timed and trained."""
    out, budget = tmp_path / "o", ("--budget", "10s", "--seeds", "2", "--share-tokenizer")
    _, before = run(capsys, out, *budget)
    assert at_work.names == [
        *("pilot of the tokenizer of llamagen", "pilot of llamagen", "pilot of randar"),
        "the tokenizer of llamagen",
        *(f"{system}, 10s, seed {seed}" for seed in (0, 1) for system in ("llamagen", "randar")),
    ]
    (tmp_path / "llamagen.py").write_text(
        "from vargen import config\ndef get_config():\n    c = config.load('llamagen:digits')\n"
        "    c.tokenizer.vocab = 64\n    return c\n"
    )
    at_work.names.clear()
    # Before those that are there: were they the first, theirs would be the tokenizer of all.
    systems = (tmp_path / "llamagen.py", "mar:digits", "randar:digits", "llamagen:digits")
    said, after = run(capsys, out, *budget, systems=systems)
    assert at_work.names == [
        *("pilot of llamagen-2", "pilot of the tokenizer of mar", "pilot of mar", "the tokenizer of mar"),
        *(f"{system}, 10s, seed {seed}" for seed in (0, 1) for system in ("llamagen-2", "mar")),
    ]
    assert [*after["systems"]] == ["llamagen", "randar", "llamagen-2", "mar"]
    for name in before["systems"]:
        assert after["systems"][name] == before["systems"][name]
        assert after["asked"]["configs"][name] == before["asked"]["configs"][name]
    assert after["systems"]["llamagen-2"]["tokenizer"] == "llamagen"
    assert said.splitlines()[0].endswith("held out, 16x16, grey")
    assert "ahead: 4 runs of 10 s, 1 tokenizer of 10 s, 3 pilots, 1 at once: 50 s of training" in said
    assert "11 of 16: pilot of mar: 2.0 s to compile, 1 s an update\n" in said
    assert "16 of 16: mar, 10s, seed 1: Label accuracy 200.0 %" in said
    assert len(json.loads((out / "compare.json").read_text())["runs"]) == 8
    # A third seed of all.
    at_work.names.clear()
    run(capsys, out, *budget[:3], "3", "--share-tokenizer", systems=systems)
    assert at_work.names == [f"{name}, 10s, seed 2" for name in after["systems"]]

    for more, given, words in (
        ((), systems[1:], "expected systems llamagen:digits randar:digits"),
        (("--budget", "10s,20s"), systems, "expected budget 10s, found 10s,20s"),
        (
            ("--config.data.test_fraction=0.5",),
            systems,
            "expected config field data.test_fraction of llamagen",
        ),
    ):
        said, plan = run(capsys, out, *budget, *more, code=2, systems=given)
        assert "holds another comparison" in said and words in said and plan == after
    monkeypatch.setattr(compare_plan, "machine", lambda _: "64 CPU cores")
    said, plan = run(capsys, out, *budget, code=2, systems=[*systems, "rar:digits"])
    assert "expected machine 2 CPU cores of a kind, found 64 CPU cores" in said and plan == after


def test_it_is_extended_before_it_was_trained(at_work, tmp_path, capsys):
    """The tokenizer that a new system shares isn't there yet: the pilot takes one of a pilot."""
    at_work.stop = 3  # pilots alone
    run(capsys, tmp_path, "--budget", "10s", "--seeds", "1", code=130)
    assert "2 runs of 2 are still ahead" in (tmp_path / "compare.html").read_text()
    at_work.stop = None
    at_work.names.clear()
    systems = ("llamagen:digits", "randar:digits", "rar:digits")
    run(capsys, tmp_path, "--budget", "10s", "--seeds", "1", systems=systems)
    assert at_work.names[:3] == [
        "pilot of the tokenizer of llamagen",
        "pilot of rar",
        "the tokenizer of llamagen",
    ]


@pytest.mark.parametrize("text", ["{", "[]", '{"asked": {"systems": {}, "configs": {}}}'])
def test_a_damaged_plan(text, tmp_path, capsys):
    (tmp_path / "plan.json").write_text(text)
    assert main.main(["compare", "var:digits", "--budget", "9s", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert (
        said
        == f"vargen compare: {tmp_path}/plan.json: expected a plan of `vargen compare`, found a damaged one\n"
    )


def test_all_columns(at_work, tmp_path, capsys):
    """What is measured, and the plan: on the page, in the table and in JSON, with mean and deviation over seeds."""
    run(capsys, tmp_path, "--budget", "640images", "--seeds", "2")
    rows = list(csv.DictReader((tmp_path / "compare.csv").open()))
    by_seed = {r["seed"]: r for r in rows if r["system"] == "randar"}
    assert list(by_seed) == ["0", "1", "mean", "deviation"]
    summary = json.loads((tmp_path / "compare.json").read_text())["summary"]["randar"]["640images"]
    for key in MEASURED:
        values = [float(by_seed[seed][key]) for seed in by_seed]
        assert values == pytest.approx([1.0, 2.0, 1.5, 0.5**0.5])
        assert summary[key] == dict(mean=1.5, deviation=pytest.approx(0.5**0.5), count=2)
    assert {(r["updates"], r["tokenizer_updates"]) for r in rows} == {("40", "40")}
    text = (tmp_path / "compare.html").read_text()
    heads = [
        comparison.SHORT.get(k) or comparison.METRICS[k].label
        for k in (*MEASURED, "updates", "tokenizer_updates")
    ]
    for head in (*heads, "bits per dimension", "Fréchet distance"):
        assert f'<th scope="col">{head}</th>' in text, head
    assert "0.500 ± 0.000 <small>bound</small>" in text and "0.500 ± 0.000 <small>exact</small>" in text


def test_large_pictures_are_ranked_by_a_reference(at_work, tmp_path, capsys, monkeypatch):
    """Without one it is said before anything else; with one it is the FID, and every run is measured by it."""
    from vargen.cli import evaluate
    from vargen.interop import inception

    monkeypatch.setattr(evaluate, "LARGEST", 8)  # the digits are large
    said, _ = run(capsys, tmp_path / "a", "--budget", "640images", "--seeds", "1")
    line = "the classifier that systems are ranked by takes at most 8x8, so that nothing is ranked; with --reference"
    assert said.index(line) < said.index("ahead: ") and line in (tmp_path / "a" / "compare.html").read_text()

    commands, numbers = [], 39
    monkeypatch.setattr(inception, "read", lambda _: SimpleNamespace(sizes=(numbers, 8)))
    for name, size in (("r", 16), ("small", 8)):
        np.savez(tmp_path / f"{name}.npz", arr_0=np.zeros((48, size, size, 3), np.uint8))
    np.savez(tmp_path / "features.npz", features=np.zeros((9, 4)))
    plain = at_work.measure
    at_work.measure = lambda job: (commands.append(job.commands[-1][0]), plain(job))
    file = str(tmp_path / "r.npz")
    reference = ("--reference", file, "--inception", "i.pth")
    said, _ = run(capsys, tmp_path / "b", "--budget", "640images", "--seeds", "1", *reference)
    assert line not in said
    assert [command[-4:] for command in commands] == [[*reference]] * 2
    found = json.loads((tmp_path / "b" / "compare.json").read_text())
    assert found["ranking"]["by"] == "fid" and found["ranking"]["ranks"] == dict(llamagen=1, randar=1)
    assert found["command"].endswith(
        f"--reference {file} --inception i.pth --out {tmp_path / 'b'} "
        + " ".join(f"--config.{field}" for field in TINY)
    )
    said, _ = run(capsys, tmp_path / "b", "--budget", "640images", "--seeds", "1", code=2)
    assert f"expected reference {file}, found none" in said
    numbers = 40
    for given, words in (
        (reference[:2], "--inception: expected a file beside --reference, found none"),
        (
            reference,
            "config field evaluation.samples: expected more than 40, which the statistics need, found 40",
        ),
        (
            ("--reference", str(tmp_path / "small.npz"), *reference[2:]),
            "expected images of 16x16 pixels as the samples are",
        ),
        (
            ("--reference", str(tmp_path / "features.npz"), *reference[2:]),
            "expected images or mu and sigma beside --inception, found",
        ),
    ):
        said, plan = run(capsys, tmp_path / "c", "--budget", "640images", *given, code=2)
        assert words in said and plan is None


def test_time_that_is_left():
    """By the budgets while nothing ended, then by what each kind took."""
    tally = compare_progress.Tally(10, 2, {"60s": parse("60s"), "tokenizer": parse("180s")})
    tally.expect({"60s": 4, "tokenizer": 1, "pilot": 2})
    assert tally.done == 3 and tally.left() is None  # what a pilot takes nobody knows
    assert tally.needed() == (
        "ahead: 4 runs of 60 s, 1 tokenizer of 180 s, 2 pilots, 2 at once: 3 min 30 s of training; pilots, sampling "
        "and measuring come on top"
    )
    with tally:
        tally.ended("pilot", 20.0, "one")
        assert tally.left() == (4 * 60 + 180 + 20) / 2
        tally.ended("pilot", None, "one that failed")
        tally.ended("60s", 90.0, "a run")
        assert tally.left() == (3 * 90 + 180) / 2 and tally.done == 6
        tally.expect({"60s": 1})
        assert tally.left() == 90 and tally.done == 9
    images = compare_progress.Tally(1, 1, {"64images": parse("64images")})
    images.expect({"64images": 1})
    assert images.left() is None and images.needed() == "ahead: 1 run of 64 images, 1 at once"
