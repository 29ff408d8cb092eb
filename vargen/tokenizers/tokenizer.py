"""The tokenizer axis: what the slots are, and what is in each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from vargen.slots import Grid, Slot


class Tokenizer(Protocol):
    """Images <-> the content of slots. Static configuration; every method is pure.

    Parameters are a dict whose entry `quantizer` is what `latents` needs. A tokenizer of clips takes and gives
    [B, T, H, W, C_image] wherever images are.

    Attributes:
      image_size: (H, W); of clips (T, H, W).
      image_channels: of the images.
      grid: the slots.
      slot: what each holds.
      vocab: K of the codes, also where they have numbers beside them; 0 where the content is latents alone.
      channels: C of the latents.
      trained: whether its parameters, or some of them, come of training by `loss`.
      fitted: whether `fit` gives its parameters, or those that training starts from.
      suffix: of the files that contents are, ".jpg"; "" where they are none.
      downsample: what divides the sides of images that it takes, (down, across); None where it takes one size alone.
      lies: whether slots of a level are patches of the picture, which registers and bytes aren't.
      texts: (T, E) of a caption's states from a text encoder that `decode` can read; None where it reads none.
    """

    @property
    def image_size(self) -> tuple[int, ...]: ...
    @property
    def image_channels(self) -> int: ...
    @property
    def grid(self) -> Grid: ...
    @property
    def slot(self) -> Slot: ...
    @property
    def vocab(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def trained(self) -> bool: ...
    @property
    def fitted(self) -> bool: ...
    @property
    def suffix(self) -> str: ...
    @property
    def downsample(self) -> tuple[int, int] | None: ...
    @property
    def lies(self) -> bool: ...
    @property
    def texts(self) -> tuple[int, int] | None: ...

    def init_boxed(self, key: jax.Array) -> dict:
        """Parameters with logical axis names."""
        ...

    def init(self, key: jax.Array) -> dict:
        """Parameters, a plain tree of float32."""
        ...

    def check_files(self) -> None:
        """Raises UserError unless the files that `fit` reads, if any, are there and are what it needs."""
        ...

    def fit(self, images: Iterable[np.ndarray]) -> dict:
        """The parameters, of batches of images float32 [b, H, W, C_image] in [-1, 1]; where `fitted`."""
        ...

    def sized(self, size: tuple[int, int]) -> Any:
        """The same tokenizer, with the same parameters, over images of (H, W) pixels.

        Raises:
          UserError: it takes no such images.
        """
        ...

    def files(self, params: dict, content: jax.Array) -> list[bytes]:
        """Content as files, one an example; where there is a `suffix`."""
        ...

    def valid(self, params: dict, content: jax.Array) -> jax.Array | None:
        """bool [B]: which contents could be those of an image; None where all could."""
        ...

    def init_stats(self) -> dict:
        """Statistics that training gathers: arrays that are no parameters."""
        ...

    def encode(self, params: dict, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C_image] in [-1, 1] -> content [B, N, *slot.shape]."""
        ...

    def init_quantizer(self, key: jax.Array) -> dict:
        """The entry `quantizer` of the parameters with logical axis names."""
        ...

    def stored(self, params: dict, images: jax.Array) -> jax.Array:
        """What is kept of images [B, H, W, C_image] for the training of a generator: [B, N, ...], see `drawn`."""
        ...

    def drawn(self, qparams: dict, stored: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """What a generator learns of it, drawn anew at each visit where there is something to draw.

        Args:
          qparams: params["quantizer"].
          stored: of `stored`.
          key: PRNG key.

        Returns:
          The content [B, N, *slot.shape]; and None, or the probabilities by which its codes were drawn, float32
          [B, N, *slot.shape, K].
        """
        ...

    def vectors(self, qparams: dict, content: jax.Array) -> jax.Array:
        """The vectors that codes stand for, before any sum or convolution; latents as they are.

        Args:
          qparams: params["quantizer"].
          content: codes int32 [..., *slot.shape].

        Returns:
          float32 [..., *slot.shape, C].
        """
        ...

    def latents(self, qparams: dict, content: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """Content -> float32 [B, h, w, C], what `decode_latents` takes.

        Args:
          qparams: params["quantizer"].
          content: [B, N, *slot.shape].
          known: bool [B, N]: slots that count (a picture half made); None for all.
        """
        ...

    def decode(self, params: dict, content: jax.Array, text: jax.Array | None = None) -> jax.Array:
        """Content -> float32 [B, H, W, C_image], not clipped; `text` float32 [B, T, E] where there are `texts`, whose
        states are zeros without it."""
        ...

    def decode_latents(self, params: dict, latents: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """float32 [B, h, w, C] -> float32 [B, H, W, C_image], not clipped; `known` bool [B, N] as of `latents`."""
        ...

    def loss(
        self,
        params: dict,
        stats: dict,
        images: jax.Array,
        key: jax.Array,
        step: jax.Array,
        settings: Mapping[str, Any],
        *,
        perceptual: Callable[[jax.Array, jax.Array], Mapping[str, jax.Array]] | None = None,
        adversarial: Callable[[jax.Array], jax.Array] | None = None,
        beside: Callable[..., Mapping[str, jax.Array]] | None = None,
    ) -> tuple[jax.Array, tuple[dict, dict, jax.Array]]:
        """The training loss.

        Args:
          params, stats: of `init` and `init_stats`.
          images: [B, H, W, C_image] in [-1, 1].
          key: for sampling latents.
          step: int32 [], when the adversarial part begins.
          settings: weights as of `losses.reconstruction`, adversarial, and adversarial_start, adaptive (all optional);
            and those of `beside`.
          perceptual: (images, reconstruction) -> [B] by the names of their weights; needed where one is not 0.
          adversarial: reconstruction -> [], the generator's side of the discriminator's loss; left out where
            None.
          beside: (params, latents [B, h, w, C], kept, key) -> losses [] by the names of their weights, see
            `vargen.tokenizers.semantic` and `prior`; left out where None.

        Returns:
          loss [], (stats, metrics: dict of scalars, reconstruction [B, H, W, C_image]).
        """
        ...

    def revive(
        self,
        params: dict,
        stats: dict,
        images: jax.Array | None,
        key: jax.Array,
        step: jax.Array | int,
        steps: int,
    ) -> tuple[dict, dict]:
        """What is done to parameters and statistics after each update (jittable).

        Args:
          params, stats: as the update left them.
          images: of the update, [B, H, W, C_image]; None where there are none.
          key: for what is drawn.
          step: int32 [], the update's number, from 1.
          steps: of the whole training.

        Returns:
          params, stats.
        """
        ...


class Leveled:
    """What a tokenizer adds whose levels build an image up, coarse to fine: the state is the image so far.

    Attributes:
      independent: whether a level is of the picture itself, whatever the others hold: levels may be left out (`rows`)
        and replaced by others (`over`).
    """

    independent = False

    def start(self, batch: int) -> jax.Array:
        """The image before the first level: float32 [B, h, w, C]."""
        raise NotImplementedError

    def absorb(self, qparams: dict, state: jax.Array, codes: jax.Array, level: int) -> jax.Array:
        """The image so far with the codes [B, n] of a level."""
        raise NotImplementedError

    def resample(self, state: jax.Array, level: int) -> jax.Array:
        """The image so far as the rows of a level: float32 [B, n, C]."""
        raise NotImplementedError

    def rows(self, qparams: dict, content: jax.Array, before: jax.Array) -> jax.Array:
        """For every slot what reaches it of the level before its own, float32 [B, N, C]; where `independent`.

        Args:
          qparams: params["quantizer"].
          content: [B, N, *slot.shape].
          before: int32 [L]: for each level the one before it.
        """
        raise NotImplementedError

    def over(self, levels: tuple[tuple[int, int], ...]) -> Any:
        """The same tokenizer over other levels, (height, width) of each; where `independent`."""
        raise NotImplementedError
