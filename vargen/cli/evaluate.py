"""`vargen evaluate`: how good a trained model is, and the page that shows it."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import time
from typing import TYPE_CHECKING, Any

from vargen.cli import common
from vargen.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from vargen.models import Model

SUMMARY = "measure a trained model and write its report"
DESCRIPTION = """
Measures reconstructions of held-out images, codes and samples; prints the table and writes metrics.json,
samples.png and report.html, one page with everything on it. Label accuracy, Fréchet distance, precision and
recall rest on a small classifier that is trained on the data set once and kept (for images up to 64 pixels).
"""
EXAMPLES = """\
  vargen evaluate --workdir runs/quickstart
  vargen evaluate --workdir runs/quickstart --samples 2000 --guidance 1.5
"""

LARGEST = 64  # pixels: beyond, no classifier is trained


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    common.add_config(parser, required=False)
    parser.add_argument(
        "--samples",
        type=common.number(int, 2),
        metavar="N",
        help="how many to draw (config.evaluation.samples)",
    )
    parser.add_argument("--out", metavar="DIR", help="where to write (WORKDIR)")
    common.add_sampling(parser)


def run(args: argparse.Namespace) -> None:
    """Measures, prints and writes."""
    from vargen import report

    model = common.load_model(args)
    out = pathlib.Path(args.out or args.workdir)
    seed = args.seed or model.config.evaluation.seed
    command = f"vargen evaluate --workdir {args.workdir}"
    metrics = measure_and_report(
        model, args.workdir, out, args.samples, seed, command, **common.sampling_options(args)
    )
    for key, metric in report.METRICS.items():
        if key in metrics:
            real = (
                f"   (real images: {metric.show(metrics[metric.reference])})"
                if metric.reference in metrics
                else ""
            )
            print(f"{metric.label:24} {metric.show(metrics[key]):>16}{real}")
    print(f"see {out / 'report.html'}")


@dataclasses.dataclass
class Measured:
    """What `measure` found: the numbers, and the images they were taken on (float, [-1, 1])."""

    metrics: dict[str, float]
    samples: np.ndarray
    labels: np.ndarray
    originals: np.ndarray
    reconstructions: np.ndarray


def measure(model: Model, samples: int | None = None, seed: int = 0, **options: Any) -> Measured:
    """Measures a model against the held-out images of its data set.

    Args:
      model: with a generator.
      samples: how many are drawn, classes in turn; None takes config.evaluation.samples.
      seed: of the samples.
      **options: of sampling.
    """
    import numpy as np

    from vargen import data
    from vargen.evaluation import metrics as m

    config = model.config
    size = config.evaluation.batch_size
    train, test = (data.load(config.data, split) for split in ("train", "test"))
    images, labels = data.arrays(test, max(config.evaluation.samples, 500))
    originals = data.to_float(images)
    content = common.in_batches(model.encode, originals, size)
    reconstructions = np.clip(common.in_batches(model.decode, content, size), -1, 1)
    found = dict(
        psnr_db=float(np.mean(m.psnr(originals, reconstructions))),
        ssim=float(np.mean(m.ssim(originals, reconstructions))),
        mse=float(np.mean(m.mse(originals, reconstructions))),
    )
    if model.tokenizer.kind == "codes":
        statistics = m.codebook_statistics(content, model.tokenizer.vocab)
        found |= dict(
            codebook_use=float(statistics["use"]), codebook_perplexity=float(statistics["perplexity"])
        )
    bits = bits_per_dimension(model, content, labels)
    if bits is not None:
        found["bits_per_dimension"] = bits

    asked = np.arange(samples or config.evaluation.samples, dtype=np.int32) % config.data.num_classes
    drawn, speed = draw(model, asked, seed, size, **options)
    found["images_per_second"] = speed
    if config.data.image_size <= LARGEST:
        found |= judge(drawn, asked, train, test)
    return Measured(found, drawn, asked, originals, reconstructions)


def bits_per_dimension(model: Model, content: np.ndarray, labels: np.ndarray) -> float | None:
    """Bits per pixel value of held-out codes under the model; None where it has no explicit likelihood."""
    import numpy as np

    size = model.config.evaluation.batch_size
    dimensions = model.config.data.image_size**2 * model.config.data.channels
    try:
        nats = [
            np.asarray(model.log_likelihood(content[i : i + size], labels[i : i + size]))
            for i in range(0, len(content) - size + 1, size)
        ]
    except UserError:
        return None
    return float(-np.concatenate(nats).mean() / np.log(2) / dimensions)


def draw(model: Model, labels: np.ndarray, seed: int, size: int, **options: Any) -> tuple[np.ndarray, float]:
    """Samples [M, H, W, C] for labels, and images per second once everything is compiled."""
    import numpy as np

    size = min(size, len(labels))
    list(common.sample_batches(model, labels[:size], seed, size, **options))  # compiles
    start = time.perf_counter()
    batches = common.sample_batches(model, labels, seed, size, **options)
    images = np.concatenate(list(common.progress(batches, len(labels), "sampling")))
    return images, len(labels) / (time.perf_counter() - start)


def judge(samples: np.ndarray, labels: np.ndarray, train: Any, test: Any) -> dict[str, float]:
    """What a classifier and its features say about samples, and about as many real images."""
    import numpy as np

    from vargen import data
    from vargen.evaluation import classifier as c
    from vargen.evaluation import metrics as m

    judge = c.fit(train, test, common.cache_directory() / "classifiers")
    real = judge.features(data.to_float(data.arrays(test, len(samples))[0]))
    other = judge.features(data.to_float(data.arrays(train, len(samples))[0]))
    drawn = judge.features(samples)
    precision, recall = m.precision_recall(real, drawn)
    real_precision, real_recall = m.precision_recall(real, other)
    return dict(
        label_accuracy=float(np.mean(judge.labels(samples) == labels)),
        real_label_accuracy=float(judge.accuracy),
        frechet_distance=m.frechet_distance(real, drawn),
        real_frechet_distance=m.frechet_distance(real, other),
        precision=precision,
        real_precision=real_precision,
        recall=recall,
        real_recall=real_recall,
    )


def measure_and_report(
    model: Model,
    workdir: str | pathlib.Path,
    out: pathlib.Path,
    samples: int | None,
    seed: int,
    command: str,
    **options: Any,
) -> dict[str, float]:
    """Measures `model` and writes its report into `out`; returns the numbers."""
    import jax
    import numpy as np

    from vargen import config, report
    from vargen.cli import describe

    found = measure(model, samples, seed, **options)
    times = training_record(pathlib.Path(workdir))
    metrics = found.metrics | times["metrics"]
    first = np.unique(found.labels, return_index=True)[1][:6]
    steps = np.clip(
        np.asarray(model.sample_steps(found.labels[first], jax.random.key(seed), **options)), -1, 1
    )
    report.write(
        out,
        title=describe.title(model),
        summary=describe.summary(model, metrics),
        config_json=config.to_json(model.config),
        metrics=metrics,
        samples=found.samples,
        labels=found.labels,
        class_names=common.class_names(model.config, workdir),
        originals=found.originals[:20],
        reconstructions=found.reconstructions[:20],
        steps=steps,
        step_names=common.step_names(model, steps=options.get("steps")),
        curves=times["curves"],
        facts=describe.facts(model),
        command=command,
    )
    return metrics


def training_record(workdir: pathlib.Path) -> dict[str, Any]:
    """Times and loss curves from the metrics.jsonl of both runs."""
    from vargen.training import metrics as record

    metrics, curves = {}, {}
    for name in ("tokenizer", "generator"):
        rows = record.read(workdir / name / record.FILE)
        if not rows:
            continue
        metrics[f"{name}_train_seconds"] = rows[-1]["seconds"]
        curves[name.capitalize()] = {
            label: ([r["step"] for r in rows if key in r], [r[key] for r in rows if key in r])
            for label, key in (("training", "loss"), ("held out", "validation_loss"))
        }
        if name == "generator":
            rates = sorted(r["images_per_second"] for r in rows)
            metrics["training_images_per_second"] = rates[len(rates) // 2]
    metrics["train_seconds"] = sum(v for k, v in metrics.items() if k.endswith("_train_seconds"))
    return dict(metrics=metrics, curves=curves)
