"""Workdirs, pictures and codes in a bucket, of an emulator on this machine."""

import os
import signal
import subprocess
import sys
import time
import urllib.request

import commands
import numpy as np
import pytest
from PIL import Image

from vargen import paths
from vargen.cli import lock
from vargen.errors import UserError


@pytest.fixture(scope="module")
def bucket():
    """gs://bucket, in memory; the variables that lead gcsfs and tensorstore there."""
    port = commands.free_port()
    code = f"from gcp_storage_emulator.server import create_server; create_server('localhost', {port}, in_memory=True, default_bucket='bucket').run()"  # noqa: E501
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://localhost:{port}"
    for _ in range(100):
        try:
            urllib.request.urlopen(f"{address}/storage/v1/b/bucket", timeout=1).read()
            break
        except OSError:
            time.sleep(0.1)
    variables = dict(STORAGE_EMULATOR_HOST=address, TENSORSTORE_GCS_HTTP_URL=address)
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    yield "gs://bucket"
    process.kill()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def test_files(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    where = paths.path(f"{bucket}/folder/a.txt")
    paths.write_text(where, "one")
    assert where.read_text() == "one" and paths.is_file(where) and not paths.is_file(where.parent)
    assert paths.local(where).read_text() == "one"
    paths.write_text(where, "three")
    assert paths.local(where).read_text() == "three"
    with pytest.raises(RuntimeError), paths.replacing(where) as file:
        file.write_text("half")
        raise RuntimeError
    assert where.read_text() == "three"
    for content in ("x", "y"):
        with paths.new_directory(f"{bucket}/set", last="index") as folder:
            (folder / "index").write_text(content)
            (folder / content).mkdir()
            (folder / content / "part").write_text(content)
    names = sorted(p.name for p in paths.path(f"{bucket}/set").iterdir())
    assert names == ["index", "y"]
    with pytest.raises(UserError, match="expected gs://BUCKET"):
        paths.path("gs://")


def test_lock(bucket, monkeypatch):
    with lock.hold(f"{bucket}/locked", "vargen train"):
        with pytest.raises(
            UserError, match=f"expected one run at a time, found vargen train on .*process {os.getpid()}"
        ):
            with lock.hold(f"{bucket}/locked", "vargen train"):
                pass
        monkeypatch.setattr(lock, "DEAD", 0.0)  # the holder is long gone
        with lock.hold(f"{bucket}/locked", "vargen train"):
            pass


@pytest.mark.slow
def test_all_commands(bucket, tmp_path):
    """Pictures and workdir in the bucket: train, killed, resumed, sampled, measured; losses as on a disk."""
    rng = np.random.default_rng(0)
    for root in (tmp_path / "pictures", paths.path(f"{bucket}/pictures")):
        for name in ("a", "b"):
            for i in range(12):
                (tmp_path / "one.png").unlink(missing_ok=True)
                pixels = np.random.default_rng(100 * (name == "b") + i).integers(0, 256, (16, 16, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "one.png")
                paths.write_bytes(root / name / f"{i}.png", (tmp_path / "one.png").read_bytes())

    def train(where, data, steps=6):
        config = commands.ROOT / "configs" / "var.py"
        fields = dict(source="folder", path=data, channels=3, num_classes=0, test_fraction=0.4)
        more = [f"--config.data.{k}={v}" for k, v in fields.items()]
        more += [
            f"--config.training.{k}"
            for k in (f"steps={steps}", "save_every=2", "log_every=1", "schedule=constant")
        ]
        return ["train", "--config", config, "--workdir", where, *commands.tiny("var"), *more]

    remote, data = f"{bucket}/w", f"{bucket}/pictures"
    for wait in rng.uniform(8, 25, 2):
        process = commands.start(*train(remote, data, steps=400))
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        time.sleep(1)
        lease = paths.path(remote) / lock.NAME
        lease.unlink(missing_ok=True)  # nobody waits two minutes here for it to lapse
    done = {row["step"] for row in commands_rows(remote)}
    commands.run(*train(remote, data, steps=max([6, *done])))
    commands.run("tokenize", "--workdir", remote)
    commands.run("sample", "--workdir", remote, "--classes", "a", "--count", 2)
    commands.run("evaluate", "--workdir", remote, "--samples", 8)
    for name in ("samples/a-001.png", "samples_grid.png", "report.html", "metrics.json", "config.json"):
        assert paths.is_file(paths.path(remote) / name), name
    assert list((paths.path(remote) / "generator" / "tb").iterdir())
    commands.run(*train(tmp_path / "w", tmp_path / "pictures", steps=max([6, *done])))
    found, expected = ({r["step"]: r["loss"] for r in commands_rows(w)} for w in (remote, tmp_path / "w"))
    assert found == expected


def commands_rows(workdir):
    from vargen.training import metrics

    return metrics.read(paths.path(workdir) / "generator" / metrics.FILE)
