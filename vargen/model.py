"""A trained model, ready for use from Python and by the commands."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vargen import flops, inputs, limits, malloc, schema, tiles
from vargen.data import pipeline
from vargen.errors import UserError
from vargen.generator import Generator
from vargen.models import build_generator, build_tokenizer, count_text, sampled
from vargen.orders import Order
from vargen.samplers import Sampling, check_ahead, decode, likelihood
from vargen.samplers.call import Decoded
from vargen.segments import PICTURE
from vargen.weights import Weights

CHECKED = 64  # settings that are remembered to be right
# Pixels that a CPU decodes together: more take more memory, and longer, as they leave the cache.
PIXELS = 256 * 256


class Drawn(NamedTuple):
    """What came of `Model.drawn`.

    Attributes:
      content: codes int32 [B, N] or [B, N, Q], or latents float32 [B, N, C].
      order: in which it came.
      passes: int32 [B]: passes through the blocks until each example was done; of several sizes those of all.
    """

    content: jax.Array
    order: Order
    passes: jax.Array


class Model:
    """A trained tokenizer and generator, ready for use; what `vargen.load` returns. Those of clips take and give
    [B, T, H, W, C] wherever images are.

    Arguments may be anything that NumPy makes an array of, or arrays of a device; their values are checked (see
    `vargen.inputs`), for which those of a device come to the host. `UserError`, a `ValueError`, says what is wrong.

    Attributes:
      config: the config that it was trained with.
      tokenizer, tokenizer_params: the pure functions, and their parameters.
      generator, generator_params: likewise; None where only a tokenizer was trained. Parameters may be given as
        `Weights`, which say what decoding holds them in.
      whole: the generator over all slots that it was trained on.
      classes: names of the classes, by their numbers.
      steps: updates that the tokenizer and the generator were trained for, where that is known.
    """

    def __init__(
        self, config, tokenizer_params, generator_params=None, classes=None, steps=(0, 0), image_size=()
    ):
        malloc.give_back_after_compiling()
        self.config = config
        tokenizer = build_tokenizer(config)
        self._weights = (
            generator_params if isinstance(generator_params, Weights) else Weights(generator_params)
        )
        self.whole = None if self.generator_params is None else build_generator(config, tokenizer)
        self.tokenizer, self.generator = sampled(config, tokenizer, self.whole)
        self._image_size = image_size
        if image_size:  # of a tokenizer alone, see `sized`
            self.tokenizer = self.tokenizer.sized(tuple(image_size))
        self.classes = list(classes) if classes else [str(i) for i in range(config.data.num_classes)]
        self.steps = steps
        self.tokenizer_params = tokenizer_params
        levels = config.sampling.get("levels", ())
        # Where a picture is of one level, each is drawn around the smaller one before.
        several = len(levels) > len(self.tokenizer.grid.levels)
        self._smaller = self.over(levels[:-1]) if several and self.whole is not None else None
        self._encode = jax.jit(self.tokenizer.encode)
        self._decode = jax.jit(
            lambda params, content, text=None: _image(_pictures(self.tokenizer, params, content, text))
        )
        self._valid = jax.jit(self.tokenizer.valid)
        self._decode_known = jax.jit(
            lambda params, content, known: _image(
                self.tokenizer.decode_latents(
                    params, self.tokenizer.latents(params["quantizer"], content, known), known
                )
            )
        )
        if self.generator is not None:
            self._generate = jax.jit(self.decoded)
            self._complete = jax.jit(self._completed, static_argnums=(6, 7))
            self._describe = jax.jit(self._described)
            self._log_likelihood = jax.jit(self.generator.log_likelihood)
            self._in_drawn_order = jax.jit(
                functools.partial(likelihood.in_drawn_order, self.generator), static_argnames="steps"
            )
            self._check_ahead = functools.lru_cache(CHECKED)(self._checked)

    @property
    def generator_params(self) -> Any:
        """The generator's parameters as they were given; on the host where decoding reads them in another form."""
        return self._weights.given

    @property
    def weights(self) -> str:
        """What decoding reads them in, see `vargen.load`."""
        return self._weights.form

    @functools.cached_property
    def _ready(self) -> Any:
        return self._weights.ready(self.needs_generator())

    @property
    def parameters(self) -> tuple[Any, Any]:
        """The generator's parameters as decoding reads them, and the tokenizer's."""
        return self._ready, self.tokenizer_params

    def with_config(self, config) -> Model:
        """The same parameters under another config (another compute dtype, other sampling settings)."""
        return Model(config, self.tokenizer_params, self._weights, self.classes, self.steps, self._image_size)

    def over(self, levels) -> Model:
        """The same parameters, drawing other levels than they were trained on, and so in another number of steps.

        The last level tells the size of the images, by the pixels that a slot has: others than were trained, and other
        aspect ratios, will do. Where a picture is of one level, several are sizes of the whole, each twice the one
        before, whose contents stand at its even places (RandAR, official code). `config.sampling.levels` is what a
        model begins with.

        Args:
          levels: sides, or (height, width) pairs, coarse to fine; none: those trained.

        Raises:
          UserError: no such levels, a tokenizer whose levels aren't independent, or whose images have one size.
        """
        levels = tuple(tuple(x) if isinstance(x, list) else x for x in levels)
        if levels == self.config.sampling.get("levels", ()):
            return self
        return self._drawing(levels=levels)

    def first(self, tokens: int) -> Model:
        """The same parameters, drawing the first so many tokens alone, which are a picture by themselves.

        `config.sampling.tokens` is what a model begins with.

        Args:
          tokens: how many; 0 for all.

        Raises:
          UserError: no such number, or tokens that aren't nested.
        """
        if tokens == self.config.sampling.get("tokens", 0):
            return self
        return self._drawing(tokens=tokens)

    def _drawing(self, **fields) -> Model:
        """The same parameters under other fields of `config.sampling`."""
        limits.check(limits.fields(schema.Sampling), fields, "sampling.")
        config = self.config.copy_and_resolve_references()
        with config.sampling.unlocked():
            config.sampling.update(fields)
        return self.with_config(config)

    def sized(self, height: int, width: int) -> Model:
        """The tokenizer alone, with the same parameters, over images of other sizes than it was trained on.

        Args:
          height, width: pixels, which its downsampling divides.

        Raises:
          UserError: no such sizes, or a tokenizer that takes one size alone; `tiled` takes larger images then.
        """
        size = inputs.whole(height, "height", 1), inputs.whole(width, "width", 1)
        return Model(self.config, self.tokenizer_params, None, self.classes, self.steps, size)

    def tiled(self, images, tile=None, overlap=None) -> np.ndarray:
        """Large images through the tokenizer and back in overlapping tiles, blended: float32 [B, H, W, C], on the host.

        Args:
          images: float [B, H, W, C] in [-1, 1], each side at least a tile's.
          tile: pixels of a tile's side, or (height, width); None: the tokenizer's own image size.
          overlap: pixels that neighbours share at least; None: a quarter of a tile, see `vargen.tiles`.

        Raises:
          UserError: as `sized` and `encode`; images smaller than a tile, an overlap that leaves nothing of one.
        """
        if len(self.tokenizer.image_size) > 2:
            raise UserError("images: expected a tokenizer of pictures for tiles, found one of clips")
        height, width = self.tokenizer.image_size if tile is None else np.broadcast_to(tile, 2).tolist()
        shared = None
        if overlap is not None:
            shared = (inputs.whole(overlap, "overlap", 0, min(height, width) - 1),) * 2
        at = self if (height, width) == self.tokenizer.image_size else self.sized(height, width)
        channels = self.tokenizer.image_channels
        found = np.asarray(inputs.array(images, "images", f"float [B, H, W, {channels}] in [-1, 1]"))
        checked = inputs.images(found, *found.shape[1:3], channels) if found.ndim == 4 else at.encode(found)

        def through(some):  # in groups of one shape
            together = max(PIXELS // (height * width), 1)
            return pipeline.in_batches(at.reconstruct, some, together)

        return np.stack(
            [tiles.through(through, image, (height, width), shared) for image in np.asarray(checked)]
        )

    def __repr__(self) -> str:
        """What it is, in a few words: system, data, slots, parameters."""
        c, t = self.config, self.tokenizer
        size = "x".join(map(str, (*t.image_size, t.image_channels)))
        counts = [f"tokenizer {_count(self.tokenizer_params)}"]
        if self.generator is not None:
            counts.append(f"generator {_count(self.generator_params)}")
        shown = ", ".join(self.classes[:3]) + (", ..." if len(self.classes) > 3 else "")
        return (
            f"<vargen.Model {c.name}: images {size}, {t.grid.size} slots of {t.slot}, {len(self.classes)} classes "
            f"({shown}), parameters: {', '.join(counts)}>"
        )

    def encode(self, images) -> jax.Array:
        """Images float [B, H, W, C] in [-1, 1] -> codes int32 [B, N] or [B, N, Q], or latents float32 [B, N, C].

        Raises:
          UserError: images of whole numbers, of 0 to 255, of another shape, none, not finite, or beyond
            `inputs.BRIGHTEST`.
        """
        return self._encode(self.tokenizer_params, self._images(images))

    def decode(self, content, text=None) -> jax.Array:
        """Codes int [B, N] or [B, N, Q], or latents float [B, N, C] -> images float32 [B, H, W, C] in [-1, 1].

        Args:
          content: see above.
          text: of tokenizers whose decoder reads captions (`tokenizer.texts`), a text encoder's states, float
            [B, T, E]; None: zeros in their place.

        Raises:
          UserError: another dtype or shape, none, codes out of range, latents or states that aren't finite, states for
            a decoder that reads none.
        """
        content = inputs.content(content, self.tokenizer)
        return self._decode(self.tokenizer_params, content, inputs.text(text, self.tokenizer, len(content)))

    def valid(self, content) -> jax.Array | None:
        """bool [B]: which contents could be those of an image (bytes that make a file); None where all could.

        Raises:
          UserError: as `decode`.
        """
        return self._valid(self.tokenizer_params, inputs.content(content, self.tokenizer))

    def files(self, content) -> list[bytes]:
        """Contents as files of `tokenizer.suffix`, one an example; none where contents are no files.

        Raises:
          UserError: as `decode`.
        """
        return self.tokenizer.files(self.tokenizer_params, inputs.content(content, self.tokenizer))

    def reconstruct(self, images, text=None) -> jax.Array:
        """Images through the tokenizer and back: float [B, H, W, C] -> float32 of the same shape.

        Args:
          images: as for `encode`.
          text: as for `decode`.

        Raises:
          UserError: as `encode` and `decode`.
        """
        content = self.encode(images)
        return self._decode(self.tokenizer_params, content, inputs.text(text, self.tokenizer, len(content)))

    def sampling(self, **options) -> Sampling:
        """The config's sampling settings with some replaced (those that are not None), held against the generator.

        Raises:
          UserError: an unknown setting, a value out of range, or one that the generator can't take: steps, filters,
            guidance, a policy; see `samplers.check_ahead`.
        """
        for name, method in (("levels", "over(levels)"), ("tokens", "first(tokens)")):
            if options.get(name):
                raise UserError(
                    f"sampling.{name}: expected Model.{method}, which then draws them, found an option"
                )
        sampling = Sampling.make(**self._replaced(options))
        if self.generator is not None:
            self._check_ahead(sampling)
            if sampling.spatial and not (
                self._smaller and self.generator.feed.hides and self.generator.head.enumerable
            ):
                raise UserError(
                    "sampling.spatial_guidance: expected 1 but for several levels of whole pictures, the feed instruct "
                    f"and a head of one code, found {sampling.spatial_guidance:g}"
                )
        if self._smaller is not None:
            self._smaller.sampling(**self._of_smaller(options))
        return sampling

    def _replaced(self, options) -> dict[str, Any]:
        return {**self.config.sampling, **{k: v for k, v in options.items() if v is not None}}

    def _of_smaller(self, options) -> dict[str, Any]:
        """All settings for the smaller one, which may have none by which to guide."""
        options = {k: v for k, v in self._replaced(options).items() if k != "levels"}
        return options | dict(spatial_guidance=1.0) if self._smaller._smaller is None else options

    def _checked(
        self, sampling: Sampling, slots: tuple[bool, ...] = (), how: str = "given", name: str = "given slots"
    ) -> None:
        """`samplers.check_ahead` with slots [n] of the picture that are "given" or "kept", called `name` in messages.

        Raises:
          UserError: what that raises.
        """
        known = {how: self.generator.known(np.array(slots))} if slots else {}
        try:
            check_ahead(self.generator, sampling, **known)
        except ValueError as error:
            found = str(error)
            of_slots = found.removeprefix("given slots")
            raise UserError(found if of_slots == found else name + of_slots) from error

    def generate(self, labels, key, **options):
        """Contents for labels int32 [B], and the order in which they came.

        Args:
          labels: [B], whole numbers from 0 to the number of classes - 1, names of classes (`self.classes`), in a list
            also None for no label; one alone is a batch of one. Where the model takes texts these, one or a list; for
            captions of a text encoder their embeddings float [B, T, E] and mask [B, T].
          key: a seed from 0 to 2^64 - 1, or a PRNG key.
          **options: as in `Sampling`: guidance, temperature, top_k, top_p, steps, ...

        Returns:
          Codes int32 [B, N] or [B, N, Q], or latents float32 [B, N, C], and an `Order`.

        Raises:
          UserError: no generator here; labels that are neither whole numbers nor names, have more than one axis or are
            out of range; no such seed or key; an option that is unknown or out of range.
        """
        content, order, _ = self.drawn(labels, key, **options)
        return content, order

    def drawn(self, labels, key, **options) -> Drawn:
        """As `generate`, with the passes that it took."""
        generator = self.needs_generator()
        samplings, key = self.samplings(**options), inputs.key(key)
        quantizer, parsed = self.tokenizer_params["quantizer"], self._labels(generator, labels)
        found = self._generate(self._ready, quantizer, parsed, key, samplings)
        return Drawn(*generator.picture(found.content, found.order), found.passes)

    def sampling_flops(self, batch: int = 1, **options) -> float | None:
        """FLOPs of the products that drawing one of `batch` images takes, the decoder's among them; nothing is drawn.

        None where the number of passes depends on what is drawn (the policy jacobi).

        Raises:
          UserError: as `generate`.
        """
        batch, t = inputs.whole(batch, "batch", 1), self.tokenizer
        generator, samplings = self.needs_generator(), self.samplings(**options)
        if samplings[0].policy != "scheduled":
            return None
        labels = jax.tree.map(lambda x: jnp.repeat(x[:1], batch, axis=0), generator.condition.example())
        args = (self._ready, self.tokenizer_params["quantizer"], labels, inputs.key(0), samplings)
        content = t.slot.zeros(batch, t.grid.size)
        traces = (
            jax.make_jaxpr(self._generate)(*args),
            jax.make_jaxpr(self._decode)(self.tokenizer_params, content),
        )
        return sum(flops.products(trace.jaxpr) for trace in traces) / batch

    def samplings(self, **options) -> tuple[Sampling, ...]:
        """`sampling`, and where a picture is drawn around smaller ones those of these, from large to small."""
        smaller = () if self._smaller is None else self._smaller.samplings(**self._of_smaller(options))
        return (self.sampling(**options), *smaller)

    def decoded(self, params, quantizer, labels, key, samplings: tuple[Sampling, ...]) -> Decoded:
        """`samplers.decode` of labels as conditions take them, by `samplings`; a pure function, nothing is checked."""
        if self._smaller is None:
            return decode(self.generator, params, quantizer, labels, key, samplings[0])
        found = self._smaller.decoded(params, quantizer, labels, key, samplings[1:])
        small = self.generator.sequence.part(found.content, PICTURE)
        large = self._enlarged(params, quantizer, labels, key, samplings[0], small)
        return large._replace(passes=large.passes + found.passes)

    def _enlarged(self, params, quantizer, labels, key, sampling, small):
        """`Decoded` around the content [B, N / 4, ...] of a picture of half the size."""
        even, unseen = self.tokenizer.grid.even, None
        content = self.tokenizer.slot.zeros(len(small), even.size).at[:, even].set(small)
        key, key_unseen = jax.random.split(jax.random.fold_in(key, even.size))
        if sampling.spatial:
            chance = jax.random.uniform(key_unseen, small.shape[:2])
            rank = jnp.argsort(jnp.argsort(chance, axis=1), axis=1)
            unseen = (
                jnp.zeros(content.shape, bool)
                .at[:, even]
                .set(rank < int(sampling.spatial_share * small.shape[1]))
            )
        given = (content, even)
        return decode(self.generator, params, quantizer, labels, key, sampling, given, unseen=unseen)

    def sample(self, labels, key, **options) -> jax.Array:
        """Images float32 [B, H, W, C] in [-1, 1], for labels [B]; arguments and errors as for `generate`."""
        return self._decode(self.tokenizer_params, self.generate(labels, key, **options)[0])

    def complete(self, images, kept, labels, key, **options) -> jax.Array:
        """Images with what isn't kept drawn anew (in- and outpainting): float32 [B, H, W, C] in [-1, 1].

        A slot is known where all of its pixels are kept; the others are drawn, after the known ones, so that any kept
        part will do where the order is random; in raster order it must come first. Levels keep any part too, each when
        its step comes: whole where they are pictures of their own; where they add up, as far as slots that lie across
        the part let them. What isn't kept of the images plays no role. All of the result comes through the tokenizer.

        Args:
          images: float [B, H, W, C] in [-1, 1].
          kept: bool [H, W], pixels that stay; or a number of levels, the coarsest, which stay whole; not all of them.
          labels, key, **options: as for `generate`, a label for each image.

        Raises:
          UserError: as `encode`, `generate` and `kept`; labels other than one for each image.
        """
        return self._decode(self.tokenizer_params, self.redrawn(images, kept, labels, key, **options))

    def redrawn(self, images, kept, labels, key, **options) -> jax.Array:
        """The content of `complete`'s images, as of `encode`; arguments and errors are its.

        In slots that `kept` says stay it is, to the bit, that of the images with 0 (grey) in the place of what isn't
        kept. It isn't that of the whole images: encoders look beyond a slot's own patch, and codes of these would tell
        of what was taken away. Of a number of levels all pixels stay, and it is that of the whole images.
        """
        generator, images = self.needs_generator(), self._images(images)
        sampling, key = self.sampling(**options), inputs.key(key)
        labels = self._labels(generator, labels)
        pixels, slots, how = self.kept(kept, **options)
        self._one_for_each(labels, images, "images")
        content = self._encode(self.tokenizer_params, jnp.where(pixels[..., None], images, 0.0))
        return self._around(content, slots, labels, key, sampling, how)

    def kept(self, kept, name: str = "kept", **options) -> tuple[np.ndarray, np.ndarray, str]:
        """What stays in `complete`, held against the model; nothing is drawn.

        Args:
          kept, **options: as for `complete`.
          name: what the former is called in messages.

        Returns:
          The pixels, bool [H, W], and slots, bool [N], that stay; and whether these are "given" or "kept", as `decode`
          has it.

        Raises:
          UserError: as `sampling`; slots that are no patches; no such pixels or levels; nothing kept, or all; a part
            that the order can't begin with.
        """
        sampling = self.sampling(**options)
        pixels, slots = inputs.kept(kept, self.tokenizer, name)
        how = "kept" if len(self.tokenizer.grid.levels) > 1 and np.ndim(kept) else "given"
        self._check_ahead(sampling, tuple(slots.tolist()), how, name)
        return pixels, slots, how

    def describe(self, images, key=0, temperature: float = 0.0) -> list[str]:
        """What pictures show, in words, by a generator that writes words too: a text for each.

        Args:
          images: float [B, H, W, C] in [-1, 1].
          key: as for `generate`.
          temperature: 0 takes the likeliest word each time, 1 draws.

        Raises:
          UserError: as `encode`; a generator that writes none, or whose texts are numbers.
        """
        generator, images = self.needs_words(), self._images(images)
        sampling = Sampling.make(temperature=temperature)
        content = self._encode(self.tokenizer_params, images)
        quantizer = self.tokenizer_params["quantizer"]
        found = self._describe(self._ready, quantizer, content, inputs.key(key), sampling)
        return generator.condition.texts(found)

    def _described(self, params, quantizer, content, key, sampling) -> jax.Array:
        """The content of the condition's segment, drawn after the picture's."""
        generator = self.generator
        none = jax.tree.map(lambda x: jnp.repeat(x, len(content), axis=0), generator.condition.example())
        given = generator.sequence.join({PICTURE: content}), generator.sequence.known(PICTURE)
        found = decode(generator, params, quantizer, none, key, sampling, given)
        return generator.sequence.part(found.content, generator.condition.segment.name)

    def continued(self, content, count: int, labels, key, **options) -> jax.Array:
        """Contents whose first slots stay and whose others are drawn anew: a prefix of bytes, the top of a picture.

        Args:
          content: as `decode` takes it; what it holds behind the first slots plays no role.
          count: how many slots stay, of every example; in the canonical layout, which the order must begin with.
          labels, key, **options: as for `generate`, a label for each content.

        Returns:
          Codes int32 [B, N] or latents float32 [B, N, C].

        Raises:
          UserError: as `decode` and `generate`; no such number of slots, or one that the order can't begin with; labels
            other than one for each of the contents.
        """
        generator, content = self.needs_generator(), inputs.content(content, self.tokenizer)
        count = inputs.whole(count, "count", 1, content.shape[1])
        sampling, key = self.sampling(**options), inputs.key(key)
        labels = self._labels(generator, labels)
        self._one_for_each(labels, content, "contents")
        known = np.arange(content.shape[1]) < count
        self._check_ahead(sampling, tuple(known.tolist()), "given", "count")
        return self._around(content, known, labels, key, sampling, "given")

    def _around(self, content, known, labels, key, sampling, how: str) -> jax.Array:
        """A picture's content with what is known [N] of it, which is "given" or "kept" as `decode` has it."""
        quantizer, known = self.tokenizer_params["quantizer"], tuple(known.tolist())
        found = self._complete(self._ready, quantizer, labels, key, sampling, content, known, how)
        return self.needs_generator().picture(found.content, found.order)[0]

    def _completed(self, params, quantizer, labels, key, sampling, content, known, how):
        known = self.generator.kept(content, labels, np.array(known))
        return decode(self.generator, params, quantizer, labels, key, sampling, **{how: known})

    def _one_for_each(self, labels, items, what: str) -> None:
        if (count := len(jax.tree.leaves(labels)[0])) != len(items):
            raise UserError(f"labels: expected {len(items)}, one for each of the {what}, found {count}")

    def sample_steps(self, labels, key, pictures: int = 10, **options) -> jax.Array:
        """The images as they grow, see `growth`; arguments and errors as for `generate` and `growth`."""
        pictures = inputs.whole(pictures, "pictures", 1)
        return self._growth(*self.generate(labels, key, **options), pictures)

    def growth(self, content, order, pictures: int = 10, chosen=None) -> jax.Array:
        """Images as they grow: float32 [P, B, H, W, C], the last one finished.

        Args:
          content, order: what `generate` gave.
          pictures: the most pictures, at least 1; evenly spaced where there are more steps.
          chosen: int [b], of which examples; None: of all.

        Raises:
          UserError: content that `decode` doesn't take, an order of other content, no such picture or example.
        """
        content = inputs.content(content, self.tokenizer)
        slots, steps = (np.shape(getattr(order, name, None)) for name in ("slots", "steps"))
        if slots not in ((content.shape[1],), content.shape[:2]) or steps != (content.shape[1],):
            raise UserError(
                f"order: expected that of the content, {content.shape[1]} slots, found {order!r:.80}"
            )
        if chosen is not None:
            chosen = [inputs.whole(i, "chosen", 0, len(content) - 1) for i in np.atleast_1d(chosen)]
        return self._growth(content, order, inputs.whole(pictures, "pictures", 1), chosen)

    def _growth(self, content, order, pictures, chosen=None):
        steps = np.asarray(order.steps)
        count = int(steps[-1]) + 1
        shown = np.unique(np.linspace(0, count - 1, min(pictures, count)).round().astype(int))
        slots = jnp.broadcast_to(jnp.asarray(order.slots), content.shape[:2])
        if chosen is not None:
            chosen = np.asarray(chosen, np.int32)
            content, slots = content[chosen], slots[chosen]
        step_of = jax.vmap(lambda s: jnp.zeros(len(steps), jnp.int32).at[s].set(steps))(slots)
        return jnp.stack([self._decode_known(self.tokenizer_params, content, step_of <= s) for s in shown])

    @property
    def likelihood(self) -> tuple[str, str]:
        """What `log_likelihood` is: "exact", "bound" or "none", and why; see `samplers.likelihood.kind`.

        Raises:
          UserError: no generator here.
        """
        return likelihood.kind(self.needs_generator())

    def log_likelihood(self, content, labels, key=None) -> jax.Array:
        """float32 [B], nats: log p(codes int [B, N] or [B, N, Q] | labels int [B]).

        Args:
          content, labels: a label for each of the codes.
          key: as for `generate`, of models whose order is drawn: the result is log p(codes | labels, order) in an order
            drawn for each example, by `config.sampling.steps`; its mean over keys is at most log p(codes | labels).

        Raises:
          UserError: no generator here, or one without an explicit likelihood; codes that `decode` doesn't take, labels
            that `generate` doesn't take, or other than one for each of the codes; an order that is drawn, and no key.
        """
        generator = self.needs_generator()
        content, labels = inputs.content(content, self.tokenizer), self._labels(generator, labels)
        self._one_for_each(labels, content, "codes")
        args = (self._ready, self.tokenizer_params["quantizer"], content, labels)
        try:
            if key is None or self.likelihood[0] == likelihood.EXACT:
                return self._log_likelihood(*args)
            return self._in_drawn_order(*args, inputs.key(key), steps=self.sampling().steps)
        except ValueError as error:
            raise UserError(str(error)) from error

    def _images(self, images) -> jax.Array:
        return inputs.images(images, *self.tokenizer.image_size, self.tokenizer.image_channels)

    def _labels(self, generator, labels):
        return jax.tree.map(jnp.asarray, generator.condition.parse(labels, self.classes))

    def needs_generator(self) -> Generator:
        """The generator.

        Raises:
          UserError: there is none.
        """
        if self.generator is None:
            raise UserError("model: expected a trained generator, found a tokenizer alone")
        return self.generator

    def needs_words(self) -> Generator:
        """The generator, which writes words.

        Raises:
          UserError: there is none, or none that does.
        """
        generator = self.needs_generator()
        if not generator.condition.writes:
            numbers = "" if generator.condition.segment is None else ", whose captions are numbers"
            raise UserError(
                "captions: expected a generator that writes words, found conditioning "
                f"{self.config.conditioning.name}{numbers}"
            )
        return generator


def _pictures(tokenizer, params, content, text=None) -> jax.Array:
    """`tokenizer.decode`; on a CPU of as many pictures at a time as `PIXELS` holds."""
    batch, most = len(content), max(PIXELS // math.prod(tokenizer.image_size), 1)
    together = max(n for n in range(1, batch + 1) if batch % n == 0 and n <= most)

    def at_once(params, given):
        return tokenizer.decode(params, *given)

    def in_turn(params, given):
        turns = jax.tree.map(lambda x: x.reshape(batch // together, together, *x.shape[1:]), given)
        images = jax.lax.map(functools.partial(at_once, params), turns)
        return images.reshape(batch, *images.shape[2:])

    given = content, text
    if together == batch:
        return at_once(params, given)
    return jax.lax.platform_dependent(params, given, cpu=in_turn, default=at_once)


def _image(x) -> jax.Array:
    """What a decoder gives, which overshoots, as an image in [-1, 1]."""
    return jnp.clip(x, -1, 1)


def _count(params: Any) -> str:
    return count_text(sum(x.size for x in jax.tree.leaves(params)))
