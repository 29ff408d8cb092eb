"""Quantised coefficients <-> the bytes of a baseline JPEG scan (ITU-T T.81, annex F), with static shapes.

Unreadable bytes are read as libjpeg reads them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vargen.tokenizers import jpeg_tables
from vargen.tokenizers.jpeg_tables import AC, DC, Frame

_FF, _RST0, _EOI = 0xFF, 0xD0, 0xD9


def pack(frame: Frame, levels: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
    """Coefficients -> the scan.

    Args:
      frame: sizes and tables.
      levels: int32 [B, MCUs, b, 64], in zigzag.
      length: L, bytes that there is room for.

    Returns:
      bytes int32 [B, L], zeros after the scan's end; lengths int32 [B], exact where at most L and above L where
      the scan doesn't fit.
    """
    words, sizes = _entries(frame, _intervals(frame, levels))
    return jax.vmap(lambda w, s: _stuffed(*_joined(w, s, length), length))(words, sizes)


def unpack(frame: Frame, scan: jax.Array, lengths: jax.Array) -> jax.Array:
    """The scan -> coefficients, zeros where it says nothing.

    A scan that ends too early is read as if zeros followed, to the end of the MCU that it breaks off in; so is one with
    a marker in it, up to where a restart marker sets in anew. Codes that there are not stand for no coefficient.

    Args:
      frame: sizes and tables.
      scan: int32 [B, L], of which the lowest 8 bits count.
      lengths: int32 [B], bytes of the scan; what follows is not looked at.

    Returns:
      int32 [B, MCUs, b, 64], in zigzag.
    """
    windows, starts, stops, fresh = jax.vmap(lambda x, n: _segments(frame, x, n))(scan, lengths)
    step = jax.vmap(lambda state, *segments: _symbol(frame, state, *segments))
    lanes = jnp.arange(scan.shape[0])

    def body(carry):
        state, levels = carry
        state, at, value = step(state, windows, starts, stops, fresh)
        return state, levels.at[lanes, at].set(value, mode="drop")

    start = (0, 0, 0, 0, np.zeros(frame.channels, np.int32))
    state = jax.tree.map(lambda x: jnp.zeros((*lanes.shape, *np.shape(x)), jnp.int32), start)
    levels = jnp.zeros((len(lanes), 64 * frame.blocks), jnp.int32)
    _, levels = jax.lax.while_loop(lambda c: jnp.any(c[0][1] < frame.blocks), body, (state, levels))
    return levels.reshape(len(lanes), -1, len(frame.components), 64)


def _intervals(frame, levels):
    """[B, MCUs, b, 64] -> [B, intervals, MCUs of each, b, 64], DC as differences; zeros after the last MCU."""
    batch, count = levels.shape[:2]
    each = frame.interval // len(frame.components)
    levels = jnp.pad(levels, ((0, 0), (0, frame.intervals * each - count), (0, 0), (0, 0)))
    levels = levels.reshape(batch, frame.intervals, each, -1, 64)
    differences = []
    for c in range(frame.channels):
        dc = levels[:, :, :, frame.components == c, 0]
        flat = dc.reshape(batch, frame.intervals, -1)
        differences.append(jnp.diff(flat, axis=2, prepend=0).reshape(dc.shape))
    # Not `at[..., 0].set`: XLA's CPU compiler writes there while it still reads the neighbours (jax 0.10.2).
    return jnp.where(np.arange(64) == 0, jnp.concatenate(differences, axis=3)[..., None], levels)


def _entries(frame, levels):
    """The code that each place of each block adds to the scan.

    Args:
      levels: int32 [B, K, MCUs, b, 64].

    Returns:
      words, sizes: int32 [B, K, MCUs * b * 64 + 1]: up to 26 bits, and how many. The last fills up the byte.
    """
    place = np.arange(64)
    filled = levels != 0
    size = 32 - jax.lax.clz(jnp.abs(levels))
    # Where the last coefficient before each stands: 0, that of DC, if there is none.
    last = jax.lax.cummax(jnp.where(filled, place, 0), axis=4)
    before = jnp.pad(last[..., :-1], [(0, 0)] * 4 + [(1, 0)])
    zeros = place - before - 1
    sixteen = ~filled & (zeros % 16 == 15) & (place < last[..., -1:])
    symbol = jnp.where(filled, 16 * (zeros % 16) + size, jnp.where(sixteen, 0xF0, 0))
    symbol = jnp.where(place == 0, size, symbol)
    table = np.where(place == 0, DC, AC) + np.minimum(frame.components, 1)[:, None]
    codes, code_sizes = (jnp.asarray(x)[table, symbol] for x in jpeg_tables.codes())
    value = (levels + (levels >> 31)) & ((1 << size) - 1)
    # Zeros to the end have a code as well, at the last place.
    count = levels.shape[1] * levels.shape[2]
    exists = (np.arange(count) < frame.blocks // len(frame.components)).reshape(*levels.shape[1:3], 1, 1)
    used = (filled | sixteen | (place % 63 == 0)) & exists
    words = ((codes << size) | value).reshape(*levels.shape[:2], -1)
    sizes = jnp.where(used, code_sizes + size, 0).reshape(*levels.shape[:2], -1)
    rest = -jnp.sum(sizes, axis=2, keepdims=True) % 8
    return jnp.concatenate([words, (1 << rest) - 1], 2), jnp.concatenate([sizes, rest], 2)


def _joined(words, sizes, length):
    """Words of bits, one after another: [K, E] -> bytes int32 [L], and where each of the K ends: int32 [K]."""
    ends = jnp.cumsum(sizes.reshape(-1))
    byte = ((ends - sizes.reshape(-1)) // 8)[:, None] + np.arange(5)  # 26 bits lie in 5 bytes at most
    shift = ends[:, None] - 8 * (byte + 1)
    word = jnp.where(sizes > 0, words, 0).reshape(-1, 1)
    part = jnp.where(shift < 0, word << jnp.clip(-shift, 0, 8), word >> jnp.clip(shift, 0, 31)) & 255
    return jnp.zeros(length, jnp.int32).at[byte].add(part, mode="drop"), ends.reshape(sizes.shape)[:, -1] // 8


def _stuffed(data, ends, length):
    """Puts a 0 after each byte 255 and the restart markers between the intervals: the scan [L], its length []."""
    restarts = ends[:-1]
    full = jnp.cumsum(data == _FF)
    shift = 2 * jnp.cumsum(jnp.zeros(length, jnp.int32).at[restarts].add(1, mode="drop"))
    places = jnp.arange(length) + full - (data == _FF) + shift
    scan = jnp.zeros(length, jnp.int32).at[places].set(data, mode="drop")
    number = np.arange(len(restarts))
    full = jnp.pad(full, (1, 0))
    places = restarts + full[jnp.minimum(restarts, length)] + 2 * number
    scan = scan.at[places].set(_FF, mode="drop").at[places + 1].set(_RST0 + number % 8, mode="drop")
    return scan, ends[-1] + full[-1] + 2 * len(restarts)


def _segments(frame, scan, length):
    """The data between the markers of a scan.

    Args:
      scan: int32 [L].
      length: int32 [].

    Returns:
      windows: uint32 [L + 1], the four bytes of data from each on, zeros after the last.
      starts, stops: int32 [K], the bits of each interval; fresh: bool [K], there is a restart marker before it.
    """
    room = len(scan)
    x = jnp.where(jnp.arange(room) < length, scan & 255, -1)
    full = x == _FF
    after_full = jnp.pad(full[:-1], (1, 0))
    # Of several 255 in a row the last one counts.
    data = jnp.where(full, jnp.pad(x[1:], (0, 1), constant_values=-1) == 0, (x >= 0) & ~after_full)
    marker = after_full & ~full & (x > 0)
    place = jnp.where(data, jnp.cumsum(data) - 1, room)
    packed = jnp.zeros(room + 4, jnp.uint32).at[place].set(x.astype(jnp.uint32), mode="drop")
    packed = packed.at[room].set(0)
    windows = sum(packed[i : i + room + 1] << (24 - 8 * i) for i in range(4))
    # The markers, and after the last of them an end of image.
    number = jnp.where(marker, jnp.cumsum(marker) - 1, room)
    ends = jnp.full(room // 2 + 1, jnp.sum(data)).at[number].set(jnp.cumsum(data), mode="drop")
    kinds = jnp.full(room // 2 + 1, _EOI).at[number].set(x, mode="drop")

    def interval(at, wanted):
        ahead = (kinds - _RST0 - wanted) & 7
        restart = (kinds >= _RST0) & (kinds < _RST0 + 8)
        skipped = (kinds < 0xC0) | (restart & (ahead >= 6))  # no marker, or one that has been
        at = jax.lax.while_loop(lambda i: skipped[i], lambda i: i + 1, at)
        fresh = restart[at] & (
            (ahead[at] == 0) | (ahead[at] >= 3)
        )  # else it is a later one: this one is lost
        return at + fresh, (ends[at], ends[at + fresh], fresh)

    zero = jnp.zeros((), jnp.int32)
    _, (starts, stops, fresh) = jax.lax.scan(interval, zero, np.arange(frame.intervals - 1) % 8)
    starts, stops, fresh = jnp.append(zero, starts), jnp.append(ends[0], stops), jnp.append(True, fresh)
    return windows, 8 * starts, 8 * stops, fresh


def _symbol(frame, state, windows, starts, stops, fresh):
    """Reads one symbol.

    Args:
      state: next bit, block, coefficient; whether bits were missing; DC of each component.
      windows, starts, stops, fresh: as of `_segments`.

    Returns:
      The next state; where a coefficient is to be written, beyond the last place if nowhere; its value.
    """
    bit, block, k, short, dc = state
    components = jnp.asarray(frame.components)
    each = len(frame.components)
    stop = stops[jnp.minimum(block // frame.interval, frame.intervals - 1)]

    def bits(at):
        """The 16 bits from `at` on, zeros after the end."""
        window = windows[jnp.minimum(at >> 3, len(windows) - 1)] << (at & 7).astype(jnp.uint32)
        return (window >> 16).astype(jnp.int32) & (0xFFFF << (16 - jnp.clip(stop - at, 0, 16)))

    component = components[block % each]
    table = jnp.where(k == 0, DC, AC) + jnp.minimum(component, 1)
    limits, offsets, values = (jnp.asarray(x)[table] for x in jpeg_tables.limits())
    code = bits(bit)
    size = 1 + jnp.sum(code >= limits)
    symbol = jnp.where(size <= 16, values[((code >> jnp.maximum(16 - size, 0)) + offsets[size]) & 255], 0)
    run, value_size = symbol >> 4, symbol & 15
    value = bits(bit + size) >> (16 - value_size)
    negative = value < (1 << value_size) >> 1
    value = jnp.where(negative, value - (1 << value_size) + 1, value)
    value = jnp.where(k == 0, value + dc[component], value)
    at = jnp.minimum(k + run, 63)
    lost = (short > 0) & (block % each == 0) & (k == 0)
    writes = ~lost & (block < frame.blocks) & ((k == 0) | (value_size > 0))
    dc = jnp.where((k == 0) & ~lost & (jnp.arange(frame.channels) == component), value, dc)
    bit = bit + size + value_size
    short = short | (bit > stop)
    place = jnp.where(writes, 64 * block + at, 64 * frame.blocks)
    k = jnp.where((k == 0) | (value_size > 0), k + run + 1, jnp.where(run == 15, k + 16, 64))
    done = k >= 64
    # What is left of an interval without bits stays zero.
    following = jnp.where(lost, (block // frame.interval + 1) * frame.interval, block + done)
    anew = (following != block) & (following % frame.interval == 0)
    interval = jnp.minimum(following // frame.interval, frame.intervals - 1)
    bit = jnp.where(anew, starts[interval], bit)
    short = jnp.where(anew, short & ~fresh[interval], short)
    dc = jnp.where(anew, 0, dc)
    k = jnp.where(done | lost, 0, k)
    return (bit, following, k, short, dc), place, value
