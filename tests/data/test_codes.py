"""Stored codes: what goes in comes out, whole or not at all."""

import json

import numpy as np
import pytest

from vargen.data import codes
from vargen.errors import UserError


def items(count=100, shape=(7,), dtype=np.int32):
    rng = np.random.default_rng(0)
    return (rng.random((count, *shape)) * 50).astype(dtype), rng.integers(0, 9, count)


@pytest.mark.parametrize(
    "shape, given, served",
    [((7,), np.int64, np.int32), ((7,), np.uint16, np.int32), ((4, 6), np.float32, np.float32)],
)
def test_round_trip_over_shards(tmp_path, shape, given, served):
    content, labels = items(shape=shape, dtype=given)
    codes.store(tmp_path / "codes", content, labels, dict(tokenizer="vq", step=3), shard_bytes=500)
    found = codes.load(tmp_path / "codes")
    assert len(list((tmp_path / "codes").glob("content-*.npy"))) > 1
    assert found.meta == dict(tokenizer="vq", step=3)
    assert len(found) == 100 and found.item_shape == shape
    order = np.random.default_rng(1).permutation(100)
    record = found.gather(order)
    assert record["content"].dtype == served and record["label"].dtype == np.int32
    np.testing.assert_array_equal(record["content"], content[order])
    np.testing.assert_array_equal(record["label"], labels[order])
    assert found[42]["label"] == labels[42]
    assert isinstance(found.content[0], np.memmap)


def test_writing_again_replaces(tmp_path):
    for step in (1, 2):
        codes.store(tmp_path / "codes", *items(10 * step), dict(step=step))
    assert len(codes.load(tmp_path / "codes")) == 20
    assert [p.name for p in tmp_path.iterdir()] == ["codes"]


def test_an_interrupted_writer_leaves_the_old_codes(tmp_path):
    codes.store(tmp_path / "codes", *items(10), {})
    with pytest.raises(RuntimeError), codes.Writer(tmp_path / "codes", {}) as writer:
        writer.add(*items(20))
        raise RuntimeError
    assert len(codes.load(tmp_path / "codes")) == 10
    assert [p.name for p in tmp_path.iterdir()] == ["codes"]


def test_a_truncated_shard_is_named(tmp_path):
    codes.store(tmp_path, *items(), {}, shard_bytes=500)
    shard = tmp_path / "content-00002.npy"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(UserError, match="content-00002.npy: expected .* bytes"):
        codes.load(tmp_path)
    shard.unlink()
    with pytest.raises(UserError, match="content-00002.npy: .* found none"):
        codes.load(tmp_path)


def test_a_shard_of_the_right_size_with_other_content(tmp_path):
    codes.store(tmp_path, *items(), {})
    shard = tmp_path / "labels-00000.npy"
    shard.write_bytes(b"x" * shard.stat().st_size)
    with pytest.raises(UserError, match="labels-00000.npy"):
        codes.load(tmp_path)


def test_directories_that_are_no_codes(tmp_path):
    with pytest.raises(UserError, match="expected index.json"):
        codes.load(tmp_path / "missing")
    codes.store(tmp_path / "a", *items(), {})
    index = tmp_path / "a" / codes.INDEX
    text = index.read_text()
    index.write_text(text[:20])
    with pytest.raises(UserError, match="index.json.*broken"):
        codes.load(tmp_path / "a")
    index.write_text(json.dumps(json.loads(text) | dict(format=99)))
    with pytest.raises(UserError, match="expected format 2, found 99"):
        codes.load(tmp_path / "a")
    index.write_text(json.dumps(json.loads(text) | dict(shards=[dict(content="content-00000.npy")])))
    with pytest.raises(UserError, match="index.json.*broken"):
        codes.load(tmp_path / "a")
    codes.store(tmp_path / "none", *items(0), {})
    with pytest.raises(UserError, match="expected items, found none"):
        codes.load(tmp_path / "none")


def test_batches_that_do_not_match(tmp_path):
    with pytest.raises(UserError, match="as many labels"), codes.Writer(tmp_path / "c", {}) as writer:
        writer.add(np.zeros((3, 2), int), np.zeros(2, int))
    with pytest.raises(UserError, match=r"expected items \(2,\)"), codes.Writer(tmp_path / "c", {}) as writer:
        writer.add(np.zeros((3, 2), int), np.zeros(3, int))
        writer.add(np.zeros((3, 4), int), np.zeros(3, int))
