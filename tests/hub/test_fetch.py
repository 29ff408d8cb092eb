"""Files from the hub: whole, of one commit, as it states them; what goes wrong on the way is one line."""

import errno
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import hub_server
import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save

from vargen import hub
from vargen.errors import UserError
from vargen.hub import fetch
from vargen.interop import files

FILE = "hf://me/weights/w.safetensors"
SIZE = 40_000  # bytes of a file, about


def arrays(seed=0):
    return {"a": np.random.default_rng(seed).normal(size=SIZE // 4).astype(np.float32)}


@pytest.fixture
def repo(server):
    made = server.repos["me/weights"] = hub_server.Repo()
    made.commit({"w.safetensors": save(arrays()), "notes.txt": b"hello"})
    return made


def refused(text=FILE):
    with pytest.raises(UserError) as caught:
        files.read(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def cached():
    """The files of the cache that hold content, whole or not."""
    return list(pathlib.Path(constants.HF_HUB_CACHE).rglob("blobs/*"))


def test_a_file_is_downloaded_once(server, repo):
    for _ in range(2):
        np.testing.assert_array_equal(files.read(FILE)["a"], arrays()["a"])
    assert len(server.requests("GET", "/resolve/")) == 1
    assert not any("authorization" in headers for _, _, headers in server.asked)


@pytest.mark.parametrize("place", ["variable", "file"])
def test_the_token_is_sent(place, server, repo, monkeypatch):
    repo.private = True
    assert "expected a model repository, found none that can be seen without a token" in refused()
    if place == "variable":
        monkeypatch.setenv("HF_TOKEN", server.token)
    else:
        pathlib.Path(constants.HF_TOKEN_PATH).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(constants.HF_TOKEN_PATH).write_text(server.token)
    files.read(FILE)
    for method in ("HEAD", "GET"):
        headers = server.requests(method, "/resolve/")
        assert headers and all(h["authorization"] == f"Bearer {server.token}" for h in headers)


def test_a_download_goes_on_where_it_was_cut(server, repo, monkeypatch):
    monkeypatch.setattr(
        constants, "DOWNLOAD_CHUNK_SIZE", 1000
    )  # of 10 MB otherwise, which are kept when whole
    server.cut["w.safetensors"] = [10_000, 5_000]
    np.testing.assert_array_equal(files.read(FILE)["a"], arrays()["a"])
    ranges = [headers.get("range") for headers in server.requests("GET", "/resolve/")]
    assert ranges == [None, "bytes=10000-", "bytes=15000-"]


def test_a_download_that_never_ends(server, repo):
    server.cut["w.safetensors"] = [10_000] + 50 * [0]
    line = refused()
    assert "w.safetensors: cannot be read: the connection to http://127.0.0.1" in line and "expected" in line
    server.cut.clear()
    server.wrong["w.safetensors"] = save(arrays())[:-9]
    size = len(save(arrays()))
    assert f"w.safetensors: expected {size} bytes, found {size - 9}" in refused()
    assert not cached()


def test_a_file_that_is_not_as_stated(server, repo):
    server.wrong["w.safetensors"] = save(arrays(1))
    stated, found = (hashlib.sha256(save(arrays(seed))).hexdigest() for seed in (0, 1))
    line = refused()
    assert f"expected sha256 {stated}, as the hub states, found {found}" in line
    assert not cached()
    server.wrong.clear()
    np.testing.assert_array_equal(files.read(FILE)["a"], arrays()["a"])


def test_small_files_have_gits_hash(server, repo):
    (text,) = hub.pin({"x": "hf://me/weights/notes.txt"}).values()
    assert hub.weights(text).read_text() == "hello"
    repo.commit({"notes.txt": b"hullo"})
    server.wrong["notes.txt"] = b"hallo"
    (text,) = hub.pin({"x": "hf://me/weights/notes.txt"}).values()
    with pytest.raises(UserError, match="expected sha1 [0-9a-f]{40}, as the hub states, found"):
        hub.weights(text)


def test_cached_files_are_hashed_again_when_they_change(server, repo, monkeypatch):
    hashed = []
    sha256 = fetch._sha256
    monkeypatch.setattr(fetch, "_sha256", lambda file: hashed.append(file) or sha256(file))
    for _ in range(3):
        files.read(FILE)
    assert len(hashed) == 1
    (blob,) = cached()
    damaged = bytearray(blob.read_bytes())
    damaged[-1] ^= 1
    blob.write_bytes(damaged)
    assert "expected sha256" in refused() and not cached()
    np.testing.assert_array_equal(files.read(FILE)["a"], arrays()["a"])


def test_a_cache_without_links(server, repo, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    server.wrong["w.safetensors"] = save(arrays(1))
    assert "expected sha256" in refused()
    server.wrong.clear()
    for _ in range(2):
        np.testing.assert_array_equal(files.read(FILE)["a"], arrays()["a"])


def test_revisions(server, repo):
    first = repo.branches["main"]
    pinned = hub.pin({"x": FILE})["x"]
    assert pinned == f"hf://me/weights@{first}/w.safetensors"
    repo.commit({"w.safetensors": save(arrays(1))})
    repo.commit({"w.safetensors": save(arrays(2))}, branch="a/b")
    for text, seed in (
        (pinned, 0),
        (f"hf://me/weights@{first}/w.safetensors", 0),
        (FILE, 1),
        ("hf://me/weights@main/w.safetensors", 1),
        ("hf://me/weights@a%2Fb/w.safetensors", 2),
    ):
        np.testing.assert_array_equal(files.read(text)["a"], arrays(seed)["a"])
    # A branch is looked up once for all that is read together.
    server.asked.clear()
    both = hub.pin(
        {"a": FILE, "b": "hf://me/weights/notes.txt", "c": "hf://me/weights@a%2Fb/w.safetensors", "d": "x"}
    )
    assert len(server.asked) == 2 and both["d"] == "x"


def test_weights_in_several_files(server):
    names = ["model-1.safetensors", "model-2.safetensors"]
    parts = {name: {str(i): np.full(3, i, np.float32)} for i, name in enumerate(names)}
    table = {array: name for name, part in parts.items() for array in part}
    contents = {f"sub/{name}": save(part) for name, part in parts.items()}
    contents["sub/model.safetensors.index.json"] = json.dumps(dict(weight_map=table)).encode()
    repo = server.repos["me/shards"] = hub_server.Repo()
    first = repo.commit(contents)
    for text in ("hf://me/shards/sub/model.safetensors.index.json", "hf://me/shards/sub"):
        text = hub.pin({"x": text})["x"]
        repo.commit(dict(contents, **{f"sub/{names[1]}": save(parts[names[0]])}))
        found = files.read(text)
        assert {name: float(found[name][0]) for name in found} == {"0": 0.0, "1": 1.0}
        assert first in text
        repo.branches["main"] = first
    # The same offline, from the cache.
    before = len(server.asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert set(files.read("hf://me/shards/sub")) == {"0", "1"}
    assert len(server.asked) == before
    del contents[f"sub/{names[1]}"]
    repo.commit(contents)
    assert "sub/model-2.safetensors: expected a file, as hf://me/shards" in refused("hf://me/shards/sub")
    repo.commit(dict(contents, **{"sub/model.safetensors.index.json": b"[]"}))
    assert "expected an index with a weight_map" in refused("hf://me/shards/sub")
    line = refused("hf://me/shards")
    assert "a folder with one *.index.json of shards, found 0 of them among sub" in line


def test_files_that_are_not_there(repo):
    assert "/w.safetensor: expected a file, found none; did you mean w.safetensors?" in refused(FILE[:-1])
    assert "/none: expected a file, found none among notes.txt, w.safetensors" in refused(
        "hf://me/weights/none"
    )
    assert "hf://me/weights: expected a branch, tag or commit, found no 'v2'" in refused(
        "hf://me/weights@v2/w.safetensors"
    )
    commit = "0" * 40
    assert f"expected a branch, tag or commit, found no '{commit}'" in refused(
        f"hf://me/weights@{commit}/w.safetensors"
    )
    # What is no weights is said of the file on the hub, not of that in the cache.
    head = repo.branches["main"]
    assert refused("hf://me/weights/notes.txt").startswith(f"hf://me/weights@{head}/notes.txt: expected a")


ANSWERS = {
    "no repository": ("/api/models", 404, "RepoNotFound", "hf://me/weights: expected a model repository, found none"),
    "gated": ("/api/models", 403, "GatedRepo", "found a gated one (403): ask for it at http://127.0.0.1"),
    "gated files": ("/me/weights/resolve", 403, "GatedRepo", "found a gated one (403): ask for it at http://127"),
    "no token": ("/api/models", 401, "", "expected a token with which it can be read, found none (HF_TOKEN or"),
    "forbidden": ("/api/models", 403, "Other", "found none (HF_TOKEN or `hf auth login`) (403); the hub says: the"),
    "refused": ("/api/models", 400, "", "hf://me/weights: cannot be read: http://127.0.0.1"),
    "broken": ("/api/models", 500, "", "hf://me/weights: cannot be read: http://127.0.0.1"),
    "files broken": ("/me/weights/resolve", 500, "", "w.safetensors: cannot be read: http://127.0.0.1"),
    "too often": ("/me/weights/resolve", 429, "", "answered 429"),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_that_are_errors(name, server, repo, capfd):
    start, status, code, words = ANSWERS[name]
    server.failing[start] = (status, code)
    line = refused()
    assert words in line and str(status) in line
    assert capfd.readouterr() == ("", "")  # nothing beside the line
    assert not cached()


def test_a_hub_that_cannot_be_reached(server, repo, monkeypatch, capsys):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    line = refused()
    assert "hf://me/weights" in line and "http://127.0.0.1:1" in line and "refused" in line
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    files.read(FILE)
    capsys.readouterr()
    # What it was last is read, and said.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    np.testing.assert_array_equal(files.read(FILE)["a"], arrays()["a"])
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "the hub cannot be reached" in said and repo.branches["main"] in said


def test_offline(server, repo, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert (
        f"expected it in the cache {constants.HF_HUB_CACHE}, found none, and HF_HUB_OFFLINE is set"
        in refused()
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    files.read(FILE)
    server.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    np.testing.assert_array_equal(files.read(FILE)["a"], arrays()["a"])
    assert "none, and HF_HUB_OFFLINE is set" in refused("hf://me/weights/notes.txt")
    assert not server.asked and capsys.readouterr() == ("", "")


def test_a_full_disk(server, repo, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
    assert f"bytes free in {constants.HF_HUB_CACHE}, found 1000" in refused()
    assert not server.requests("GET", "/resolve/") and not cached()


def test_a_disk_that_is_full_before_the_end(server, repo, monkeypatch):
    from huggingface_hub import file_download

    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(file_download, "http_get", full)
    line = refused()
    assert "w.safetensors: expected space in" in line and "No space left" in line
    assert not cached()


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert refused() == (
        "path: 'hf://me/weights/w.safetensors' needs the package huggingface_hub, found none: pip install 'vargen[hub]'"
    )


def test_with_an_older_package(monkeypatch):
    import huggingface_hub

    monkeypatch.delattr(huggingface_hub.HfApi, "resolve_revision")
    assert "needs huggingface_hub 1.27 or later, found" in refused()


def test_variables_of_the_hub(server, repo, tmp_path):
    """HF_ENDPOINT and HF_HOME, as a user sets them, in a process of its own."""
    code = (
        "import sys\n"
        "from vargen.cli import main\n"
        "from vargen.interop import files\n"
        f"print(sum(files.read({FILE!r})['a']))\n"
        "sys.exit(main.main(['import', 'var', '--tokenizer', 'hf://me/weights/notes.txt', '--out', 'out']))\n"
    )
    variables = dict(HF_ENDPOINT=server.url, HF_HOME=str(tmp_path / "home"), HF_HUB_DISABLE_XET="1")
    variables["PYTHONPATH"] = str(pathlib.Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and abs(float(done.stdout) - float(sum(arrays()["a"]))) < 1e-3
    assert done.stderr.startswith("vargen import: hf://me/weights@") and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists() and (tmp_path / "home" / "hub").is_dir()
