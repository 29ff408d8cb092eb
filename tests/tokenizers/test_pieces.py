"""Given pieces against a plain program that joins one pair at a time; codes of abbreviated files against Pillow's."""

import io

import jax
import numpy as np
import pytest
from PIL import Image, features

from vargen.errors import UserError
from vargen.tokenizers import jpeg
from vargen.tokenizers.jpeg_tables import Frame
from vargen.tokenizers.pieces import Pieces

END = 256
# "a28aa2" is of "a28a" and "a2" or of "a2" and "8aa2"; runs of 28a2 overlap; a text begins with "_", once with a byte.
JOINED = "28a2 ffd8 8a28 a28a 28a228a2 a28aa2 0000 8aa2 000000 _ff 00000000".split()


def vocabulary(begins):
    """Specials, then pieces of several bytes, then bytes in some order, then a number that stands for nothing."""
    order = np.random.default_rng(0).permutation(256)
    joined = [text for text in JOINED if begins or "_" not in text]
    alone = [f"{byte:02x}" for byte in order] + ["_"] * begins
    return ("", "", "", *joined, *alone, "")


def plainly(text, texts):
    """Numbers of hexadecimal text: of all pairs that join, the one of the smallest number, from the left."""
    number = {t: i for i, t in enumerate(texts) if t}
    found = [text[:1]] if text.startswith("_") else []
    body = text.removeprefix("_")
    found += [body[i : i + 2] for i in range(0, len(body), 2)]
    while pairs := [(number[a + b], i) for i, (a, b) in enumerate(zip(found, found[1:])) if a + b in number]:
        _, at = min(pairs)
        found[at : at + 2] = [found[at] + found[at + 1]]
    return [number[t] for t in found]


@pytest.mark.parametrize("begins", [pytest.param(False, marks=pytest.mark.slow), True])
def test_joined_as_one_at_a_time(begins):
    rng = np.random.default_rng(1)
    texts = vocabulary(begins)
    pieces = Pieces(texts, 2)
    common = [
        bytes.fromhex(text.removeprefix("_")) for text in (*JOINED, "a28aa2", "8a28", "8aa2", "ff", "00")
    ]
    rows = [b"", b"\xff", *(b"".join(rng.permutation(np.array(common, object))) for _ in range(6))]
    given = np.full((len(rows), 64), END, np.int32)
    for row, line in zip(given, rows, strict=True):
        row[: len(line)] = np.frombuffer(line, np.uint8)
    found = np.asarray(jax.jit(pieces.encode, static_argnums=1)(given, END))
    expected = [plainly("_" * begins + line.hex(), texts) for line in rows]
    assert found.shape == (len(rows), 64 + begins)
    for numbers, row in zip(found, expected, strict=True):
        assert numbers.tolist() == row + [2] * (len(numbers) - len(row))
    assert len({n for row in expected for n in row if n < 3 + len(JOINED)}) >= 9
    decode = jax.jit(pieces.decode, static_argnums=(1, 2))
    np.testing.assert_array_equal(decode(found, END, 64), given)
    found = found.copy()
    found[:, 3] = len(texts) - 1  # stands for nothing
    found[3, 20] = 2
    for line, numbers in zip(np.asarray(decode(found, END, 9)), found.tolist(), strict=True):
        kept = numbers[: numbers.index(2)]
        whole = list(bytes.fromhex("".join(texts[n].removeprefix("_") for n in kept)))
        assert line.tolist() == (whole + [END] * 9)[:9]


def test_refused():
    texts = vocabulary(True)
    for changed, stop, message in (
        (texts, 5, "tokenizer.stop: expected the number of a piece without bytes, found 5"),
        ([t for t in texts if t != "7f"], 2, "expected every byte, found no 7f"),
        ([*texts, "ff"], 2, "expected each once, found ff twice"),
        ([t for t in texts if t != "_"], 2, "expected _ alone, too"),
        ([*texts, *[""] * 4096], 2, "expected at most 4096"),
    ):
        with pytest.raises(UserError, match=message):
            Pieces(tuple(changed), stop)
    with pytest.raises(UserError, match="tokenizer.merges: expected 0 beside pieces, found 1"):
        jpeg.build((16, 16), 3, length=9, merges=1, pieces=texts, stop=2)


@pytest.mark.skipif(not features.check_feature("libjpeg_turbo"), reason="other libjpegs round otherwise")
@pytest.mark.parametrize("begins", [pytest.param(False, marks=pytest.mark.slow), True])
def test_codes_are_those_of_pillows_abbreviated_file(begins):
    """As the authors' program writes it: no tables, all else from the first marker to the last."""
    texts = vocabulary(begins)
    frame = Frame(16, 24, 3, restart=1)
    rng = np.random.default_rng(2)
    images = (rng.normal(size=(3, 16, 24, 3)) * np.array([2, 20, 90])[:, None, None, None] + 120).clip(0, 255)
    images = images.astype(np.uint8)
    files = []
    for image in images:
        file = io.BytesIO()
        options = dict(quality=25, subsampling="4:2:0", restart_marker_blocks=1)
        Image.fromarray(image).save(file, "JPEG", streamtype=2, **options)
        files.append(file.getvalue())
    length = len(files[1]) - len(frame.header(tables=False)) - 2  # of the scans, so that the last doesn't fit
    tokenizer = jpeg.build((16, 24), 3, length=length, restart=1, pieces=texts, stop=2, header=True)
    assert (tokenizer.vocab, tokenizer.slot.stop, tokenizer.grid.size) == (len(texts), 2, len(files[1]) + 1)
    params = tokenizer.init(jax.random.key(0))
    content = np.asarray(jax.jit(tokenizer.encode)(params, images.astype(np.float32) / 127.5 - 1))
    for codes, file in zip(content[:2], files, strict=False):
        row = plainly("_" * begins + file.hex(), texts)
        assert codes.tolist() == row + [2] * (len(codes) - len(row))
    assert 2 not in content[2]
    valid = jax.jit(tokenizer.valid)
    assert valid(params, content).tolist() == [True, True, False]
    other = content.copy()
    other[:, 4 + begins] = 0  # of the header
    assert not np.asarray(valid(params, other)).any()
    for ours, image in zip(tokenizer.files(params, content), images[:2], strict=False):
        whole = io.BytesIO()
        Image.fromarray(image).save(whole, "JPEG", **options)
        np.testing.assert_array_equal(*(np.asarray(Image.open(x)) for x in (io.BytesIO(ours), whole)))
