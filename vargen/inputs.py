"""What a user hands to a model, from Python or in a file, held against what the model takes: a check for each kind.

Values are looked at, which brings arrays of a device to the host; under a trace only shapes and dtypes are.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen import classes as class_names
from vargen import seeds
from vargen.errors import UserError
from vargen.tokenizers.tokenizer import Leveled

# Images are in [-1, 1]; interpolation, and decoders by themselves, overshoot.
BRIGHTEST = 2.0
LARGEST = 1e6  # latents and embeddings are about 1; far beyond, float32 networks overflow
NUMBERS = "biufc"  # kinds of dtype


def array(value: Any, name: str, expected: str) -> np.ndarray | jax.Array:
    """A value as an array of numbers, those of a device as they are.

    Raises:
      UserError: text, objects, rows of different lengths, PRNG keys, None.
    """
    if isinstance(value, jax.Array):
        if jnp.issubdtype(value.dtype, jax.dtypes.extended):
            raise UserError(f"{name}: expected {expected}, found PRNG keys")
        return value
    try:
        found = np.asarray(value)
    except Exception as error:  # whatever a foreign object's conversion raises
        raise UserError(
            f"{name}: expected {expected}, found {type(value).__name__} that makes no array"
        ) from error
    if found.dtype.kind not in NUMBERS and not jnp.issubdtype(
        found.dtype, jnp.floating
    ):  # bfloat16 has kind V
        shown = f"an array of {found.dtype}" if isinstance(value, np.ndarray) else f"{value!r:.80}"
        raise UserError(f"{name}: expected {expected}, found {shown}")
    return found


def images(value: Any, *shape: int) -> jax.Array:
    """Images as a model takes them: float32 [B, H, W, C]; or clips [B, T, H, W, C].

    Args:
      value: floats of any precision in [-1, 1]; up to `BRIGHTEST`, as interpolation overshoots.
      *shape: the model's, of one image.

    Raises:
      UserError: no floats (uint8 among them), another shape, no image, values that aren't finite or lie beyond.
    """
    wanted = f"float [B, {', '.join(map(str, shape))}] in [-1, 1]"
    found = array(value, "images", wanted)
    if found.dtype.kind in "iu":
        raise UserError(f"images: expected {wanted}, found {found.dtype}; data.to_float makes that of uint8")
    _shape("images", wanted, found, shape)
    finite("images", wanted, found, BRIGHTEST, "; data.to_float makes that of 0 to 255")
    return jnp.asarray(found, jnp.float32)


def content(value: Any, tokenizer: Any, name: str = "") -> jax.Array:
    """What a tokenizer decodes: codes int32 [B, N] or [B, N, Q], or latents float32 [B, N, C] or [B, N, 1 + C].

    Args:
      value: what the tokenizer's slots hold: whole numbers below its `vocab`, or floats.
      tokenizer: the model's.
      name: what it is called in messages.

    Raises:
      UserError: another dtype or shape, nothing at all, codes out of range, latents that aren't finite.
    """
    slot = tokenizer.slot
    name = name or slot.kind
    shape, wanted = slots(tokenizer)
    found = array(value, name, wanted)
    dtype(found.dtype, tokenizer, name)
    _shape(name, wanted, found, shape)
    if not slot.vocab:
        finite(name, wanted, found)
        if slot.coded:
            _below(slot.coded, found[..., 0], name, wanted)
        return jnp.asarray(found, jnp.float32)
    _below(slot.vocab, found, name, wanted)
    return jnp.asarray(found).astype(jnp.int32)


def _below(vocab: int, found: Any, name: str, wanted: str) -> None:
    """Raises UserError where values, unless traced, are no whole numbers from 0 to `vocab` - 1."""
    if not isinstance(found, jax.core.Tracer):
        values = np.asarray(found)
        outside = values[(values < 0) | (values >= vocab) | (values % 1 != 0)]
        if outside.size:
            raise UserError(f"{name}: expected {wanted}, found {outside[0]}")


def text(value: Any, tokenizer: Any, count: int) -> jax.Array | None:
    """Captions as a tokenizer's decoder reads them: a text encoder's states float32 [B, T, E]; None stays None.

    Args:
      value: floats, or None for none.
      tokenizer: the model's.
      count: B.

    Raises:
      UserError: a decoder that reads none, another dtype or shape, states that aren't finite.
    """
    if value is None:
        return None
    if tokenizer.texts is None:
        raise UserError("text: expected none, as this tokenizer's decoder reads no captions, found some")
    shape = (count, *tokenizer.texts)
    wanted = f"floats [{', '.join(map(str, shape))}], a text encoder's states"
    found = array(value, "text", wanted)
    if found.shape != shape:
        raise UserError(f"text: expected {wanted}, found an array {list(found.shape)}")
    finite("text", wanted, found)
    return jnp.asarray(found, jnp.float32)


def slots(tokenizer: Any) -> tuple[tuple[int, ...], str]:
    """The shape of one example's content, and the whole in words."""
    slot = tokenizer.slot
    shape = (tokenizer.grid.size, *slot.shape)
    sizes = ", ".join(map(str, shape))
    if slot.vocab:
        return shape, f"whole numbers [B, {sizes}] from 0 to {slot.vocab - 1}"
    beside = f", the first of each slot a whole number from 0 to {slot.coded - 1}" if slot.coded else ""
    return shape, f"floats [B, {sizes}]{beside}"


def kept(value: Any, tokenizer: Any, name: str = "kept") -> tuple[np.ndarray, np.ndarray]:
    """Which pixels stay, bool [H, W], and which slots lie in them with all of their pixels, bool [N].

    Args:
      value: bools, or 0 and 1; or one whole number: of how many levels, the first ones, all slots stay.
      tokenizer: the model's.
      name: what it is called in messages.

    Raises:
      UserError: another shape or other values, a tokenizer whose slots are no patches of a picture, no such number of
        levels, no slot that stays, or none that doesn't.
    """
    size, levels = tokenizer.image_size, tokenizer.grid.levels
    if len(size) > 2:
        raise UserError(
            f"{name}: expected a tokenizer of pictures, of which parts are kept, found one of clips"
        )
    wanted = f"bool [{size[0]}, {size[1]}], the pixels that stay"
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        if len(levels) == 1:
            raise UserError(
                f"{name}: expected a part of the picture, as there is one level, found {value} of them"
            )
        count = whole(value, name, 1, len(levels) - 1)
        return np.ones(size, bool), tokenizer.grid.coords[:, 0] < count
    found = np.asarray(array(value, name, wanted))
    if found.shape != tuple(size) or not np.isin(found, (0, 1)).all():
        shown = f"an array {list(found.shape)}" if found.shape != tuple(size) else "other values than 0 and 1"
        raise UserError(f"{name}: expected {wanted}, found {shown}")
    lie = tokenizer.lies and (len(levels) == 1 or isinstance(tokenizer, Leveled))
    patches = lie and tokenizer.grid.frames == 1 and tokenizer.slot.stop is None
    if not patches or any(s % n for s, n in zip(size, levels[-1], strict=True)):
        raise UserError(
            f"{name}: expected a tokenizer whose slots are patches of the image, found levels of {list(levels)}"
        )
    found = found.astype(bool)
    rows, columns = (s / n for s, n in zip(size, levels[-1], strict=True))
    known = np.concatenate([_inside(found, level) for level in levels])
    if not known.any():
        raise UserError(f"{name}: expected at least a patch of {rows:g}x{columns:g} pixels, found none")
    if known.all():
        raise UserError(f"{name}: expected a part that is drawn anew, found that all stays")
    return found, known


def _inside(pixels: np.ndarray, level: tuple[int, int]) -> np.ndarray:
    """bool [n]: which slots of a level, spread over pixels bool [H, W], lie in them with all that they touch."""
    (height, width), (h, w) = pixels.shape, level
    return np.array(
        [
            pixels[
                i * height // h : -(-(i + 1) * height // h), j * width // w : -(-(j + 1) * width // w)
            ].all()
            for i in range(h)
            for j in range(w)
        ]
    )


def dtype(found: Any, tokenizer: Any, name: str) -> None:
    """Checks the dtype of content.

    Raises:
      UserError: no whole numbers for codes, no floats for latents.
    """
    if not (found.kind in "iu" if tokenizer.slot.vocab else jnp.issubdtype(found, jnp.floating)):
        raise UserError(f"{name}: expected {slots(tokenizer)[1]}, found {found}")


def labels(value: Any, classes: int, names: Sequence[str] = ()) -> np.ndarray:
    """Labels of classes: int32 [B]; one whole number is a batch of one.

    Args:
      value: whole numbers from 0 to `classes` - 1, or names of classes, one or a list; None in a list for no label.
      classes: the model's number of classes, which stands for no label in the result.
      names: of the classes.

    Raises:
      UserError: nothing, other than whole numbers (bools among them), more than one axis, out of range, no such name.
    """
    wanted = f"0 to {classes - 1}"
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        value = value.tolist()
    if isinstance(value, str):
        value = [value]
    if isinstance(value, (list, tuple)) and any(x is None or isinstance(x, str) for x in value):
        return np.concatenate([_label(x, classes, names) for x in value])
    found = array(value, "class", f"whole numbers from {wanted}")
    if found.size == 0:
        raise UserError(f"class: expected at least one label from {wanted}, found none")
    if found.dtype.kind not in "iu":
        shown = f"{np.asarray(found).reshape(-1)[0]} ({found.dtype})"
        raise UserError(f"class: expected whole numbers from {wanted}, found {shown}")
    if found.ndim > 1:
        raise UserError(f"class: expected labels [B] from {wanted}, found an array {list(found.shape)}")
    values = np.atleast_1d(np.asarray(found))
    outside = values[(values < 0) | (values >= classes)]
    if outside.size:
        raise UserError(f"class: expected {wanted}, found {outside[0]}")
    return values.astype(np.int32)


def _label(value: Any, classes: int, names: Sequence[str]) -> np.ndarray:
    if value is None:
        return np.array([classes], np.int32)
    if isinstance(value, str):
        value = class_names.place(value, names or [str(i) for i in range(classes)])
    elif np.ndim(value):
        raise UserError(f"class: expected labels [B] from 0 to {classes - 1}, found {value!r:.80} among them")
    return labels(value, classes)


def key(value: Any) -> jax.Array:
    """A PRNG key from a seed or a key of either of JAX's kinds.

    Args:
      value: a whole number from 0 to 2^64 - 1, a typed key, or one of `jax.random.PRNGKey` (uint32 [2]).

    Raises:
      UserError: anything else: other numbers, several keys.
    """
    if isinstance(value, (jax.Array, np.ndarray)):
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            if value.ndim:
                raise UserError(f"key: expected one PRNG key, found an array {list(value.shape)} of them")
            return value
        raw = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
        if value.ndim and (value.shape != raw.shape or value.dtype != raw.dtype):
            found = f"{value.dtype} {list(value.shape)}"
            raise UserError(f"key: expected a seed or one PRNG key, found an array of {found}")
        if value.ndim:
            return jax.random.wrap_key_data(jnp.asarray(value))
    return seeds.key(value, "key")


def whole(value: Any, name: str, low: int, high: float = math.inf) -> int:
    """A whole number, of Python's or NumPy's, from `low` to `high`.

    Raises:
      UserError: anything else.
    """
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not low <= number <= high:
        limits = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
        raise UserError(f"{name}: expected a whole number {limits}, found {value!r:.80}")
    return number


def finite(name: str, wanted: str, found: Any, most: float = LARGEST, hint: str = "") -> None:
    """Checks that an array holds finite floats of at most `most`, either way.

    Raises:
      UserError: it does not.
    """
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise UserError(f"{name}: expected {wanted}, found {found.dtype}")
    if isinstance(found, jax.core.Tracer):
        return
    values = np.asarray(found)
    low, high = float(values.min()), float(values.max())  # nan where there is one
    if not (math.isfinite(low) and math.isfinite(high)):
        wrong = next(x for x in (low, high) if not math.isfinite(x))
        raise UserError(f"{name}: expected {wanted}, found {wrong}")
    if max(-low, high) > most:
        raise UserError(f"{name}: expected {wanted}, found {low:g} to {high:g}{hint}")


def _shape(name: str, wanted: str, found: Any, shape: tuple[int, ...]) -> None:
    if found.shape[1:] != shape or found.ndim != len(shape) + 1:
        raise UserError(f"{name}: expected {wanted}, found an array {list(found.shape)}")
    if not found.shape[0]:
        raise UserError(f"{name}: expected {wanted}, found none: {list(found.shape)}")
