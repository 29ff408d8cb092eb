"""`vargen compare` end to end, and each of its parts: budgets, names, shared tokenizers, jobs that fail."""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import ROOT
from PIL import Image
from systems import SYSTEMS

from vargen import config
from vargen.cli import budgets, children, compare_pilots, compared, main, preflight
from vargen.cli.budgets import Budget, Cost
from vargen.errors import UserError
from vargen.evaluation import classifier

TINY = """
model.layers=2 model.width=32 mixer.heads=2 tokenizer.encoder.width=16 tokenizer.encoder.blocks=1
evaluation.samples=40 evaluation.batch_size=40 tokenizer_training.batch_size=16
training.batch_size=16 training.augmented_copies=1
""".split()
FIELDS = [f"--config.{field}" for field in TINY]


def arguments(out, *more, systems=("llamagen", "randar"), budget="64images"):
    return [
        "compare",
        *(f"{s}:digits" for s in systems),
        "--budget",
        budget,
        "--out",
        str(out),
        *FIELDS,
        *more,
    ]


def start(*words):
    """The command in a session of its own, so that all of its processes can be killed."""
    return subprocess.Popen(
        [sys.executable, "-m", "vargen", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(condition, process, seconds=300):
    """Until it holds; the process may not end before."""
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.05)


def page(out):
    return (out / "compare.html").read_text()


def run(words, capsys, code=0):
    """The command in this process; what it said on both streams."""
    capsys.readouterr()
    assert main.main([str(w) for w in words]) == code
    found = capsys.readouterr()
    return found.out, found.err


def test_a_comparison_is_killed_goes_on_and_stands_a_failure(judged, tmp_path, capsys):
    out = tmp_path / "o"
    words = arguments(out, "--seeds", "1", "--share-tokenizer")
    process = start(*words)
    log = out / "tokenizers" / "llamagen.log"
    wait_for(lambda: log.is_file() and "tracing" in log.read_text(), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    plan = (out / "plan.json").read_bytes()
    assert "2 runs of 2 are still ahead" in (out / "compare.html").read_text()

    # A file stands where one run wants its folder.
    blocked = out / "runs" / "llamagen" / "64images" / "seed0"
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("")
    said, error = run(words, capsys, code=2)
    assert error.count("\n") == 1 and "1 of 2 runs failed; llamagen, 64images, seed 0: " in error
    assert "3 of 3: randar, 64images, seed 0: Label accuracy" in said and "are still ahead" not in page(out)
    assert said.splitlines()[-1] == f"see {out / 'compare.html'}"
    found = json.loads((out / "compare.json").read_text())
    assert list(found["ranking"]["ranks"]) == ["randar"]
    assert [bool(r["failed"]) for r in found["runs"]] == [True, False]
    for words_of_page in ("What failed", "One seed: no spread is known", "that of llamagen (equal settings)"):
        assert words_of_page in page(out)

    # Without it the one that is missing is done, and nothing else again.
    blocked.unlink()
    other = out / "runs" / "randar" / "64images" / "seed0.log"
    before = other.read_bytes()
    said, _ = run(words, capsys)
    assert "3 of 3: llamagen" in said and "tokenizer of" not in said
    assert other.read_bytes() == before and (out / "plan.json").read_bytes() == plan
    said, _ = run(words, capsys)
    assert "seed" not in said

    rows = list(csv.DictReader((out / "compare.csv").open()))
    assert [(r["system"], r["seed"], r["updates"], r["likelihood"], r["failed"]) for r in rows] == [
        (system, seed, "4", kind, "")
        for seeds in (["0"], ["mean", "deviation"])
        for system, kind in (("llamagen", "exact"), ("randar", "bound"))
        for seed in seeds
    ]
    assert {(r["tokenizer"], r["tokenizer_updates"]) for r in rows} == {("llamagen", "4")}
    rows = rows[:2]
    assert float(rows[0]["bits_per_dimension"]) > 0 and rows[0]["bits_per_dimension_bound"] == ""
    assert float(rows[1]["bits_per_dimension_bound"]) > 0 and rows[1]["bits_per_dimension"] == ""
    # FLOPs of training: four updates of 16 images, as the plan has it.
    flops = json.loads(plan)["systems"]["randar"]["flops"]["generator"]
    assert float(rows[1]["training_flops"]) == 64 * flops
    assert all(float(r["sampling_passes"]) == 16 for r in rows)
    found = json.loads((out / "compare.json").read_text())
    assert sorted(found["ranking"]["ranks"].values()) == [1, 2]
    assert (out / "ranking.png").is_file()
    # Learning rates rise for a tenth of the updates at most, and end where they should.
    done = config.load(out / "runs" / "randar" / "64images" / "seed0.json").training
    assert (done.steps, done.warmup_steps) == (4, 0)

    for more, said in (
        (("--budget", "128images"), "expected budget 64images, found 128images"),
        (("--jobs", "2"), "expected jobs 1, found 2"),
        (("--tokenizer-budget", "80images"), "expected tokenizer_budget 64images, found 80images"),
        (("--config.training.b1=0.5",), "expected config field training.b1 of llamagen 0.9, found 0.5"),
        (("--config.evaluation.samples=50",), "config field evaluation.samples of llamagen 40, found 50"),
    ):
        _, error = run([*words, *more], capsys, code=2)
        assert "holds another comparison" in error and said in error and error.count("\n") == 1
    assert (out / "plan.json").read_bytes() == plan


def idx_files(folder, size=16):
    """Pictures of two classes as IDX files: bright above or below the middle, 120 to learn and 40 held out."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for split, count in (("train", 120), ("t10k", 40)):
        labels = (np.arange(count) % 2).astype(np.uint8)
        images = rng.integers(0, 90, (count, size, size), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[label * size // 2 :][: size // 2] += 150
        for what, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            (folder / f"{split}-{what}-ubyte").write_bytes(head + array.tobytes())


def picture_files(folder):
    """The same as a folder of pictures, colour and of other sizes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 20)):
        for i in range(count):
            pixels = rng.integers(0, 90, (20, 24, 3), np.uint8)
            pixels[i % 2 * 10 :][:10] += 150
            (folder / split / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / split / "ab"[i % 2] / f"{i}.png")


@pytest.mark.slow
@pytest.mark.parametrize("source, make", [("idx", idx_files), ("folder", picture_files)])
def test_other_data(source, make, tmp_path, capsys):
    """A set of one's own, with its own classifier, from nothing to the page."""
    make(tmp_path / "data")
    out, path = tmp_path / "o", f"--config.data.path={tmp_path / 'data'}"
    run(arguments(out, "--data", source, path, "--seeds", "1", systems=("llamagen",)), capsys)
    found = json.loads((out / "compare.json").read_text())
    (own,) = found["runs"]
    assert not own["failed"] and own["metrics"]["real_label_accuracy"] > 0.9
    assert found["plan"]["asked"]["configs"]["llamagen"]["data"]["num_classes"] == 2
    assert found["ranking"]["ranks"] == dict(llamagen=1) and "data, 16x16, 2 classes" in page(out)


@pytest.mark.slow
def test_budgets_of_time_side_by_side(judged, tmp_path, capsys):
    """Pilots tell how many updates each budget is; SIGTERM stops the children, and the same command goes on."""
    out = tmp_path / "o"
    words = arguments(out, "--seeds", "1", "--jobs", "2", budget="20s,40s", systems=("var", "llamagen"))
    process = start(*words)
    wait_for(lambda: list(out.glob("runs/*/*/seed0/generator/metrics.jsonl")), process, 500)
    process.terminate()
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 128 + signal.SIGTERM, said
    assert not any(children.held(p.parent) for p in out.rglob(".lock"))  # none is at work any more
    plan = json.loads((out / "plan.json").read_text())
    for own in plan["systems"].values():
        timed = own["pilot"]["generator"]
        few, many = own["updates"].values()
        assert 1 <= few < many and timed["compiling"] > 0.5
        assert few == int((20 - timed["compiling"]) / timed["update"])
    assert not (out / "pilots").exists()
    run(words, capsys)
    found = json.loads((out / "compare.json").read_text())
    assert not any(r["failed"] for r in found["runs"]) and len(found["runs"]) == 4
    for system in ("var", "llamagen"):
        for budget in ("20s", "40s"):
            assert found["summary"][system][budget]["frechet_distance_classifier"]["count"] == 1
    assert "By training budget" in page(out) and "2 runs at once" in page(out)
    _, error = run(arguments(tmp_path / "p", budget="1s"), capsys, code=2)
    assert "--budget 1s: expected time for compiling llamagen, " in error and error.count("\n") == 1
    assert not (tmp_path / "p" / "runs").exists()


FOLDER = "--config.data.source=folder"
SLOW = pytest.mark.slow
WRONG = [
    (["var:digits", "var:digits"], "expected each config once, found var:digits and var:digits"),
    (["var:digits", str(ROOT / "configs" / "var.py")], "expected each config once"),
    (["var:digits", "var:pictures32"], "expected one data.source for all, found 'digits' in var:digits"),
    (["var:pictures32", "mar:pictures64", "--config.data.path=x"], "expected one data.image_size for all, found 32"),
    (["var:digits", "{tmp}/nine.py"], "expected one data.num_classes for all, found 10 in var:digits and 9"),
    (["var:digits", "{tmp}/many.py"], "expected one evaluation.samples for all, found"),
    (["var:digits", "orthus:shapes", "--data", "shapes", "--config.data.image_size=16",
      "--config.data.channels=1"], "expected systems conditioned by label, found text"),
    (["var:digits", "vra:digits"], "config vra"),
    (["var:digits", "llamagen:digits", "--config.model.width=30"], "width"),
    (["var:digits", "--config.training.batch=3"], "training.batch"),
    (["var:digits", "--data", "digit"], "--data"),
    (["var:digits", "--budget", "12parsecs"], "--budget: expected a number and s, m, h, images or flops"),
    (["var:digits", "--budget", "5"], "--budget: expected a number and s"),
    (["var:digits", "--budget", "10s,5images"], "--budget: expected budgets of one unit"),
    (["var:digits", "--budget", "10s,10s"], "--budget: expected different budgets"),
    (["var:digits", "--budget", "0s"], "--budget: expected more than nothing"),
    (["var:digits", "--budget", "10images"], "--budget 10images: expected at least an update of var, 64 images"),
    pytest.param(["var:digits", "--budget", "5flops"], "--budget 5flops: expected at least an update of", marks=SLOW),
    pytest.param(["var:digits", "--tokenizer-budget", "10images"], "--tokenizer-budget 10images: expected",
                 marks=SLOW),
    (["var:digits", "--seeds", "0"], "--seeds: expected a whole number from 1"),
    (["var:digits", "--jobs", "0"], "--jobs: expected a whole number from 1"),
    (["var:digits", "--jobs", "-1"], "--jobs"),
    (["var:digits", "--out", "{tmp}/nine.py"], "--out"),
    (["var:digits", "--out", "{tmp}"], "expected a new folder, or one of `vargen compare`, found many.py"),
    (["var:digits", "--out", "gs://bucket/x"], "--out"),
    ([], "CONFIG"),
]  # fmt: skip


@pytest.mark.parametrize("words, said", WRONG)
def test_mistakes(words, said, tmp_path, capsys, monkeypatch):
    """One line each, and nothing is begun."""
    monkeypatch.setattr(classifier, "fit", None)
    monkeypatch.setattr(children, "run", None)
    for name, change in (("nine", "c.data.num_classes = 9"), ("many", "c.evaluation.samples += 1")):
        (tmp_path / f"{name}.py").write_text(
            "from vargen import config\n"
            f"def get_config():\n    c = config.load('var:digits')\n    {change}\n    return c\n"
        )
    words = [w.format(tmp=tmp_path) for w in words]
    for flag, value in (("--budget", "640images"), ("--out", str(tmp_path / "o"))):
        words += [] if flag in words else [flag, value]
    _, error = run(["compare", *words], capsys, code=2)
    assert error.count("\n") == 1 and said in error, error
    assert not (tmp_path / "o").exists() or not list((tmp_path / "o").glob("[!.]*"))


def test_budgets():
    for text, amount, unit in (
        ("120s", 120, "s"),
        ("2m", 120, "s"),
        ("1.5h", 5400, "s"),
        ("3e14flops", 3e14, "flops"),
        ("2 Gflops", 2e9, "flops"),
        ("50k images", 50_000, "images"),
        ("50000images", 50_000, "images"),
    ):
        assert budgets.parse(text) == Budget(amount, unit)
    assert [str(b) for b in budgets.several("2m,30s")] == ["30s", "120s"]  # from the smallest
    assert str(budgets.parse("3e14flops")) == "3e14flops" and str(budgets.parse("0.5s")) == "0.5s"
    for text in ("", "s", "-3s", "3", "3 parsecs", "1e400s", "1ks", "nan images", "٣s", "3images0"):
        with pytest.raises(argparse.ArgumentTypeError):
            budgets.parse(text)


def test_updates_that_a_budget_pays_for():
    cost = Cost(images=64, flops=1e6, compiling=7.5, update=0.5)
    for text, steps in (
        ("10s", 5),
        ("9.9s", 4),
        ("8s", 1),
        ("1000images", 15),
        ("64images", 1),
        ("2e9flops", 31),
    ):
        assert budgets.steps(budgets.parse(text), cost, "var") == steps
    with pytest.raises(UserError, match="--budget 7s: expected time for compiling var, 7.5 s, and an update"):
        budgets.steps(budgets.parse("7s"), cost, "var")
    with pytest.raises(UserError, match="--budget 7.9s"):
        budgets.steps(budgets.parse("7.9s"), cost, "var")


def test_a_pilot_is_timed(tmp_path):
    """The first row has the compilation; then eight updates, five seconds of them, or so many as there are at most."""

    def timed(seconds):
        rows = [json.dumps(dict(step=i + 1, seconds=s)) for i, s in enumerate(seconds)]
        (tmp_path / "metrics.jsonl").write_text("\n".join(rows) + "\n")
        return compare_pilots.timed(tmp_path)

    assert timed([6.5, 9.0, 9.5, 10, 10.5, 13, 14, 15]) == dict(compiling=5.5, update=1.0)
    assert timed([6.5, 9.0, 9.5, 10, 10.5, 13, 15]) == {}
    assert timed([6.5, 6.6, 7, 8, 9, 10, 11, 11.5]) == {}
    many = [2.0 + 0.01 * i for i in range(400)]
    assert timed(many) == dict(compiling=1.99, update=0.01) and timed(many[:-1]) == {}
    assert compare_pilots.timed(tmp_path / "none") == {}


def test_names():
    found = compared.names(
        ["var:digits", "configs/mar.py", "configs/var.py:d16", "x/rar.json", "runs/a/config.json"]
    )
    assert found == ["var-digits", "mar", "var-d16", "rar", "a"]
    assert compared.names(["a/var.py", "b/var.py", "c/var.py"]) == ["var", "var-2", "var-3"]
    # Those that a plan has keep theirs.
    assert compared.names(["b/var.py", "a/var.py", "mar:b"], {"var": "a/var.py"}) == ["var-2", "var", "mar"]


def shared(systems, asked):
    compared.share(systems, asked, lambda c: preflight.check(c, 1))
    return systems


def test_shared_tokenizers():
    """Equal ones are shared in any case, others where asked and where a generator can be built over them."""

    def systems(*names):
        return [compared.System(name, name, SYSTEMS[name]()) for name in names]

    found = shared(systems("llamagen", "rar", "var", "mar", "hmar", "rqtransformer"), False)
    assert [s.tokenizer for s in found] == ["llamagen", "llamagen", "var", "mar", "var", "rqtransformer"]
    assert [s.shared for s in found][:2] == ["", "equal settings"]
    # One of patches is none for a system of tokens that lie nowhere.
    found = systems("llamagen", "maskgit")
    found[1].config.tokenizer.encoder = config.part(
        "registers", tokens=4, patch=4, decoder=config.part("direct")
    )
    assert [s.tokenizer for s in shared(found, True)] == ["llamagen", "maskgit"]
    found = systems("llamagen", "maskgit", "var", "mar")
    found[1].config.tokenizer.vocab, found[1].config.tokenizer_training.steps = 8, 77
    shared(found, True)
    assert [s.tokenizer for s in found] == ["llamagen", "llamagen", "var", "mar"]
    assert found[1].shared == "--share-tokenizer" and found[1].config.tokenizer.vocab == 16
    assert found[2].apart == found[3].apart == "no other has contents of its kind"


def test_jobs_that_fail_leave_the_others_alone(tmp_path):
    def job(name, *words, needs=(), says="vargen 0"):
        log = tmp_path / f"{name}.log"
        done = lambda: log.is_file() and says in log.read_text()  # noqa: E731
        return children.Job(name, [(words, done)], tmp_path / name, log, needs)

    bad = job("bad", "smaple")
    jobs = [
        bad,
        job("needs", "--version", needs=[bad]),
        job("good", "--version"),
        job("odd", "--version", says="x"),
    ]
    jobs += [job("after", "--version", needs=[jobs[2]])]
    ended = []
    children.run(jobs, 2, os.environ, ended.append)
    assert {j.name for j in ended} == {j.name for j in jobs}
    assert [j.done for j in jobs] == [False, False, True, False, True]
    assert bad.failed.startswith("vargen: unknown command 'smaple'")
    assert jobs[1].failed == f"bad: {bad.failed}" and not jobs[1].log.exists()
    log = tmp_path / "log"
    log.write_text("$ vargen train\none\n\ntwo\n")
    assert children.ending(2, log) == "two"
    assert children.ending(-9, log) == "killed by SIGKILL, as where memory runs out; last: two"


def test_shares_of_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5})
    assert children.shares(2) == [[2, 5], [3]]
    assert children.shares(4) == [[2], [3], [5], [2]]


def test_a_job_stops_when_there_is_enough(tmp_path):
    """It is told to stop once it said something, and has ended well by that."""
    log = tmp_path / "log"
    said = lambda: log.is_file() and "training" in log.read_text()  # noqa: E731
    train = ["train", "--config", "var:digits", "--workdir", str(tmp_path / "w")]
    job = children.Job("j", [(train, said)], tmp_path / "w", log, enough=said)
    children.run([job], 1, os.environ, lambda job: None)
    assert job.done and not job.failed and "stopped by SIGTERM" in log.read_text()
