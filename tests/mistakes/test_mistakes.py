"""Whoever types anything at all gets what was asked for, or one line that names what, expected what, found what."""

import os
import shlex
import shutil
import zlib

import commands
import file_rows
import numpy as np
import pytest
import runner
import table
from PIL import Image

SHARDS = 4  # a kind's rows are cut into so many tests, for several workers


@pytest.fixture(scope="session")
def server():
    """The process that has everything imported."""
    made = runner.Server()
    yield made
    made.close()


@pytest.fixture(scope="session")
def model(trained, tmp_path_factory):
    """A VAR trained for a few steps, and its config as a file."""
    folder = tmp_path_factory.mktemp("model")
    shutil.copytree(trained.workdir, folder / "model")
    config = folder / "system.py"
    fields = [word.removeprefix("--config.").split("=", 1) for word in commands.tiny("var")]
    config.write_text(
        "from vargen import config\n"
        "def get_config():\n"
        f"    c = config.load({str(commands.ROOT / 'configs' / 'var.py')!r})\n"
        f"    return config.override(c, {fields!r})\n"
    )
    return folder


@pytest.fixture(scope="session")
def broken(model, tmp_path_factory):
    """Copies of the model, each damaged in one place."""
    folder = tmp_path_factory.mktemp("broken")
    for name in ("tokenizer", "generator", "classes", "halves"):
        shutil.copytree(model / "model", folder / name)
    for name in ("tokenizer", "generator"):
        for manifest in (folder / name / name / "checkpoints").glob("*/manifest.json"):
            manifest.write_text(manifest.read_text()[:-9])
    (folder / "classes" / "classes.json").write_text("[1, 2")
    (folder / "halves" / "classes.json").write_text('["a", "b"]')
    return folder


def furnish(tmp):
    """What a row may find in its folder."""
    for name, (text, _) in file_rows.PROGRAMS.items():
        (tmp / f"{name}.py").write_text(text)
    for name, (text, _) in file_rows.JSONS.items():
        (tmp / f"{name}.json").write_text(text)
    (tmp / "latin.py").write_bytes(b"# caf\xe9\n")
    (tmp / "text.txt").write_text("hello")
    for name in ("pipe.py", "pipe.png"):
        os.mkfifo(tmp / name)
    codes = np.zeros((2, 30), np.int32)
    np.save(tmp / "codes.npy", codes)
    np.savez(tmp / "codes.npz", codes=codes)
    np.save(tmp / "codes_float.npy", codes + 0.5)
    np.save(tmp / "codes_large.npy", codes + 128)
    np.save(tmp / "codes_negative.npy", codes - 1)
    np.save(tmp / "codes_short.npy", codes[:, :29])
    np.save(tmp / "codes_none.npy", codes[:0])
    np.save(tmp / "codes_text.npy", codes.astype("U2"))
    np.save(tmp / "codes_object.npy", np.array([{}, []], object), allow_pickle=True)
    (tmp / "codes_cut.npy").write_bytes((tmp / "codes.npy").read_bytes()[:-9])
    for name in (
        "flat",
        "empty",
        "torn/a",
        "torn/b",
        "hollow/a",
        "hollow/b",
        "broken/a",
        "broken/b",
        "huge/a",
        "two/a",
        "two/b",
    ):
        (tmp / name).mkdir(parents=True, exist_ok=True)
    for name in (
        "flat/1.png",
        "hollow/a/1.png",
        *(f"{d}/{c}/{i}.png" for d in ("two", "broken") for c in "ab" for i in range(9)),
        *(f"{d}/a/0.png" for d in ("twice/train", "twice/Training", "twice/val", "held/val", "held/test")),
        *(
            "foreign/train/a/0.png",
            "foreign/val/b/0.png",
            "unlabelled/train/0.png",
            "unlabelled/test/a/0.png",
        ),
        *(
            "nested/data/train/a/0.png",
            "nested/data/test/a/0.png",
            "loose/0.png",
            "loose/1.png",
            "loose/a/0.png",
        ),
        *(f"equal/{c}/{i}.png" for c in "ab" for i in range(3)),
    ):
        (tmp / name).parent.mkdir(parents=True, exist_ok=True)
        colour = tuple(zlib.crc32(name.encode()).to_bytes(4, "big")[:3])
        Image.new("RGB", (16, 16), (9, 9, 9) if name.startswith("equal") else colour).save(tmp / name)
    (tmp / "broken" / "a" / "broken.png").write_bytes((tmp / "flat" / "1.png").read_bytes()[:50])
    for name in (f"{c}/{i}.png" for c in "ab" for i in range(9)):
        (tmp / "torn" / name).write_bytes((tmp / "two" / name).read_bytes()[:50])
    Image.fromarray(np.full((4, 4), -1, np.float32)).save(tmp / "float.tif")
    Image.new("1", (20_000, 20_000)).save(tmp / "huge" / "a" / "huge.png")
    for i in range(9):
        shutil.copy(tmp / "huge" / "a" / "huge.png", tmp / "huge" / "a" / f"{i}.png")


@pytest.fixture(scope="session")
def furnished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("furnished")
    furnish(folder)
    return folder


@pytest.fixture(scope="session")
def arrays(tmp_path_factory):
    """Files of weights and goldens: one that is good, and damaged ones."""
    folder = tmp_path_factory.mktemp("arrays")
    with np.load(commands.ROOT / "tests" / "goldens" / "maskgit_vqgan.npz") as file:
        golden = dict(file)
    (folder / "good.npz").write_bytes(
        (commands.ROOT / "tests" / "goldens" / "maskgit_vqgan.npz").read_bytes()
    )
    good = {k.removeprefix("sd/"): v for k, v in golden.items() if k.startswith("sd/")}
    name = next(k for k, v in good.items() if v.ndim == 4)
    damage = dict(
        nan=lambda x: x * np.float32(np.nan),
        inf=lambda x: x + np.float32(np.inf),
        whole=lambda x: x.astype(np.int32),
        flat=np.ravel,
        hollow=lambda x: x[:0],
    )
    for kind, function in damage.items():
        np.savez(folder / f"{kind}.npz", **dict(good, **{name: function(good[name])}))
    np.savez(folder / "extra.npz", **good, surplus=np.zeros(3, np.float32))
    np.savez(folder / "missing.npz", **{k: v for k, v in good.items() if "quantize" not in k})
    np.savez(folder / "one.npz", a=np.ones(3, np.float32))
    (folder / "cut.npz").write_bytes((folder / "one.npz").read_bytes()[:60])
    (folder / "empty.npz").touch()
    (folder / "text.safetensors").write_text("hello, world\n")
    os.mkfifo(folder / "pipe.npz")
    (folder / "shards").mkdir()
    for kind, text in dict(
        broken="[]",
        outside='{"weight_map": {"a": "../b.safetensors"}}',
        away='{"weight_map": {"a": "away-1.safetensors"}}',
    ).items():
        (folder / f"{kind}.safetensors.index.json").write_text(text)
    small = dict(meta=np.array('{"of": "nothing"}'), **{"sd/a": np.ones(2, np.float32), "out/b": np.ones(2)})
    for kind, more in dict(
        unknown={},
        bare=dict(meta=np.array("{}")),
        listed=dict(meta=np.array("[1]")),
        text=dict(meta=np.array("{")),
    ).items():
        np.savez(folder / f"golden_{kind}.npz", **dict(small, **more))
    np.savez(folder / "golden_nan.npz", **small, **{"in/image": np.full(2, np.nan)})
    return folder


# Kinds of many rows, of which so many shards are enough where nothing of theirs has changed.
ALIKE = dict(ranges=1, flags=1, configs=1, data=1, others=1, files=2, interop=1, hub=1, right=1, workdirs=1)


@pytest.mark.parametrize(
    "kind, shard",
    [
        pytest.param(kind, shard, marks=[pytest.mark.slow] * (shard >= ALIKE.get(kind, SHARDS)))
        for kind in table.KINDS
        for shard in range(SHARDS)
    ],
)
def test_mistakes(kind, shard, server, model, broken, furnished, arrays):
    rows = table.KINDS[kind][shard::SHARDS]
    places = dict(
        tmp=furnished,
        model=model / "model",
        config=model / "system.py",
        broken=broken,
        arrays=arrays,
        root=commands.ROOT,
    )
    roots = [furnished, model, broken, arrays]
    wrong = []
    for row in rows:
        arguments = [word.format(**places) for word in shlex.split(row.command.replace("~", "\\~"))]
        outcome = server.run(arguments, furnished, roots)
        if found := runner.problem(row, outcome):
            wrong.append(f"vargen {row.command}\n    {found}")
        elif not row.code:
            shutil.rmtree(furnished / "o", ignore_errors=True)
            (furnished / "g.npz").unlink(missing_ok=True)
    assert not wrong, f"{len(wrong)} of {len(rows)}:\n" + "\n".join(wrong)
