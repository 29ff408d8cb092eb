"""`vargen quickstart`: everything once, in minutes, ending with a page to look at."""

from __future__ import annotations

import argparse
import shlex

from vargen.cli import common, flags

SUMMARY = "train, sample and evaluate, on the digits in minutes"
DESCRIPTION = """
Trains a tokenizer and a generator, samples, evaluates, and writes report.html, samples.png and
metrics.json into the workdir: without flags VAR on the digits that come with vargen, into runs/quickstart.
Interrupted, the same command goes on where it stopped.
"""
EXAMPLES = """\
  vargen quickstart
  vargen quickstart --config mar:digits --workdir runs/mar
  vargen quickstart --config var:pictures32 --workdir runs/mine --config.data.path=~/pictures
"""
CONFIG, WORKDIR = "var:digits", "runs/quickstart"  # where the user names none


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    flags.add_config(parser, required=False, workdir=False)
    flags.add_check_data(parser)


def run(args: argparse.Namespace) -> None:
    """Trains, evaluates, and says where to look."""
    if args.workdir is None:
        args.workdir, args.config = WORKDIR, args.config or CONFIG
    print(f"1/2 training, into {args.workdir}", flush=True)

    import vargen
    from vargen import paths, report
    from vargen.cli import evaluate, evaluate_words, train

    workdir = paths.path(args.workdir, "--workdir")
    config = common.read_config(args)
    sources = train.train(config, workdir, check_data=args.check_data, measured=True)
    print("2/2 sampling and measuring", flush=True)
    model = vargen.load(workdir)
    if model.needs_generator().condition.takes != "classes":
        evaluate_words.run(model, workdir, workdir, config.evaluation.samples, config.evaluation.seed)
        print(f"Then try  vargen caption --workdir {workdir}")
        return
    command = f"vargen quickstart{f' --config {args.config}' if args.config else ''} --workdir {args.workdir}"
    metrics = evaluate.evaluate(
        model, sources, workdir, workdir, config.evaluation.samples, config.evaluation.seed, command
    )

    print()
    for key in report.HEADLINES:
        if key in metrics:
            metric = report.METRICS[key]
            print(f"{metric.label:20} {metric.beside_real(key, metrics)}")
    print(f"\nLook at   {workdir / 'report.html'}    everything on one page, open it in a browser")
    print(f"          {workdir / 'samples.png'}    the samples")
    print(f"          {workdir / 'metrics.json'}   the numbers")
    print(
        f"Then try  vargen sample --workdir {workdir} --classes {shlex.quote(model.classes[-1])} --count 16"
    )
