"""Files of arrays that a user names: what isn't one is refused before it is read."""

import io
import os
import zipfile

import numpy as np
import pytest

from vargen.cli import array_files
from vargen.errors import UserError

ARRAY = np.arange(6, dtype=np.int16).reshape(2, 3)


def whole(dtype, shape):
    if dtype.kind not in "iu" or shape[1:] != (3,):
        raise UserError(f"expected whole numbers [B, 3], found {dtype} {list(shape)}")


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def claiming(shape):
    """A file whose header claims another shape than its data has."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, dict(descr="<i2", fortran_order=False, shape=shape))
    return file.getvalue() + ARRAY.tobytes()


BAD = {
    "empty": (b"", "an .npy"),
    "text": (b"3 4 5\n", "an .npy"),
    "npz": (npz(x=ARRAY), "an .npz"),
    "float": (npy(ARRAY.astype(float)), "float64"),
    "strings": (npy(ARRAY.astype(str)), "<U"),
    "objects": (npy(ARRAY.astype(object), allow_pickle=True), "object"),
    "structured": (npy(np.zeros(2, [("a", "i4")])), "[2]"),
    "no_dimension": (npy(np.int16(3)), "[]"),
    "misshapen": (npy(ARRAY.T), "[3, 2]"),
    "truncated": (npy(ARRAY)[:-1], "11 bytes where its header says 12"),
    "longer": (npy(ARRAY) + b"x", "13 bytes where its header says 12"),
    "header_cut": (npy(ARRAY)[:40], "EOF"),
    "huge": (claiming((10**15, 3)), "header says 6000000000000000"),
    "negative": (claiming((-1, 3)), "[-1, 3]"),
    "version": (b"\x93NUMPY\x09\x00" + npy(ARRAY)[8:], "9"),
    "pickle": (b"\x80\x04\x95", "an .npy"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(name, tmp_path):
    data, words = BAD[name]
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(UserError) as error:
        array_files.read(tmp_path / "x.npy", "--codes", whole)
    text = str(error.value)
    assert text.startswith(f"--codes {tmp_path / 'x.npy'}: ") and words in text and "\n" not in text, text


@pytest.mark.parametrize("read", [array_files.read, lambda p, n, c: array_files.read_many(p, n, dict(x=c))])
def test_only_plain_files(read, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    places = {tmp_path: "a directory", tmp_path / "fifo": "no plain file", "/dev/zero": "no plain file"}
    for path, words in {**places, tmp_path / "none": "found none", "": "expected a path"}.items():
        with pytest.raises(UserError, match=words):
            read(path, "--codes", whole)


def test_read(tmp_path):
    for array in (ARRAY, np.asfortranarray(ARRAY), ARRAY.astype(">i4")):
        np.save(tmp_path / "x.npy", array)
        np.testing.assert_array_equal(array_files.read(tmp_path / "x.npy", "--codes", whole), array)


def test_archives(tmp_path):
    file = tmp_path / "x.npz"
    file.write_bytes(npz(a=ARRAY, other=np.zeros(3)))
    found = array_files.read_many(file, "--captions", dict(a=whole, b=whole))
    assert list(found) == ["a"]
    np.testing.assert_array_equal(found["a"], ARRAY)
    with pytest.raises(UserError, match="found float64"):
        array_files.read_many(file, "--captions", dict(other=whole))
    whole_file = bytearray(file.read_bytes())
    for data in (whole_file[:-30], b"", npy(ARRAY), whole_file[:60] + b"\0" * 20 + whole_file[80:]):
        file.write_bytes(bytes(data))
        with pytest.raises(UserError, match="expected an .npz of a"):
            array_files.read_many(file, "--captions", dict(a=whole))
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", claiming((10**15, 3)))
    with pytest.raises(UserError, match="bytes where its header says"):
        array_files.read_many(file, "--captions", dict(a=whole))
