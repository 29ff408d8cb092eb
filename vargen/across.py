"""Drawing on several devices at once: each draws whole batches by itself, so that the same comes of any number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen import sharding
from vargen.model import Model
from vargen.segments import PICTURE
from vargen.tokenizers import resample


class Across:
    """Draws as many batches at once as there are devices, each of which holds all parameters.

    The program of a device is the same however many there are: nothing of a batch depends on the others.

    Args:
      model: with a generator.
      devices: of this process.
      resize: side in pixels to which images are scaled (bicubic); 0: not.
      **options: as for `Model.generate`.

    Raises:
      UserError: as `Model.sampling`; no generator.
    """

    def __init__(self, model: Model, devices: Sequence[jax.Device], resize: int = 0, **options: Any):
        self._model, self._resize = model, resize
        self._condition = model.needs_generator().condition
        self._samplings = model.samplings(**options)
        mesh = sharding.make_mesh(devices=devices)
        self._own = sharding.batch_sharding(mesh)
        self._params = jax.device_put(model.parameters, sharding.replicated(mesh))
        whole, own = sharding.replicated(mesh).spec, self._own.spec
        specs = dict(in_specs=(whole, own, own, whole), out_specs=own)
        self._draw = jax.jit(jax.shard_map(self._drawn, mesh=mesh, check_vma=False, **specs))

    def _drawn(self, params, labels, keys, samplings):
        """Images [1, B, H, W, C] of labels [1, B] and a key's data [1, ...]: what one device does."""
        generator_params, tokenizer_params = params
        key = jax.random.wrap_key_data(keys[0])
        model, quantizer = self._model, tokenizer_params["quantizer"]
        found = model.decoded(generator_params, quantizer, labels[0], key, samplings)
        content = model.needs_generator().sequence.part(found.content, PICTURE)
        images = model.tokenizer.decode(tokenizer_params, content)
        if self._resize:
            images = resample.bicubic(jnp.clip(images, -1, 1), (self._resize, self._resize))
        return jnp.clip(images, -1, 1)[None]

    def __call__(self, labels: np.ndarray, keys: Sequence[jax.Array]) -> np.ndarray:
        """Images float32 [D, B, H, W, C] in [-1, 1] of classes int [D, B] and D keys.

        Raises:
          UserError: labels out of range.
        """
        flat = self._condition.parse(labels.reshape(-1), self._model.classes)
        parsed = np.asarray(flat).reshape(labels.shape)
        data = np.stack([np.asarray(jax.random.key_data(key)) for key in keys])
        parsed, data = jax.device_put((parsed, data), self._own)
        return np.asarray(self._draw(self._params, parsed, data, self._samplings), np.float32)
