"""`vargen evaluate`: how good a trained model is, and the page that shows it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from vargen import schema
from vargen.cli import common, flags, sample_files
from vargen.errors import UserError

if TYPE_CHECKING:
    from vargen.cli.evaluate_reference import Judge
    from vargen.data import Sources
    from vargen.model import Model
    from vargen.paths import Path, PathLike

SUMMARY = "measure a trained model and write its report"
DESCRIPTION = """
Measures reconstructions of held-out images, codes and samples; prints the table and writes metrics.json,
samples.png and report.html, one page with everything on it. Label accuracy (of several classes), Fréchet
distance, precision and recall rest on a small classifier that is trained on the data set once and kept; for
images of more than 64 pixels, of which it would say little, they are left out. Of clips it sees single
frames, over which its answers are averaged.

With --reference and --inception the field's figures come beside them: FID, sFID, inception score,
precision and recall as ADM's evaluator has them, and KID; with --dinov2 FD-DINOv2, with --clip CMMD. The
reference is ADM's .npz (VIRTUAL_imagenet256_labeled.npz), an .npz with mu and sigma, or a folder of
pictures. Weights are your copies: of Inception pt_inception-2015-12-05-6726825d.pth (which needs
vargen[torch]) or classify_image_graph_def.pb, of DINOv2 dinov2-large's model.safetensors or
dinov2_vitl14_pretrain.pth, of CLIP clip-vit-large-patch14-336's. --samples may name an .npz (arr_0) or a
folder: no model is needed then. made_from.json names what the figures are of. Without a network both files
hold `features` [M, F] of another one: Fréchet distance, precision, recall, KID and CMMD.

With --tokenizer-only no generator is needed: errors of reconstructions, codes in use, bits per pixel, a
linear probe, seconds and parameters of both ends, with --lpips LPIPS and with --inception rFID; writes
tokenizer.json and reconstructions.png. --vtbench adds VTBench's tasks, detail and text among them, and
vtbench.png: on words, thin lines and textures that it draws, or with a folder on the published pictures.
"""
EXAMPLES = """\
  vargen evaluate --workdir runs/quickstart
  vargen evaluate --workdir runs/quickstart --samples 2000 --guidance 1.5
  vargen evaluate --workdir runs/mine --samples 10000 --reference ~/pictures32 \\
      --inception pt_inception-2015-12-05-6726825d.pth
  vargen evaluate --samples samples.npz --reference VIRTUAL_imagenet256_labeled.npz \\
      --inception classify_image_graph_def.pb --out runs/fid
  vargen evaluate --workdir runs/mine --tokenizer-only --lpips vgg_lpips.safetensors
  vargen evaluate --workdir runs/mine --tokenizer-only --vtbench
"""

LARGEST = 64  # pixels: a small classifier says little about larger images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    flags.add_config(parser, required=False, workdir=False, reads=True)
    flags.add_check_data(parser)
    parser.add_argument(
        "--samples",
        type=_samples,
        metavar="N|PATH",
        help="how many to draw (config.evaluation.samples); or an .npz or a folder that has them already",
    )
    parser.add_argument(
        "--reference",
        metavar="FILE",
        help="what to compare with: an .npz of ADM's or of statistics, or a folder",
    )
    parser.add_argument(
        "--inception",
        metavar="FILE",
        help="weights of FID's Inception-v3: PyTorch's .pth or TensorFlow's .pb",
    )
    parser.add_argument(
        "--dinov2", metavar="FILE", help="weights of DINOv2 ViT-L/14, for FD-DINOv2: .safetensors or .pth"
    )
    parser.add_argument(
        "--clip", metavar="FILE", help="weights of CLIP ViT-L/14-336, for CMMD: .safetensors or .bin"
    )
    parser.add_argument(
        "--tokenizer-only",
        action="store_true",
        help="what the tokenizer keeps of held-out images, and its costs",
    )
    parser.add_argument("--lpips", metavar="FILE", help="with --tokenizer-only: LPIPS's network, for LPIPS")
    parser.add_argument(
        "--vtbench",
        nargs="?",
        const="",
        metavar="DIR",
        help="with --tokenizer-only: what is kept of detail and text, drawn, or of VTBench's pictures in a folder",
    )
    parser.add_argument("--out", metavar="DIR", help="where to write (WORKDIR)")
    parser.add_argument(
        "--pictures",
        metavar="FILE",
        help="an .npz for what samples.png shows: samples uint8 [M, H, W, C], labels [M]",
    )
    flags.add_sampling(parser)


def _samples(text: str) -> int | str:
    """An argparse type: how many, or a path of what is there."""
    from vargen import paths

    if text.endswith(".npz") or (text.strip() and paths.path(text, "--samples").is_dir()):
        return text
    return flags.within(schema.SAMPLES, int)(text)


def _check_flags(args: argparse.Namespace) -> None:
    """Raises UserError for flags that don't belong together."""
    from vargen.cli import evaluate_reference

    given = isinstance(args.samples, str)
    for flag in ("lpips", "vtbench"):
        if getattr(args, flag) is not None:
            raise UserError(f"--{flag}: expected --tokenizer-only beside it, found none")
    if args.workdir is None and not given:
        raise UserError("--workdir: expected a run, or --samples with an .npz or a folder, found neither")
    if args.workdir is not None and given:
        raise UserError("--samples: expected a number beside --workdir, which draws them, found a path")
    weights = evaluate_reference.networks(args)
    if args.reference is None and (given or weights):
        raise UserError("--reference: expected a file to compare with, found none")
    if args.reference is not None and not weights and not given:
        raise UserError("--inception: expected the weights beside --reference, found none")


def run(args: argparse.Namespace) -> None:
    """Measures, prints and writes."""
    from vargen import data, report
    from vargen.cli import evaluate_reference, evaluate_tokenizer, evaluate_words
    from vargen.tokenizers import usage

    if args.tokenizer_only:
        evaluate_tokenizer.run(args)
        return
    _check_flags(args)
    if isinstance(args.samples, str):
        evaluate_reference.run(args)
        return
    out = common.out_directory(args)
    model = common.load_model(args)
    given = {k: v for k, v in flags.sampling_options(args).items() if v is not None}
    model.config.sampling.update(given)
    model.needs_generator()
    model.sampling()
    common.check_size(model)
    settings = model.config.evaluation
    samples = settings.samples if args.samples is None else args.samples
    seed = settings.seed if args.seed is None else args.seed
    sources = data.Sources(model.config.data)
    if args.check_data:
        common.check_data(sources)
    command = f"vargen evaluate --workdir {args.workdir}"
    if model.needs_generator().condition.takes != "classes":
        if args.reference is not None:
            raise UserError("--reference: expected a model of classes, found one of words")
        evaluate_words.run(model, args.workdir, out, samples, seed)
        return
    judge = None
    if args.reference is not None:
        common.check_pictures(model, "--reference")
        name, size = "--samples", model.tokenizer.image_size
        weights = evaluate_reference.networks(args)
        judge = evaluate_reference.Judge(args.reference, weights, name, samples, size)
        command += f" --samples {samples} --reference {args.reference}"
        command += "".join(f" --{flag} {file}" for flag, file in weights.items())
    metrics = evaluate(model, sources, args.workdir, out, samples, seed, command, judge, args.pictures)
    for key, metric in report.METRICS.items():
        if key in metrics:
            print(f"{metric.label:30} {metric.beside_real(key, metrics)}")
    for name, use, perplexity in report.levels(metrics):
        print(f"{name:30} {use}, perplexity {perplexity}")
    if warning := usage.warning(metrics):
        print(warning)
    if judge is not None:
        for remark in judge.remarks():
            print(remark)
        drawn = dict(
            workdir=str(args.workdir), images=samples, seed=seed, sampling=model.config.sampling.to_dict()
        )
        evaluate_reference.write(out, samples=drawn, **judge.told, remarks=judge.remarks())
    print(f"see {out / 'report.html'}")


def evaluate(
    model: Model,
    sources: Sources,
    workdir: PathLike,
    out: Path,
    samples: int,
    seed: int,
    command: str,
    judge: Judge | None = None,
    pictures: PathLike | None = None,
) -> dict[str, float]:
    """Measures `model` on the data of its config, and its samples by `judge` where there is one; writes its report into
    `out`; returns the numbers.

    The samples that it shows are written to `pictures` too, where that is a file.

    Raises:
      UserError: too few images for the classifier.
    """
    import numpy as np

    from vargen import classes as class_names
    from vargen import config, data, evaluation, hub, paths, progress, report, seeds
    from vargen.cli import describe

    c = model.config
    train, test = sources["train"], sources["test"]
    common.check_held_out(test)
    if class_names.stored(workdir) is not None or len(train.classes) != len(model.classes):
        class_names.check(model.classes, train.classes, f"workdir {workdir}")
    classifier = None
    if c.data.image_size <= LARGEST:
        print(
            "reading the pictures; the classifier that judges samples is trained once, and kept", flush=True
        )
        classifier = evaluation.fit(train, test, paths.cache_directory() / "classifiers")
    size = c.evaluation.batch_size
    measured = evaluation.measure(
        model,
        train,
        test,
        classifier,
        samples=samples,
        batch_size=size,
        key=seeds.key(seed),
        progress=progress.each,
        watch=(lambda batch: None) if judge is None else judge.add,
    )
    record = training_record(hub.directory(workdir))
    metrics = measured.metrics | record["metrics"] | describe.sizes(model)
    metrics |= {} if judge is None else judge.metrics()

    images, original_labels = data.arrays(test, 20)
    originals = data.to_float(images)
    reconstructions = data.in_batches(model.reconstruct, originals, size)
    labels = np.repeat(np.arange(min(len(model.classes), 20), dtype=np.int32), 12)
    drawn = np.concatenate(list(common.sample_batches(model, labels, seed, size)))
    if pictures is not None:
        with paths.replacing(pictures) as file, file.open("wb") as opened:
            np.savez_compressed(opened, samples=report.pictures.to_uint8(drawn), labels=labels)
    steps = common.sample_steps(model, labels[::12][:12], seed, min(size, len(labels)))
    report.write(
        out,
        title=describe.title(model),
        summary=describe.summary(model, metrics),
        config_json=config.to_json(c),
        metrics=metrics,
        samples=drawn,
        labels=labels,
        class_names=model.classes,
        originals=originals,
        reconstructions=reconstructions,
        original_labels=original_labels,
        recognised=measured.by_class,
        nearest=(measured.samples[:20], measured.nearest[:20], measured.labels[:20]),
        caveats=evaluation.caveats(
            metrics,
            classes=len(model.classes),
            held_out=len(test),
            features=0 if classifier is None else classifier.network.settings.features,
            clips=drawn.ndim > 4,
            losses=record["curves"].get("Generator: loss", {}).get("held out", ((), ())),
        ),
        steps=steps,
        step_labels=labels[::12][: steps.shape[1]],
        step_names=common.step_names(model),
        curves=record["curves"],
        facts=describe.facts(model),
        command=command,
        made_by=sample_files.common_settings(
            model, workdir, seed=seed, classes=model.classes[:20], sampling=c.sampling.to_dict()
        ),
    )
    return metrics


def training_record(workdir: Path) -> dict[str, Any]:
    """Times and loss curves from the metrics.jsonl of both runs."""
    from vargen.training import metrics as record

    metrics, curves = {}, {}
    for name in ("tokenizer", "generator"):
        rows = record.read(workdir / name / record.FILE)
        if not rows:
            continue
        metrics[f"{name}_train_seconds"] = rows[-1]["seconds"]
        # A tokenizer's loss has more terms than its error, which is what is measured on held-out images.
        title, loss = (
            ("Tokenizer: squared error", "l2") if name == "tokenizer" else ("Generator: loss", "loss")
        )
        curves[title] = {
            label: ([r["step"] for r in rows if key in r], [r[key] for r in rows if key in r])
            for label, key in (("training", loss), ("held out", "validation_loss"))
        }
        if name == "generator":
            rates = sorted(r["images_per_second"] for r in rows)
            metrics["training_images_per_second"] = rates[len(rates) // 2]
    metrics["train_seconds"] = sum(v for k, v in metrics.items() if k.endswith("_train_seconds"))
    return dict(metrics=metrics, curves=curves)
