"""`vargen evaluate` of a model of words: do pictures show what captions ask for, and captions say what is shown?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vargen.cli import common, sample_files
from vargen.errors import UserError

if TYPE_CHECKING:
    from vargen.model import Model
    from vargen.paths import Path, PathLike

SHEET = 8, 8  # rows and columns of the pictures shown
TITLES = dict(
    pictures="Pictures of captions", words="Captions of pictures", real="Held-out pictures, decoded"
)


def run(model: Model, workdir: PathLike, out: Path, samples: int, seed: int) -> dict[str, float]:
    """Measures, prints, and writes metrics.json and samples.png into `out`; returns the numbers.

    Raises:
      UserError: a model or data whose pictures can't be read exactly: `vargen.evaluation.shapes` reads shapes.
    """
    import numpy as np

    from vargen import data, paths, progress
    from vargen.evaluation import shapes
    from vargen.report import pictures

    c, condition = model.config, model.needs_generator().condition
    if condition.takes != "texts" or c.data.source != "shapes":
        raise UserError(
            f"evaluate: expected a model of classes, or one of texts and data.source shapes, found "
            f"{c.conditioning.name} and {c.data.source}"
        )
    test, size = data.load(c.data, "test"), c.evaluation.batch_size
    images, _ = data.arrays(test, samples)
    captions = [test.captions[i] for i in data.evenly(test, samples)]
    batches = common.sample_batches(model, condition.parse(captions), seed, size)
    drawn = np.concatenate(list(progress.each(batches, len(captions), "sampling")))
    floats = data.to_float(images)
    decoded = data.in_batches(model.reconstruct, floats, size)
    # What the tokenizer alone makes of them bounds what can be read of samples.
    found = dict(
        pictures=shapes.words_to_pictures(drawn, captions), real=shapes.words_to_pictures(decoded, captions)
    )
    if condition.writes:
        texts = common.described(model, floats, size)
        found["words"] = shapes.pictures_to_words(texts, captions)
    for name, measured in found.items():
        print(f"{TITLES[name]}, {len(captions)}:")
        for key, value in measured.items():
            if not key.startswith("chance_"):
                chance = measured.get(f"chance_{key}")
                beside = "" if chance is None else f" (chance: {100 * chance:.1f} %)"
                print(f"  {key:10} {100 * value:5.1f} %{beside}")
    metrics = {f"{name}_{key}": value for name, measured in found.items() for key, value in measured.items()}
    metrics["samples"] = len(captions)
    paths.write_text(out / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    rows, columns = SHEET
    count = min(rows * columns, len(drawn) // columns * columns)
    shown = pictures.to_uint8(drawn[:count]).reshape(-1, columns, *drawn.shape[1:])
    made_by = sample_files.common_settings(model, workdir, seed=seed, captions=captions[:count])
    pictures.save(pictures.grid(shown), out / "samples.png", made_by)
    print(f"see {out / 'metrics.json'} and {out / 'samples.png'}")
    return metrics
