"""`vargen evaluate --tokenizer-only`: what a tokenizer keeps of held-out images, and what it costs."""

from __future__ import annotations

import argparse
import json
import math
import time
from typing import TYPE_CHECKING, Any

from vargen.cli import common, flags, sample_files, watching
from vargen.errors import UserError

if TYPE_CHECKING:
    from vargen.model import Model

RUNS = 3  # of which the median is told
LIMIT = 10_000  # images of each split
FILES = ("tokenizer.json", "reconstructions.png")
VTBENCH = "vtbench.png"


def run(args: argparse.Namespace) -> None:
    """Measures, prints and writes."""
    from vargen import data, paths, report
    from vargen.cli import evaluate_vtbench, reconstruct
    from vargen.data import vtbench

    asked = flags.sampling_options(args) | {
        k: getattr(args, k) for k in ("reference", "samples", "pictures", "dinov2", "clip")
    }
    if given := [name for name, value in asked.items() if value is not None]:
        raise UserError(
            f"--tokenizer-only: expected nothing that is of samples, found --{given[0].replace('_', '-')}"
        )
    if args.workdir is None:
        raise UserError("--workdir: expected a run, found none")
    out = common.out_directory(args)
    model = common.load_model(args)
    common.check_size(model)
    if args.vtbench is not None:
        common.check_pictures(model, "--vtbench")
    if args.vtbench:
        vtbench.files(paths.path(args.vtbench, "--vtbench"))  # there, before anything takes its time
    sources = data.Sources(model.config.data)
    if args.check_data:
        common.check_data(sources)
    common.check_held_out(sources["test"])
    sheets: dict[str, tuple[Any, Any]] = {}
    found, *sheets[FILES[1]] = measure(model, sources, args.lpips, args.inception)
    if args.vtbench is not None:
        more, *sheets[VTBENCH] = evaluate_vtbench.run(model, args.vtbench, args.lpips, args.inception)
        found |= more
    for key, metric in report.METRICS.items():
        if key in found:
            print(f"{metric.label:30} {metric.show(found[key])}")
    for name, use, perplexity in report.levels(found):
        print(f"{name:30} {use}, perplexity {perplexity}")
    out.mkdir(parents=True, exist_ok=True)
    paths.write_text(out / FILES[0], json.dumps(found, indent=2, sort_keys=True) + "\n")
    for name, (originals, decoded) in sheets.items():
        made_by = sample_files.common_settings(model, args.workdir, reconstructed=len(originals))
        report.pictures.save(
            reconstruct.beside(originals, report.pictures.to_uint8(decoded)), out / name, made_by
        )
        print(f"see {out / name}")


def measure(
    model: Model, sources: Any, lpips: str | None, inception: str | None
) -> tuple[dict[str, float], Any, Any]:
    """A tokenizer's numbers on held-out images, and some of these before and after.

    Args:
      model: with or without a generator.
      sources: of data.
      lpips: the file of LPIPS's network; None leaves it out.
      inception: the file of Inception's weights, for rFID; None leaves it out.

    Returns:
      The numbers by the names of `report.METRICS`, images uint8 [M, H, W, C], reconstructions in [-1, 1]; or clips.

    Raises:
      UserError: a file that can't be read, or fewer held-out images than rFID's statistics need.
    """
    import numpy as np

    from vargen import data, evaluation, progress
    from vargen.clips import as_pictures
    from vargen.evaluation import metrics, probe

    settings, tokenizer = model.config.evaluation, model.tokenizer
    images, labels = data.arrays(sources["test"], LIMIT)
    measures = [watching.Similar(metrics.ms_ssim, "ms_ssim")]
    if lpips is not None:
        measures.append(watching.perceptual(lpips))
    if inception is not None:
        measures.append(watching.Reconstructed(inception, len(as_pictures(images))))

    def watch(real: Any, reconstruction: Any) -> None:
        for one in measures:  # of clips, of their frames
            one.add(as_pictures(real), as_pictures(reconstruction))

    size = min(settings.batch_size, len(images))
    plain = _without_generator(model)
    found, decoded = evaluation.reconstruct(plain, images, labels, size, 32, None, progress.each, watch)
    for one in measures:
        found |= one.metrics()
    if tokenizer.slot.kind == "codes":
        codes = _slots(model, images, size) * math.prod(tokenizer.slot.shape)
        found["bits_per_pixel"] = codes * math.log2(tokenizer.vocab) / math.prod(tokenizer.image_size)
    if tokenizer.trained:
        for end in ("encoder", "decoder"):
            found[f"{end}_parameters"] = _count(model.tokenizer_params[end])
        classes = len(sources["train"].classes)
        if classes > 1:
            more, more_labels = data.arrays(sources["train"], LIMIT)
            train = _latents(model, more, more_labels, size)
            found["linear_probe"] = probe.accuracy(train, _latents(model, images, labels, size), classes)
    real = data.to_float(images[:size])
    content = model.encode(real)
    found["encode_seconds"] = _seconds(lambda: np.asarray(model.encode(real))) / size
    found["decode_seconds"] = _seconds(lambda: np.asarray(model.decode(content))) / size
    return found, images[:32], decoded


def _slots(model: Model, images: Any, size: int) -> float:
    """How many slots of codes an image has: the mean over `images`, uint8 [M, H, W, C], where they end with a stop
    code, which counts."""
    import numpy as np

    from vargen import data

    slot, slots = model.tokenizer.slot, model.tokenizer.grid.size
    if slot.stop is None:
        return slots
    batches = (images[start : start + size] for start in range(0, len(images), size))
    return float(np.concatenate([slot.exists(model.encode(data.to_float(x))).sum(1) for x in batches]).mean())


def _without_generator(model: Model) -> Model:
    """The same without its generator, whose likelihood isn't asked for."""
    from vargen.model import Model

    return Model(model.config, model.tokenizer_params)


def _latents(model: Model, images: Any, labels: Any, size: int):
    """Batches of latents float32 [b, h, w, C], as they are decoded, and labels."""
    import jax
    import numpy as np

    from vargen import data
    from vargen.data import pipeline

    t = model.tokenizer

    @jax.jit
    def run(params, images):
        return t.latents(params["quantizer"], t.encode(params, images))

    for start in range(0, len(images), size):
        batch = data.to_float(images[start : start + size])
        latents = run(model.tokenizer_params, pipeline.padded(batch, size))
        yield np.asarray(latents)[: len(batch)], labels[start : start + size]


def _count(params: Any) -> int:
    import jax

    return sum(x.size for x in jax.tree.leaves(params))


def _seconds(call: Any) -> float:
    """The median of some calls, after one."""
    call()
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return sorted(times)[RUNS // 2]
