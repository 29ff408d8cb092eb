"""`vargen compare`: several systems on the same data with the same budget, and who stands where."""

from __future__ import annotations

import argparse
import os
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vargen import schema
from vargen.cli import budgets, flags
from vargen.errors import UserError

if TYPE_CHECKING:
    from vargen.cli import children, compare_runs, compared
    from vargen.data import Sources

SUMMARY = "train systems on the same data with the same budget, and rank them"
DESCRIPTION = """
Trains each system on the same data with the same budget, once for each seed, samples, measures, and writes
compare.html (pictures side by side, tables, plots, a ranking), compare.csv, compare.json and ranking.png.
A budget is of a generator's training: seconds by the clock with compilation (120s, 2m, 1h), images seen
(50k images) or FLOPs of products (3e14flops). It is turned into a number of updates beforehand, so that
learning rates end where they should; of seconds by timing some updates. Several train a run each. Equal
tokenizers are trained once. Killed in the middle, the same command goes on where it was.
"""
EXAMPLES = """\
  vargen compare var:digits llamagen:digits mar:digits --budget 120s --seeds 3 --out runs/compare
  vargen compare var:pictures32 randar:pictures32 --data emoji --budget 5m,20m --seeds 3 \\
      --share-tokenizer --jobs 2 --out runs/emoji
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    parser.add_argument(
        "configs", nargs="+", metavar="CONFIG", help="as of --config elsewhere: var:digits, a file"
    )
    parser.add_argument(
        "--data",
        choices=_sources(),
        help="the data of all (config.data.source); without it the configs must have the same",
    )
    parser.add_argument(
        "--budget",
        type=budgets.several,
        required=True,
        metavar="B",
        help="of a generator's training; or several: 1m,5m",
    )
    parser.add_argument(
        "--tokenizer-budget",
        type=budgets.parse,
        metavar="B",
        help="of a tokenizer's (the largest of --budget)",
    )
    parser.add_argument(
        "--share-tokenizer",
        action="store_true",
        help="systems take an earlier one's tokenizer wherever they can be built over it",
    )
    parser.add_argument(
        "--seeds",
        type=flags.number(int, 1, 1000),
        default=3,
        metavar="N",
        help="runs of each system and budget (3)",
    )
    parser.add_argument(
        "--jobs",
        type=flags.number(int, 1, 1000),
        default=1,
        metavar="N",
        help="runs side by side, each on its share of the cores (1)",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="where everything goes")
    parser.set_defaults(config=None)  # --config.FIELD is for all


def _sources() -> tuple[str, ...]:
    from vargen import limits

    return limits.fields(schema.Data)["source"].limit.words


def run(args: argparse.Namespace) -> None:
    """Plans, trains, measures, and writes the page."""
    environment = dict(os.environ)
    # What is done here is planning: the devices are for the children.
    os.environ["JAX_PLATFORMS"] = "cpu"
    if args.jobs > 1:
        environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 / args.jobs:.3f}")

    from vargen import paths
    from vargen.cli import compare_plan, compare_results, compare_runs, compared, lock

    out = paths.path(args.out, "--out")
    if paths.is_remote(out):
        raise UserError(f"--out {args.out}: expected a folder of this machine, found one in a bucket")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {args.out}: expected a folder, found a file")
    out = pathlib.Path(out)
    systems = compared.read(args.configs, args.overrides, args.data)
    sources = look(systems)
    compared.share(systems, args.share_tokenizer, check)
    tokenizer_budget = args.tokenizer_budget or args.budget[-1]
    request = compare_plan.Request(systems, args.budget, tokenizer_budget, args.share_tokenizer, args.jobs)
    plan = compare_plan.read(out, request)
    if plan is None:
        for system in systems:
            check(system.config)
    paths.check_directory(out)
    with lock.hold(out, "vargen compare"):
        plan = compare_plan.make(out, request, plan, environment, _say)
        runs = compare_runs.runs(out, request, plan, args.seeds)
        if any(not r.measured() for r in runs):
            judge(systems[0], sources)
        go(out, systems, plan, runs, args.jobs, environment)
        command = f"vargen compare {' '.join(map(shlex.quote, _words(args)))}"
        failed = compare_results.write(out, request, plan, runs, sources["train"].classes, command)
    print(f"see {out / 'compare.html'}")
    if failed:
        first = failed[0]
        raise UserError(
            f"{len(failed)} of {len(runs)} runs failed; {first.name}: {first.failed}; the page has the others"
        )


def _words(args: argparse.Namespace) -> list[str]:
    """The command line, as a page has it."""
    words = [*args.configs]
    if args.data:
        words += ["--data", args.data]
    words += ["--budget", ",".join(map(str, args.budget)), "--seeds", str(args.seeds)]
    if args.tokenizer_budget:
        words += ["--tokenizer-budget", str(args.tokenizer_budget)]
    words += ["--share-tokenizer"] * args.share_tokenizer
    words += ["--jobs", str(args.jobs)] if args.jobs > 1 else []
    return [*words, "--out", args.out, *(f"--config.{field}={value}" for field, value in args.overrides)]


def _say(text: str) -> None:
    print(text, flush=True)


def look(systems: Sequence[compared.System]) -> Sources:
    """Opens the data, and fills in how many classes it has.

    Raises:
      UserError: no such data, too little of it held out, or a system that isn't conditioned by its labels.
    """
    from vargen.cli import common, preflight, train
    from vargen.config import override

    for system in systems:
        try:
            preflight.check_fields(system.config)
        except UserError as error:
            raise UserError(f"{system.text}: {error}") from error
        if (found := system.config.conditioning.name) != "label":
            raise UserError(f"compare: expected systems conditioned by label, found {found} in {system.text}")
    filled, sources = train.look_at_data(systems[0].config)
    common.check_held_out(sources["test"])
    for system in systems:
        system.config = override(system.config, [("data.num_classes", filled.data.num_classes)])
    return sources


def check(config: Any) -> None:
    """Whether a config can be trained, by shapes alone; as `vargen train` checks it.

    Raises:
      UserError: it can't; names the system.
    """
    import jax

    from vargen.cli import preflight

    try:
        preflight.check(config, jax.device_count())
    except UserError as error:
        raise UserError(f"{config.name}: {error}") from error


def judge(system: compared.System, sources: Sources) -> None:
    """Trains the classifier that judges samples once, before several children would."""
    from vargen import evaluation, paths
    from vargen.cli import evaluate

    if system.config.data.image_size > evaluate.LARGEST:
        return
    _say("reading the pictures; the classifier that judges samples is trained once, and kept")
    found = evaluation.fit(sources["train"], sources["test"], paths.cache_directory() / "classifiers")
    _say(f"it gets {100 * found.accuracy:.1f} % of held-out pictures right")


def go(
    out: pathlib.Path,
    systems: Sequence[compared.System],
    plan: Mapping[str, Any],
    runs: Sequence[compare_runs.Run],
    jobs: int,
    environment: Mapping[str, str],
) -> None:
    """Trains the tokenizers, then what is left of the runs, and says how far it is."""
    from vargen import progress
    from vargen.cli import children, compare_runs

    tokenizers = compare_runs.tokenizers(out, systems, plan)
    left = [r for r in runs if not r.failed and not r.measured()]
    work = {r.name: r for r in left}
    ended, spent = 0, 0.0
    done = len(runs) - len(left)

    def on_end(job: children.Job) -> None:
        nonlocal ended, spent
        if job.name not in work:
            _say(
                f"{job.name}: {'failed: ' + job.failed if job.failed else 'done in ' + progress.duration(job.seconds)}"
            )
            return
        ended += 1
        work[job.name].failed = job.failed
        what = f"failed: {job.failed}" if job.failed else work[job.name].text()
        rest = len(left) - ended
        spent += job.seconds
        ahead = progress.duration(spent / ended * rest / min(jobs, max(rest, 1)))
        _say(
            f"{done + ended} of {len(runs)}: {job.name}: {what}"
            + (f"; {rest} left, about {ahead}" if rest else "")
        )

    if left:
        needed = {r.tokenizer for r in left}
        for job in tokenizers.values():
            job.done = job.next() is None
        first = [job for name, job in tokenizers.items() if name in needed and not job.done]
        children.run([*first, *(r.job(tokenizers) for r in left)], jobs, environment, on_end)
