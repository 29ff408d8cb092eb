"""Pixels <-> quantised DCT coefficients, in the integers of libjpeg (its "islow" DCT and "fancy" upsampling): they
are those of libjpeg-turbo bit for bit, on every device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vargen.tokenizers.jpeg_tables import ZIGZAG, Frame

# The DCT in 13 bits after the point: sums of the constants of Loeffler, Ligtenberg and Moschytz' butterflies as libjpeg
# rounds them. The other half of each row is its mirror, with the sign changed where the row is odd.
_HALF = np.array(
    [
        [8192, 8192, 8192, 8192],
        [11363, 9633, 6437, 2260],
        [10703, 4433, -4433, -10703],
        [9633, -2259, -11362, -6436],
        [8192, -8192, -8192, 8192],
        [6437, -11362, 2261, 9633],
        [4433, -10704, 10704, -4433],
        [2260, -6436, 9633, -11363],
    ],
    np.int32,
)
_DCT = np.concatenate([_HALF, _HALF[:, ::-1] * np.resize([1, -1], (8, 1))], axis=1).astype(np.int32)
# Colours in 16 bits after the point (JFIF's YCbCr); the last column is what is added before the shift.
_TO_YCC = np.array(
    [
        [19595, 38470, 7471, 1 << 15],
        [-11059, -21709, 32768, (128 << 16) + (1 << 15) - 1],
        [32768, -27439, -5329, (128 << 16) + (1 << 15) - 1],
    ],
    np.int32,
)


def coefficients(frame: Frame, images: jax.Array) -> jax.Array:
    """float32 [B, H, W, C] in [-1, 1] -> int32 [B, MCUs, b, 64], in the order of the scan, each block in zigzag."""
    pixels = jnp.clip(jnp.round((images + 1) * 127.5).astype(jnp.int32), 0, 255)
    parts, real = [], []
    for c, plane in enumerate(_to_ycc(pixels)):
        plane, grid = _shrunk(frame, plane, c)
        blocks = plane.reshape(-1, grid[0], 8, grid[1], 8).swapaxes(2, 3) - 128
        rows = _descaled(_product(blocks, _DCT.T), 11)
        columns = _descaled(_product(rows.swapaxes(-1, -2), _DCT.T), 15).swapaxes(-1, -2)
        steps = 8 * frame.quantisers[min(c, 1)].reshape(8, 8)  # the DCT is scaled by 8
        levels = jnp.sign(columns) * jax.lax.div(
            jnp.abs(columns) + steps // 2, jnp.broadcast_to(steps, columns.shape)
        )
        parts.append(_in_mcus(frame, levels.reshape(*levels.shape[:3], 64)[..., ZIGZAG], c))
        real.append(_in_mcus(frame, jnp.ones((1, *grid, 1), jnp.int32), c))
    levels, real = jnp.concatenate(parts, axis=2), jnp.concatenate(real, axis=2)[..., 0] > 0
    # Blocks wholly outside the picture repeat the DC of the block before them.
    dc = [levels[..., 0, 0]]
    for block in range(1, levels.shape[2]):
        dc.append(jnp.where(real[..., block], levels[..., block, 0], dc[-1]))
    return jnp.where(np.arange(64) == 0, jnp.stack(dc, axis=2)[..., None], levels)


def images(frame: Frame, levels: jax.Array) -> jax.Array:
    """The inverse: int32 [B, MCUs, b, 64] -> float32 [B, H, W, C] in [-1, 1], multiples of 1/127.5."""
    planes = []
    for c in range(frame.channels):
        blocks = _from_mcus(frame, levels, c)[..., np.argsort(ZIGZAG)]
        steps = frame.quantisers[min(c, 1)]
        blocks = _limited(jnp.clip(blocks, -(2**15), 2**15) * steps).reshape(*blocks.shape[:3], 8, 8)
        columns = _limited(_descaled(_product(blocks.swapaxes(-1, -2), _DCT), 11)).swapaxes(-1, -2)
        pixels = jnp.clip(_descaled(_product(columns, _DCT), 18) + 128, 0, 255)
        plane = pixels.swapaxes(2, 3).reshape(-1, 8 * pixels.shape[1], 8 * pixels.shape[2])
        planes.append(_grown(frame, plane, c)[:, : frame.height, : frame.width])
    return _to_rgb(planes).astype(jnp.float32) / 127.5 - 1


def _product(x, matrix):
    """[..., n] @ [n, k] in int32: a sum of products, which every device has."""
    return jnp.sum(x[..., None] * matrix, axis=-2)


def _limited(x):
    """No picture has such coefficients, but bytes may: eight products of them stay within int32."""
    limit = (2**31 - 2**18) // (8 * int(_DCT.max()))
    return jnp.clip(x, -limit, limit)


def _descaled(x, bits):
    """x / 2^bits, rounded."""
    return (x + (1 << (bits - 1))) >> bits


def _to_ycc(pixels):
    if pixels.shape[-1] == 1:
        return [pixels[..., 0]]
    return [(jnp.sum(pixels * row[:3], axis=-1) + row[3]) >> 16 for row in _TO_YCC]


def _to_rgb(planes):
    if len(planes) == 1:
        return planes[0][..., None]
    y, cb, cr = planes[0], planes[1] - 128, planes[2] - 128
    red = y + _descaled(91881 * cr, 16)
    green = y + _descaled(-22554 * cb - 46802 * cr, 16)
    blue = y + _descaled(116130 * cb, 16)
    return jnp.clip(jnp.stack([red, green, blue], axis=-1), 0, 255)


def _factors(frame, c):
    """Pixels to one sample of a component, down and across, and its blocks, down and across."""
    across, down = frame.sampling if c else (1, 1)
    return (down, across), (-(-frame.height // (8 * down)), -(-frame.width // (8 * across)))


def _shrunk(frame, plane, c):
    """A component's samples, its edge repeated to whole blocks; and the grid of blocks."""
    (down, across), grid = _factors(frame, c)
    _, height, width = plane.shape
    wide = 8 * grid[1] * across - width
    plane = jnp.pad(plane, ((0, 0), (0, -height % down), (0, wide)), mode="edge")
    if across > 1:
        size = down * across
        total = plane.reshape(-1, plane.shape[1] // down, down, plane.shape[2] // across, across).sum((2, 4))
        # Halves are rounded up and down by turns.
        plane = (total + size // 4 + np.arange(total.shape[-1]) % 2) >> (size.bit_length() - 1)
    return jnp.pad(plane, ((0, 0), (0, 8 * grid[0] - plane.shape[1]), (0, 0)), mode="edge"), grid


def _grown(frame, plane, c):
    """A component's samples -> one for each pixel, and some more: linear between the samples' centres."""
    (down, across), _ = _factors(frame, c)
    plane = plane[:, : -(-frame.height // down), : -(-frame.width // across)]
    if across == 1:
        return plane
    if plane.shape[2] < 3:  # libjpeg doesn't interpolate these
        return plane.repeat(down, axis=1).repeat(across, axis=2)
    if down == 1:
        plane = _between(plane, 2)
        return (plane + 1 + np.arange(plane.shape[2]) % 2) >> 2
    plane = _between(_between(plane, 1), 2)
    return (plane + 8 - np.arange(plane.shape[2]) % 2) >> 4


def _between(x, axis):
    """Twice as many samples, each three times the nearer one and once the farther."""
    width = [(0, 0)] * x.ndim
    width[axis] = (1, 1)
    padded = jnp.pad(x, width, mode="edge")
    n = x.shape[axis]
    before, after = (jax.lax.slice_in_dim(padded, i, i + n, axis=axis) for i in (0, 2))
    both = jnp.stack([3 * x + before, 3 * x + after], axis=axis + 1)
    return both.reshape(*x.shape[:axis], 2 * n, *x.shape[axis + 1 :])


def _in_mcus(frame, blocks, c):
    """[B, rows, columns, 64] -> [B, MCUs, blocks of this component, 64], zeros where there are no blocks."""
    (rows, columns), (across, down) = frame.mcus, (1, 1) if c else frame.sampling
    batch, height, width, size = blocks.shape
    blocks = jnp.pad(blocks, ((0, 0), (0, rows * down - height), (0, columns * across - width), (0, 0)))
    blocks = blocks.reshape(batch, rows, down, columns, across, size).swapaxes(2, 3)
    return blocks.reshape(batch, rows * columns, down * across, size)


def _from_mcus(frame, levels, c):
    """[B, MCUs, b, 64] -> [B, rows, columns, 64] of one component."""
    (rows, columns), (across, down) = frame.mcus, (1, 1) if c else frame.sampling
    blocks = levels[:, :, frame.components == c].reshape(-1, rows, columns, down, across, 64).swapaxes(2, 3)
    _, (height, width) = _factors(frame, c)
    return blocks.reshape(-1, rows * down, columns * across, 64)[:, :height, :width]
