"""`vargen evaluate --tokenizer-only --vtbench`: VTBench's tasks, on its pictures or on what is drawn in their place."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from vargen.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from vargen.model import Model

SHOWN = 8  # pictures of each kind on the sheet


def run(
    model: Model, folder: str, lpips: str | None, inception: str | None
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """The numbers by the names of `report.METRICS`, and pictures before and after, uint8 [M, H, W, C].

    Args:
      model: with or without a generator.
      folder: of the published pictures; "" draws others.
      lpips, inception: files of networks; None leaves out what needs them.

    Raises:
      UserError: no such folder, or what `evaluate_tokenizer.measure` raises.
    """
    return published(model, folder, lpips, inception) if folder else drawn(model)


def drawn(model: Model) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """See `vargen.evaluation.detail`."""
    from vargen import data
    from vargen.evaluation import detail
    from vargen.report import pictures

    made = detail.draw(model.tokenizer.image_size, model.tokenizer.image_channels)
    size = model.config.evaluation.batch_size
    decoded = pictures.to_uint8(data.in_batches(model.reconstruct, data.to_float(made.images), size))
    shown = made.shown(SHOWN)
    return detail.measure(made, decoded), made.images[shown], decoded[shown]


def published(
    model: Model, folder: str, lpips: str | None, inception: str | None
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Of each set that is there: PSNR, SSIM, with files LPIPS and FID, of texts the error rates of what is read."""
    import numpy as np

    from vargen import paths, progress
    from vargen.cli import reconstruct, watching
    from vargen.data import vtbench
    from vargen.evaluation import metrics, text

    found, before, after = {}, [], []
    reader, silent = None, ""
    sets = vtbench.files(paths.path(folder, "--vtbench"))
    if any(vtbench.SETS[name].task == "text" for name in sets):
        try:
            reader = text.reader()
        except UserError as error:
            silent = str(error)
    for name, files in sets.items():
        one, errors = vtbench.SETS[name], text.Errors()
        total = sum(vtbench.count(file) for file in files)
        measures = [watching.Similar(metrics.psnr, "psnr_db"), watching.Similar(metrics.ssim, "ssim")]
        measures += [] if lpips is None else [watching.perceptual(lpips)]
        # Inception's statistics need more pictures than the small sets have.
        if inception is not None and name == "imagenet":
            measures.append(watching.Reconstructed(inception, total))
        batches = _reconstructed(model, files, one.whole)
        read = reader if one.task == "text" else None
        kept = 0
        for real, decoded in progress.each(batches, total, name, size=lambda pair: len(pair[0])):
            for watch in measures:
                watch.add(real, decoded)
            for a, b in zip(real, decoded, strict=True):
                if read is not None:
                    try:
                        errors.add(*(read(_uint8(x), one.language) for x in (a, b)))
                    except UserError as error:
                        read, silent = None, str(error)
                if kept < SHOWN:
                    before, after, kept = [*before, _uint8(a)], [*after, _uint8(b)], kept + 1
        measured = {k: v for watch in measures for k, v in watch.metrics().items()}
        measured |= {} if read is None else errors.rates()
        found |= {f"vtbench_{name}_{metric}": value for metric, value in measured.items()}
    if silent:
        print(f"vtbench: error rates of text are left out: {silent}", flush=True)
    most = np.max([image.shape[:2] for image in before], axis=0)
    return found, reconstruct.canvases(before, most), reconstruct.canvases(after, most)


def _uint8(image: Any) -> np.ndarray:
    from vargen.report import pictures

    return pictures.to_uint8(image)


def _reconstructed(model: Model, files: list, whole: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pictures and reconstructions, float32 [b, H, W, C] each: of the model's size in batches, else one by one."""
    import numpy as np

    from vargen import data
    from vargen.data import transforms, vtbench

    size, channels = model.config.data.image_size, model.tokenizer.image_channels
    at = functools.lru_cache(8)(model.sized)
    images = (image for file in files for image in vtbench.pictures(file, channels))

    def through(some: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        floats = data.to_float(np.stack(some))
        return floats, data.in_batches(at(*some[0].shape[:2]).reconstruct, floats, len(some))

    waiting: list[np.ndarray] = []
    for image in images:
        if whole and (down := model.tokenizer.downsample) and min(image.shape[:2]) >= max(down):
            yield through([_cut(image, down)])
            continue
        waiting.append(transforms.fit(image, size))
        if len(waiting) == model.config.evaluation.batch_size:
            yield through(waiting)
            waiting = []
    if waiting:
        yield through(waiting)


def _cut(image: np.ndarray, down: tuple[int, int]) -> np.ndarray:
    """The middle of a picture, with sides that the downsampling divides."""
    height, width = (side // d * d for side, d in zip(image.shape, down))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]
