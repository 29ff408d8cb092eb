"""The commands on hf://: import, sample, reconstruct, export, evaluate, train --from; and `vargen push`."""

import hashlib
import json

import hub_server
import jax
import numpy as np
import published_files
import pytest
from huggingface_hub import constants
from PIL import Image

import vargen
from vargen import config, hub, weights_file
from vargen.cli import evaluate, main
from vargen.interop import files
from vargen.training import checkpoints
from vargen.training.state import TrainState

FLAGS = ["--image-size", published_files.IMAGE]
SOURCES = ["--generator", "hf://authors/rar/generator.npz", "--tokenizer", "hf://authors/rar/tokenizer.npz"]


def run(*arguments):
    assert main.main([str(a) for a in arguments]) == 0


def said(capsys, *arguments):
    """The line with which a command refuses."""
    capsys.readouterr()
    assert main.main([str(a) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def pixels(folder):
    """Of every picture; what its settings say of where the model lies differs."""
    return {file.name: np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))}


@pytest.fixture
def token(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", server.token)


@pytest.fixture
def mine(server, published):
    """hf://me/rar, as `vargen push` would write it."""
    repo = server.repos["me/rar"] = hub_server.Repo()
    repo.commit(contents(published / "model"))
    return repo


@pytest.mark.parametrize(
    "system", [*(pytest.param(s, marks=pytest.mark.slow) for s in ("var", "mar")), "llamagen", "rar"]
)
def test_import_of_every_system(system, server, published, tmp_path):
    folder = published
    if system != "rar":
        folder = tmp_path / "files"
        published_files.publish(system, folder)
        published_files.imported(system, folder)
    repo = server.repos["authors/files"] = hub_server.Repo()
    names = [f"{name}.npz" for name in ("generator", "tokenizer")]
    commit = repo.commit({f"a/{name}": (folder / name).read_bytes() for name in names})
    sources = [x for n in ("generator", "tokenizer") for x in (f"--{n}", f"hf://authors/files/a/{n}.npz")]
    run("import", system, *sources, *FLAGS, "--out", tmp_path / "out")
    origin = json.loads((tmp_path / "out" / "origin.json").read_text())
    (tmp_path / "out" / "origin.json").unlink()
    found, expected = contents(tmp_path / "out"), contents(folder / "model")
    assert set(found) == set(expected)
    for name in expected:
        if name.endswith(".safetensors"):  # the order of whose metadata is free
            same(*(weights_file.read(where / name) for where in (tmp_path / "out", folder / "model")))
        else:
            assert found[name] == expected[name]
    for name in ("generator", "tokenizer"):
        data = (folder / f"{name}.npz").read_bytes()
        assert origin[name] == dict(
            source=f"hf://authors/files@{commit}/a/{name}.npz",
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )


def test_both_files_are_of_one_commit(server, authors, tmp_path, monkeypatch):
    """The branch moves while the first is downloaded."""
    first = authors.branches["main"]
    fetched = hub.fetch._fetched

    def moving(where):
        authors.commit(dict(authors.commits[first], **{"generator.npz": b"another"}))
        return fetched(where)

    monkeypatch.setattr(hub.fetch, "_fetched", moving)
    run("import", "rar", *SOURCES, *FLAGS, "--out", tmp_path / "out")
    assert (tmp_path / "out" / "origin.json").read_text().count(first) == 2


def test_imports_that_fail_leave_nothing(server, authors, tmp_path, capsys):
    out = tmp_path / "models" / "out"
    command = ["import", "rar", *FLAGS, "--out", out]
    whole = (authors.commits[authors.branches["main"]])["generator.npz"]
    server.wrong["generator.npz"] = whole[:-1] + b"x"
    assert "expected sha256" in said(capsys, *command, *SOURCES)
    server.wrong.clear()
    server.failing["/authors/rar/resolve"] = (500, "")
    assert "answered 500" in said(capsys, *command, *SOURCES)
    server.failing.clear()
    assert "found none; did you mean tokenizer.npz?" in said(
        capsys, *command, "--tokenizer", "hf://authors/rar/tokeniser.npz"
    )
    # Arrays of another model are called by the hub's name.
    wrong = said(capsys, *command, *SOURCES[:2], "--tokenizer", "hf://authors/rar/generator.npz")
    assert f"hf://authors/rar@{authors.branches['main']}/generator.npz" in wrong
    assert constants.HF_HUB_CACHE not in wrong
    assert not out.parent.exists()


def test_load(server, mine, published):
    first, expected = mine.branches["main"], vargen.load(published / "model")
    for text in ("hf://me/rar", "hf://me/rar@main", f"hf://me/rar@{first}"):
        model = vargen.load(text)
        same(model.generator_params, expected.generator_params)
        same(model.tokenizer_params, expected.tokenizer_params)
    # In a folder, on a branch, without the generator.
    parts = {k: v for k, v in mine.commits[first].items() if not k.startswith("generator")}
    mine.commit({f"a/b/{k}": v for k, v in parts.items()}, branch="next")
    model = vargen.load("hf://me/rar@next/a/b")
    assert model.generator is None
    same(model.tokenizer_params, expected.tokenizer_params)
    # A cached model needs no more than its branch's commit, and offline nothing.
    server.asked.clear()
    vargen.load("hf://me/rar@next/a/b")
    assert [path for _, path, _ in server.asked] == ["/api/models/me/rar/revision/next"]


def test_models_that_are_none(server, mine, authors, capsys, tmp_path):
    assert "expected a model of `vargen push`, found no config.json" in said(
        capsys, "sample", "--workdir", "hf://authors/rar", "--out", tmp_path / "out"
    )
    files_there = mine.commits[mine.branches["main"]]
    mine.commit(dict(files_there, **{"tokenizer/config.json": b"{"}))
    line = said(capsys, "sample", "--workdir", "hf://me/rar", "--out", tmp_path / "out")
    assert "hf://me/rar@" in line and constants.HF_HUB_CACHE not in line and "expected JSON" in line
    with pytest.raises(ValueError, match=f"model hf://me/rar@{mine.branches['main']}/tokenizer: config"):
        vargen.load("hf://me/rar")
    names = json.dumps(["a", "b"]).encode()
    mine.commit(dict(files_there, **{"classes.json": names}))
    line = said(capsys, "sample", "--workdir", "hf://me/rar", "--out", tmp_path / "out")
    assert f"hf://me/rar@{mine.branches['main']}/classes.json: expected names of" in line
    assert not (tmp_path / "out").exists()


def test_commands_that_read(server, mine, published, tmp_path, capsys):
    local = published / "model"
    Image.new("RGB", (8, 8), (30, 100, 7)).save(tmp_path / "one.png")
    for name, *flags in (
        ("sample", "--classes", "1,4", "--count", 2),
        ("reconstruct", "--input", tmp_path / "one.png"),
    ):
        for where, out in ((local, "local"), ("hf://me/rar", "hub")):
            run(name, "--workdir", where, *flags, "--out", tmp_path / name / out)
        drawn = [pixels(tmp_path / name / out) for out in ("hub", "local")]
        assert drawn[0].keys() == drawn[1].keys() and drawn[0]
        for file, found in drawn[0].items():
            np.testing.assert_array_equal(found, drawn[1][file])
        assert "--out: expected a directory, since nothing is written to hf://me/rar" in said(
            capsys, name, "--workdir", "hf://me/rar", *flags
        )
    run("export", "rar", "--workdir", "hf://me/rar", "--generator", tmp_path / "g.npz")
    found, expected = files.read(tmp_path / "g.npz"), files.read(published / "generator.npz")
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    capsys.readouterr()
    run("env", "--json", "--workdir", "hf://me/rar")
    assert json.loads(capsys.readouterr().out)["config"]["name"] == "RAR-128"


@pytest.mark.slow
def test_fine_tuning_and_back(server, mine, token, tmp_path, capsys, monkeypatch):
    for name in ("cats", "dogs"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (8, 8), (30 * i, 100, 7)).save(tmp_path / "images" / name / f"{i}.png")
    fields = dict(
        steps=2, batch_size=8, learning_rate=1e-3, warmup_steps=0, save_every=2, log_every=1, ema_decay=0.9
    )
    data = [
        "--config.data.source=folder",
        f"--config.data.path={tmp_path / 'images'}",
        "--config.data.num_classes=0",
    ]
    data += ["--config.evaluation.batch_size=2"]
    first, work = mine.branches["main"], tmp_path / "fine"
    train = ["train", "--from", "hf://me/rar", "--workdir", work, *data]
    train += [f"--config.training.{k}={v}" for k, v in fields.items()]
    run(*train)
    assert (work / "generator" / "origin.txt").read_text() == f"hf://me/rar@{first}\n"
    # The branch moves; the run goes on with what it began with.
    mine.commit({"README.md": b"gone"})
    capsys.readouterr()
    run(*train)
    assert f"{work} has a copy of hf://me/rar@{first}, and goes on with it" in capsys.readouterr().out

    # What is pushed is the run's averaged model, and no more.
    (work / "notes.txt").write_text("mine alone")
    run("push", work, "hf://me/fine", "--message", "two classes")
    repo = server.repos["me/fine"]
    files_there = repo.commits[repo.branches["main"]]
    assert sorted(files_there) == sorted({".gitattributes", "README.md", *hub.FILES} - {"origin.json"}), (
        sorted(files_there)
    )
    assert repo.messages[-1] == "two classes" and not repo.private
    assert str(tmp_path).encode() not in b"".join(files_there.values())  # paths of this machine
    expected, found = vargen.load(work), vargen.load("hf://me/fine")
    same(found.generator_params, expected.generator_params)
    same(found.tokenizer_params, expected.tokenizer_params)
    assert found.config.data.num_classes == 2 and found.config.data.path == ""
    last = vargen.load(work, "params").generator_params
    assert not np.array_equal(jax.tree.leaves(last)[0], jax.tree.leaves(found.generator_params)[0])

    monkeypatch.setattr(evaluate, "LARGEST", 4)
    run("evaluate", "--workdir", "hf://me/fine", "--samples", 4, "--out", tmp_path / "report", data[1])
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["psnr_db"] > 0 and "hf://me/fine@" in (tmp_path / "report" / "report.html").read_text()


def test_push(server, published, token, tmp_path, capsys):
    model = tmp_path / "model"
    for name, data in contents(published / "model").items():
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(data)
    (model / "classes.json").write_text(json.dumps([f"class {i}" for i in range(5)]))
    (model / "origin.json").write_text("{}")
    (model / "secret.txt").write_text("none of yours")
    run("push", model, "hf://me/new")
    repo = server.repos["me/new"]
    head = repo.branches["main"]
    assert f'pushed hf://me/new@{head}; vargen.load("hf://me/new") reads it' in capsys.readouterr().out
    assert sorted(repo.commits[head]) == sorted([".gitattributes", "README.md", *hub.FILES])
    assert (
        repo.commits[head]["tokenizer/params.safetensors"]
        == (model / "tokenizer" / "params.safetensors").read_bytes()
    )
    card = repo.commits[head]["README.md"].decode()
    assert card.startswith("---\nlibrary_name: vargen\n---\n\n# RAR-128\n") and "license" not in card
    for words in ('vargen.load("hf://me/new")', "| classes | 5 |", "| order | "):
        assert words in card
    # Again, the tokenizer alone, where people have written into the card: theirs stays, the generator goes.
    repo.commit(dict(repo.commits[head], **{"README.md": b"my words", "figure.png": b"x"}))
    for name in ("generator/params.safetensors", "generator/config.json", "classes.json"):
        (model / name).unlink()
    run("push", model, "hf://me/new")
    assert "its README.md is left as it was" in capsys.readouterr().out
    kept = repo.commits[repo.branches["main"]]
    assert kept["README.md"] == b"my words" and kept["figure.png"] == b"x"
    assert sorted(set(repo.commits[head]) - set(kept)) == [
        "classes.json",
        "generator/config.json",
        "generator/params.safetensors",
    ]
    assert vargen.load("hf://me/new").generator is None
    # A branch and a folder; a private repository.
    run("push", model, "hf://me/new/small", "--branch", "a/b")
    made = repo.commits[repo.branches["a/b"]]
    assert (
        "small/README.md" in made
        and 'vargen.load("hf://me/new@a%2Fb/small")' in made["small/README.md"].decode()
    )
    same(vargen.load("hf://me/new@a%2Fb/small").tokenizer_params, vargen.load(model).tokenizer_params)
    run("push", model, "hf://me/hidden", "--private")
    assert server.repos["me/hidden"].private
    assert "expected a private repository (--private), found a public one" in said(
        capsys, "push", model, "hf://me/new", "--private"
    )


def test_pushing_what_was_trained(server, published, token, tmp_path):
    """Averaged parameters of the last checkpoint, where there are older parameters in one file too."""
    c = config.load(published / "model" / "config.json")
    work = tmp_path / "run"
    for name, data in contents(published / "model").items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(data)
    start = weights_file.read(work / "generator" / "params.safetensors")
    ema = jax.tree.map(lambda x: x + 1, start)
    params = dict(model=jax.tree.map(lambda x: x + 2, start))
    state = TrainState(np.int32(7), params, dict(model=dict(a=np.zeros(1))), ema, {})
    saving = checkpoints.Checkpoints(work / "generator", c)
    saving.save(jax.tree.map(jax.numpy.asarray, state), dict(loss=1.0))
    saving.wait()
    run("push", work, "hf://me/run")
    same(vargen.load("hf://me/run").generator_params, ema)


@pytest.mark.slow
def test_pushes_that_fail(server, published, tmp_path, capsys, monkeypatch):
    model = published / "model"
    push = ["push", model, "hf://me/new"]
    (tmp_path / "empty").mkdir()
    wanted = dict(
        none="a directory of `vargen train` or `import`", empty="a checkpoint or imported weights in it"
    )
    for name, words in wanted.items():  # before a token is asked for
        assert f"expected {words}, found none" in said(capsys, "push", tmp_path / name, "hf://me/new")
    assert "hf://me/new: expected a token (HF_TOKEN or `hf auth login`), found none" in said(capsys, *push)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    line = said(capsys, *push)
    assert "hf://me/new: expected a token with which it can be written, found another (401)" in line
    monkeypatch.setenv("HF_TOKEN", server.token)
    assert not server.repos
    for start, status in (
        ("/api/repos", 403),
        ("/me/new.git", 403),
        ("/lfs", 500),
        ("/api/models/me/new/commit", 500),
    ):
        server.failing = {start: (status, "")}
        line = said(capsys, *push)
        assert "hf://me/new" in line and str(status) in line, line
    server.failing.clear()
    assert [len(repo.commits) for repo in server.repos.values()] == [1]  # nothing but its first
    assert "expected a branch to write to, found a commit" in said(
        capsys, "push", model, f"hf://me/new@{'0' * 40}"
    )
    assert "expected one branch, found 'a' and --branch 'b'" in said(
        capsys, "push", model, "hf://me/new@a", "--branch", "b"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "expected a connection, found none, and HF_HUB_OFFLINE is set" in said(capsys, *push)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert "the connection to http://127.0.0.1:1 failed" in said(capsys, *push)
