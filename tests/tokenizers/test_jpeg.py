"""The JPEG codec against Pillow's (libjpeg-turbo): the same bytes, the same pictures, also where bytes are broken."""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import digits
from PIL import Image, features
from systems import some_slow

from vargen import parts
from vargen.errors import UserError
from vargen.tokenizers import jpeg, jpeg_bits, jpeg_pixels
from vargen.tokenizers.jpeg_tables import ZIGZAG, Frame

ROOM = 2500  # bytes
COLOUR = Frame(24, 37, 3)
RESTARTS = Frame(24, 60, 3, restart=2)
GREY = Frame(19, 30, 1, quality=75, restart=3)
FRAMES = [
    COLOUR,  # one MCU and a half down, the last one across without its right half
    RESTARTS,
    GREY,
    Frame(17, 23, 3, quality=100, restart=1),
    Frame(9, 36, 3, quality=50, subsampling="4:2:2"),
    Frame(9, 17, 3, quality=90, subsampling="4:4:4"),
    Frame(5, 4, 3),  # chroma too narrow to interpolate
]
turbo = pytest.mark.skipif(
    not features.check_feature("libjpeg_turbo"), reason="other libjpegs round otherwise"
)


def pictures(frame: Frame, count: int = 8) -> np.ndarray:
    """uint8 [count, H, W, C]: smooth with a little noise, and the last two noise alone."""
    rng = np.random.default_rng(0)
    shape = (frame.height, frame.width)
    size = (frame.width, frame.height)
    images = []
    for coarse in rng.normal(size=(count, 4, 4, frame.channels)).astype(np.float32):
        planes = [
            np.asarray(Image.fromarray(p).resize(size, Image.BICUBIC)) for p in np.moveaxis(coarse, -1, 0)
        ]
        images.append(128 + 70 * np.stack(planes, -1) + rng.normal(size=(*shape, 1)) * 5)
    images = np.clip(np.rint(images), 0, 255).astype(np.uint8)
    images[-2:] = rng.integers(0, 256, images[-2:].shape)
    return images


def unit(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 127.5 - 1


def bytes_of(images) -> np.ndarray:
    return np.rint((np.asarray(images) + 1) * 127.5).astype(np.uint8)


@functools.cache
def codec(frame: Frame):
    @jax.jit
    def decode(scan, lengths):
        levels = jpeg_bits.unpack(frame, scan, lengths)
        return jpeg_pixels.images(frame, levels), levels

    return jax.jit(lambda images: jpeg.encode(frame, images, ROOM)), decode


def decoded(frame: Frame, scans: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Pictures float32 [B, H, W, C] and coefficients [B, MCUs, b, 64] of scans; what follows one is not to be read."""
    padded = np.full((len(scans), ROOM), 0x5A, np.int32)
    for row, scan in zip(padded, scans):
        row[: len(scan)] = np.frombuffer(scan, np.uint8)
    return tuple(map(np.asarray, codec(frame)[1](padded, np.array([len(s) for s in scans]))))


def pillow_file(frame: Frame, image: np.ndarray) -> bytes:
    file = io.BytesIO()
    options = dict(subsampling=frame.subsampling) if frame.channels == 3 else {}
    picture = Image.fromarray(image if frame.channels == 3 else image[..., 0])
    picture.save(file, "JPEG", quality=frame.quality, restart_marker_blocks=frame.restart, **options)
    return file.getvalue()


def scan_of(file: bytes) -> bytes:
    at = 2
    while file[at + 1] != 0xDA:
        at += 2 + int.from_bytes(file[at + 2 : at + 4], "big")
    return file[at + 2 + int.from_bytes(file[at + 2 : at + 4], "big") : -2]


def pillow_picture(frame: Frame, scan: bytes) -> np.ndarray:
    """What Pillow reads from our file around a scan."""
    with Image.open(io.BytesIO(jpeg.to_file(frame, np.frombuffer(scan, np.uint8)))) as picture:
        return np.asarray(picture).reshape(frame.height, frame.width, frame.channels)


@turbo
@pytest.mark.parametrize("frame", some_slow(FRAMES, [COLOUR, RESTARTS, *FRAMES[4:6]]), ids=str)
def test_bytes_and_pictures_are_pillows(frame):
    """Not one bit differs, so no tolerance."""
    images = pictures(frame)
    scans = [scan_of(pillow_file(frame, image)) for image in images]
    found, lengths = map(np.asarray, codec(frame)[0](unit(images)))
    assert found.dtype == np.int32 and found.shape == (len(images), ROOM)
    for row, length, scan in zip(found, lengths, scans):
        assert bytes(row[:length].astype(np.uint8)) == scan
        assert not row[length:].any()
    expected = np.stack([pillow_picture(frame, scan) for scan in scans])
    np.testing.assert_array_equal(bytes_of(decoded(frame, scans)[0]), expected)
    if frame.quality == 100:
        assert any(b"\xff\x00" in scan for scan in scans), "bytes 255 occurred and were stuffed"


def test_pictures_survive():
    """Without Pillow's help: at quality 100 without subsampling no pixel is off by more than 5."""
    frame = Frame(16, 24, 3, quality=100, subsampling="4:4:4")
    images = pictures(frame)

    @jax.jit
    def there_and_back(images):
        return jpeg.decode(frame, *jpeg.encode(frame, images, 4000))

    found = there_and_back(unit(images))
    assert found.dtype == jnp.float32 and found.shape == images.shape
    assert np.abs(bytes_of(found).astype(int) - images).max() <= 5


@turbo
@pytest.mark.parametrize("frame", some_slow([COLOUR, RESTARTS, GREY], [COLOUR]), ids=str)
def test_scans_cut_short(frame):
    """At every byte, as libjpeg reads them; what is missing is grey."""
    scan = scan_of(pillow_file(frame, pictures(frame)[0]))
    cut = [scan[:n] for n in range(len(scan) + 1)]
    found = bytes_of(decoded(frame, cut)[0])
    for picture, part in zip(found, cut):
        np.testing.assert_array_equal(picture, pillow_picture(frame, part), err_msg=str(len(part)))
    np.testing.assert_array_equal(found[len(scan) // 2][-1, -1], 128)


def broken(frame: Frame, count: int) -> list[bytes]:
    """Scans with flipped bits, missing bytes, strange markers, and bytes drawn at random."""
    rng = np.random.default_rng(1)
    scans = []
    for image in pictures(frame, count):
        scan = bytearray(scan_of(pillow_file(frame, image)))
        at = int(rng.integers(len(scan)))
        kind = len(scans) % 4
        if kind == 0:
            scan[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del scan[at : at + int(rng.integers(1, 8))]
        elif kind == 2:
            scan[at:at] = bytes([255, int(rng.choice([0xD0, 0xD1, 0xD2, 0xD4, 0xD6, 0xD7, 0xD9, 0xFF, 1]))])
        else:
            scan = rng.integers(0, 256, len(scan)).astype(np.uint8).tobytes()
        scans.append(bytes(scan))
    return scans


@turbo
@pytest.mark.parametrize("frame", some_slow([COLOUR, RESTARTS, GREY], [COLOUR]), ids=str)
def test_broken_scans(frame):
    """The picture is libjpeg's, wherever that opens the file and needs no more than its 16 bits."""
    scans = broken(frame, 120)
    found, levels = decoded(frame, scans)
    steps = frame.quantisers[np.minimum(frame.components, 1)][:, ZIGZAG]
    sums = np.abs(levels * steps).sum(axis=-1).max(axis=(1, 2))
    compared = 0
    for picture, scan, most in zip(found, scans, sums):
        try:
            expected = pillow_picture(frame, scan)
        except OSError:  # a marker after the scan that is none
            continue
        if most <= 5900:  # 2^15 / (4 sqrt 2 cos(pi / 16)): no sum of the DCT leaves 16 bits
            np.testing.assert_array_equal(bytes_of(picture), expected)
            compared += 1
    assert compared >= 30


@pytest.mark.parametrize("byte", [0x00, 0x7F, 0xFE, 0xFF])
def test_bytes_that_say_nothing(byte):
    """The largest coefficients one after another; no byte at all, which is read as one MCU of zeros."""
    scans = [bytes([byte]) * ROOM, bytes([byte, 0]) * (ROOM // 2), bytes([byte]), b""]
    images, levels = decoded(COLOUR, scans)
    assert np.all(np.abs(images) <= 1)
    np.testing.assert_array_equal(levels[-1, 1:], 0)


def test_what_does_not_fit():
    images = unit(pictures(COLOUR))
    scans, lengths = codec(COLOUR)[0](images)
    room = int(np.sort(lengths)[3])
    cut, found = jax.jit(lambda x: jpeg.encode(COLOUR, x, room))(images)
    np.testing.assert_array_equal(cut, scans[:, :room])
    fits = np.asarray(lengths) <= room
    assert 0 < fits.sum() < len(images)
    np.testing.assert_array_equal(np.asarray(found)[fits], np.asarray(lengths)[fits])
    assert np.all(np.asarray(found)[~fits] > room)


def test_dct():
    """libjpeg's integers against the cosines; the integers are rounded to 2^-13."""
    k, n = np.mgrid[:8, :8]
    cosines = np.where(k == 0, 1, np.sqrt(2) * np.cos((2 * n + 1) * k * np.pi / 16))
    np.testing.assert_allclose(jpeg_pixels._DCT / 2**13, cosines, atol=1.5 / 2**13)


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(height=0), "JPEG height: expected a whole number from 1 to 65500, found 0"),
        (dict(width=65501), "JPEG width: expected a whole number from 1 to 65500, found 65501"),
        (dict(channels=4), "JPEG channels: expected 1 or 3, found 4"),
        (dict(quality=101), "JPEG quality: expected a whole number from 1 to 100, found 101"),
        (dict(restart=-1), "JPEG restart: expected a whole number from 0 to 65535, found -1"),
        (dict(subsampling="4:1:1"), "JPEG subsampling: expected one of 4:4:4, 4:2:2, 4:2:0, found '4:1:1'"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(UserError) as error:
        Frame(**(dict(height=8, width=8, channels=3) | fields))
    assert str(error.value) == message


def build(**options):
    part = dict(name="jpeg", length=64) | options
    return parts.build(dict(jpeg=jpeg.build), part, "tokenizer", image_size=(16, 16), image_channels=1)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(length=0), "tokenizer.length: expected a whole number from 1 to 1048576, found 0"),
        (dict(quality=0), "tokenizer.quality: expected a whole number from 1 to 100, found 0"),
        (dict(subsampling="420"), "tokenizer.subsampling: expected one of 4:4:4, 4:2:2, 4:2:0, found '420'"),
        (dict(restart=65536), "tokenizer.restart: expected a whole number from 0 to 65535, found 65536"),
    ],
)
def test_options_refused(options, message):
    with pytest.raises(UserError) as error:
        build(**options)
    assert message in str(error.value)


def lengths_of(tokenizer, images):
    """How many bytes each image takes."""
    count = jax.jit(lambda x: jpeg.encode(tokenizer.frame, x, tokenizer.length)[1])
    return np.asarray(count(images))


def test_files_are_traced_once(monkeypatch):
    """By every tokenizer that is the same."""
    traces, split = [], jpeg.byte_pairs.split
    monkeypatch.setattr(jpeg.byte_pairs, "split", lambda *args: traces.append(args) or split(*args))
    tokenizer = build(length=33)
    params, content = tokenizer.init(jax.random.key(0)), jnp.zeros((2, 34), jnp.int32).at[:, 5].set(jpeg.STOP)
    files = [t.files(params, content) for t in (tokenizer, tokenizer, build(length=33))]
    assert files[0] == files[1] == files[2] and len(traces) == 1


def test_tokenizer():
    """Digits as bytes, a stop code after them; a picture half known is that of its first bytes."""
    tokenizer = build()
    assert tokenizer == build() and hash(tokenizer) == hash(build())
    params = tokenizer.init(jax.random.key(0))
    assert [x.shape for x in jax.tree.leaves(params)] == [(0, 2)]
    images = digits()
    content = jax.jit(tokenizer.encode)(params, images)
    assert content.shape == (len(images), 65) and content.dtype == jnp.int32
    lengths = lengths_of(tokenizer, images)
    assert lengths.max() <= 64
    np.testing.assert_array_equal(np.asarray(content) == jpeg.STOP, np.arange(65) >= lengths[:, None])

    latents = jax.jit(tokenizer.latents)
    found = latents(params["quantizer"], content, jnp.ones(content.shape, bool))
    np.testing.assert_array_equal(found, jax.jit(tokenizer.decode)(params, content))
    assert np.abs(np.asarray(found) - images).mean() < 0.15
    known = np.arange(65) < lengths[:, None] // 2
    np.testing.assert_array_equal(
        latents(params["quantizer"], content, known),
        latents(params["quantizer"], np.where(known, content, jpeg.STOP), np.ones(content.shape, bool)),
    )
    with pytest.raises(UserError, match=r"images: expected \[B, 16, 16, 1\], found \[2, 8, 8, 1\]"):
        tokenizer.encode(params, jnp.zeros((2, 8, 8, 1)))
    with pytest.raises(UserError, match="tokenizer jpeg: expected one with parameters to train, found none"):
        tokenizer.loss(params, {}, images, None, 0, {})


def test_pictures_that_do_not_fit_are_cut():
    tokenizer = build(length=40)
    params = tokenizer.init(jax.random.key(0))
    content, lengths = (
        np.asarray(jax.jit(tokenizer.encode)(params, digits())),
        lengths_of(tokenizer, digits()),
    )
    assert 0 < np.sum(lengths > 40) < len(lengths)
    np.testing.assert_array_equal((content < jpeg.STOP).all(axis=1), lengths > 40)


@pytest.mark.slow
@turbo
def test_files_are_the_pictures_of_ordinary_ones():
    """Encoded, without headers and tables, merged, and back: the pixels are those of Pillow's own file."""
    frame = Frame(16, 24, 3, restart=1)
    images = pictures(frame)[:6]
    tokenizer = jpeg.Jpeg(frame, length=150, slots=140, merges=12)
    params = tokenizer.fit([unit(images[:3]), unit(images[3:])])
    content = jax.jit(tokenizer.encode)(params, unit(images))
    exists = np.asarray(tokenizer.slot.exists(content)).sum(axis=1)
    assert len(set(exists.tolist())) > 1, "lengths vary"
    images_decoded = jax.jit(tokenizer.decode)(params, content)
    for file, image, decoded, codes in zip(
        tokenizer.files(params, content), images, images_decoded, exists - 1, strict=True
    ):
        ordinary = pillow_file(frame, image)
        assert scan_of(file) == scan_of(ordinary) and len(scan_of(file)) > codes
        found, expected = (np.asarray(Image.open(io.BytesIO(f))) for f in (file, ordinary))
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(bytes_of(decoded).reshape(expected.shape), expected)


def test_valid():
    """What stops where a picture's bytes end; a byte fewer, more or changed shows."""
    tokenizer = build(restart=1)
    params = tokenizer.init(jax.random.key(0))
    whole = np.asarray(jax.jit(tokenizer.encode)(params, digits()))
    rows, last = np.arange(len(whole)), (whole != jpeg.STOP).sum(axis=1) - 1
    shorter, longer, other, endless = (whole.copy() for _ in range(4))
    shorter[rows, last] = jpeg.STOP
    longer[rows, last + 1] = 0
    other[rows, last // 2] ^= 0x40
    endless[endless == jpeg.STOP] = 0
    valid = jax.jit(tokenizer.valid)
    assert np.asarray(valid(params, whole)).all()
    assert not any(np.asarray(valid(params, x)).any() for x in (shorter, longer, endless))
    assert np.asarray(valid(params, other)).mean() < 0.5  # some other picture's, else


def test_repair():
    """Files of codes without an end, or with a second one, open; what comes after an end-of-image marker is no part."""
    tokenizer = build(restart=1)
    params = tokenizer.init(jax.random.key(0))
    whole = np.asarray(jax.jit(tokenizer.encode)(params, digits()[:2]))
    content = whole.copy()
    content[0, 20:] = 0x11
    content[1, 20:22], content[1, 22:] = (0xFF, 0xD9), 0x11
    first, second = tokenizer.files(params, content)
    for file in (first, second):
        assert file.startswith(b"\xff\xd8") and file.endswith(b"\xff\xd9") and file.count(b"\xff\xd9") == 1
        assert np.asarray(Image.open(io.BytesIO(file))).shape == (16, 16)
    assert scan_of(second) == bytes(whole[1, :20].astype(np.uint8))


def test_restarts_as_in_the_paper():
    """256x256 at 4:2:0: 255 markers, their numbers in turn, so that a prefix may end with a row of blocks."""
    frame = Frame(256, 256, 3, restart=1)
    scan = scan_of(jpeg.to_file(frame, np.asarray(_scan(frame))))
    markers = [scan[i + 1] for i in range(len(scan) - 1) if scan[i] == 0xFF and scan[i + 1]]
    assert markers == [0xD0 + i % 8 for i in range(255)]
    assert markers.count(0xD7) == 31


def _scan(frame):
    y, x = np.mgrid[:256, :256] / 128 - 1
    scan, lengths = jax.jit(lambda i: jpeg.encode(frame, i, 8000))(
        jnp.asarray(np.stack([x, y, x * y], -1)[None], jnp.float32)
    )
    return scan[0, : int(lengths[0])]


def test_more_slots_than_bytes():
    with pytest.raises(UserError, match="tokenizer.slots: expected at most length, 64, found 65"):
        build(slots=65)
