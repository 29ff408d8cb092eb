"""`vargen compare`: several systems on the same data with the same budget, and who stands where."""

from __future__ import annotations

import argparse
import collections
import functools
import os
import pathlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vargen import progress, schema
from vargen.cli import budgets, flags
from vargen.errors import UserError
from vargen.spelling import counted

if TYPE_CHECKING:
    from vargen.cli import children, compare_plan, compare_runs, compared
    from vargen.cli.compare_progress import Tally
    from vargen.data import Sources

SUMMARY = "train systems on the same data with the same budget, and rank them"
DESCRIPTION = """
Trains each system on the same data with the same budget, once for each seed, samples, measures, and writes
compare.html (pictures side by side, tables, plots, a ranking), compare.csv, compare.json and ranking.png.
A budget is of a generator's training: seconds by the clock with compilation (120s, 2m, 1h), images seen
(50k images) or FLOPs of products (3e14flops). It is turned into a number of updates beforehand, so that
learning rates end where they should; of seconds by timing some updates. Several train a run each. Equal
tokenizers are trained once. Killed in the middle, the same command goes on where it was; with more systems
or seeds it trains those beside what is there. The page is there from the beginning, of what is measured so
far.

Systems are ranked by the Fréchet distance on the features of a classifier that is trained on the data;
with --reference and --inception, as `vargen evaluate` has them, by FID, which pictures of more than 64
pixels need.
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
    parser.add_argument(
        "--reference",
        metavar="FILE",
        help="rank by FID: what to compare with, as of `vargen evaluate`; read anew for each run, quickest with mu and "
        "sigma",
    )
    parser.add_argument(
        "--inception", metavar="FILE", help="beside it: weights of FID's Inception-v3, likewise"
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
    from vargen.cli import compare_plan, compare_progress, compare_results, compare_runs, compared, lock

    out = paths.path(args.out, "--out")
    if paths.is_remote(out):
        raise UserError(f"--out {args.out}: expected a folder of this machine, found one in a bucket")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {args.out}: expected a folder, found a file")
    for flag, other in (("reference", "inception"), ("inception", "reference")):
        if getattr(args, flag) is None and getattr(args, other) is not None:
            raise UserError(f"--{flag}: expected a file beside --{other}, found none")
    out = pathlib.Path(out)
    plan = compare_plan.read(out)
    systems = compared.read(
        args.configs, args.overrides, args.data, {} if plan is None else plan["asked"]["systems"]
    )
    sources = look(systems)
    compared.share(systems, args.share_tokenizer, check)
    request = compare_plan.Request(
        systems,
        args.budget,
        args.tokenizer_budget or args.budget[-1],
        args.share_tokenizer,
        args.jobs,
        args.reference,
        args.inception,
    )
    if plan is not None:
        compare_plan.check(out, plan, request)
    for system in systems:
        if plan is None or system.name not in plan["systems"]:
            check(system.config)
    look_at_judges(request)
    paths.check_directory(out)
    command = f"vargen compare {' '.join(map(shlex.quote, _words(args)))}"
    with lock.hold(out, "vargen compare"):
        plan = compare_plan.described(request, plan)
        total, ahead = _jobs(out, request, plan, args.seeds)
        given = {compare_progress.TOKENIZER: request.tokenizer} | {str(b): b for b in request.budgets}
        tally = compare_progress.Tally(total, args.jobs, given)
        tally.expect(ahead)
        with tally:
            if tally.done < total:
                progress.say(tally.needed())
            compare_plan.complete(out, request, plan, environment, tally)
            # A pilot that failed is tried again by the next command alone.
            tally.expect(_jobs(out, request, plan, args.seeds)[1] | {compare_progress.PILOT: 0})
            runs = compare_runs.runs(out, request, plan, args.seeds)
            if any(not (r.failed or r.measured()) for r in runs):
                judge(systems[0], sources)
            write = functools.partial(
                compare_results.write, out, request, plan, runs, sources["train"].classes, command
            )
            go(compare_runs.tokenizers(out, systems, plan), runs, args.jobs, environment, tally, write)
    print(f"see {out / 'compare.html'}")
    if failed := [run for run in runs if run.failed]:
        first = failed[0]
        count = f"{len(failed)} of {counted(len(runs), 'run')}"
        raise UserError(f"{count} failed; {first.name}: {first.failed}; the page has the others")


def _jobs(
    out: pathlib.Path, request: compare_plan.Request, plan: Mapping[str, Any], seeds: int
) -> tuple[int, dict[str, int]]:
    """Jobs of the whole comparison, and by kind those that are ahead."""
    from vargen.cli import compare_pilots, compare_plan, compare_progress, compare_runs

    runs = compare_runs.runs(out, request, plan, seeds)
    left = [run for run in runs if not (run.failed or run.measured())]
    owners = {system.tokenizer for system in request.systems}
    needed = {run.tokenizer for run in left}
    ahead = collections.Counter(run.budget for run in left)
    for name in sorted(needed):
        if not compare_pilots.tokenizer_done(out, name, plan):
            trained = plan["systems"][name]["trained"]
            ahead[compare_progress.TOKENIZER if trained else compare_progress.FITTED] += 1
    pilots = 0
    if request.piloted:
        pilots = len(request.systems) + len(owners)
        missing = compare_plan.unplanned(request, plan)
        untrained = {
            s.tokenizer for s in missing if not compare_pilots.tokenizer_done(out, s.tokenizer, plan)
        }
        ahead[compare_progress.PILOT] = len(missing) + len(untrained)
    return max(pilots + len(owners) + len(runs), ahead.total()), dict(ahead)


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
    words += ["--reference", args.reference, "--inception", args.inception] if args.reference else []
    return [*words, "--out", args.out, *(f"--config.{field}={value}" for field, value in args.overrides)]


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


def look_at_judges(request: compare_plan.Request) -> None:
    """Opens what samples are to be compared with; says so where nothing will be ranked.

    Raises:
      UserError: files that can't be read or don't belong together, or fewer samples than FID needs.
    """
    from vargen.cli import compare_results, evaluate, evaluate_reference

    c = request.systems[0].config
    size = c.data.image_size
    if request.reference is not None and request.inception is not None:
        # What can be told without looking at a picture; the rest `vargen evaluate` says of the first run.
        name, weights = "config field evaluation.samples", dict(inception=request.inception)
        evaluate_reference.opened(request.reference, weights, name, c.evaluation.samples, (size, size))
    elif size > evaluate.LARGEST:
        progress.say(compare_results.unranked(size))


def judge(system: compared.System, sources: Sources) -> None:
    """Trains the classifier that judges samples once, before several children would."""
    from vargen import evaluation, paths
    from vargen.cli import evaluate

    if system.config.data.image_size > evaluate.LARGEST:
        return
    progress.say("reading the pictures; the classifier that judges samples is trained once, and kept")
    found = evaluation.fit(sources["train"], sources["test"], paths.cache_directory() / "classifiers")
    progress.say(f"it gets {100 * found.accuracy:.1f} % of held-out pictures right")


def go(
    tokenizers: Mapping[str, children.Job],
    runs: Sequence[compare_runs.Run],
    jobs: int,
    environment: Mapping[str, str],
    tally: Tally,
    write: Callable[[], None],
) -> None:
    """Trains the tokenizers, then what is left of the runs, and writes anew what there is whenever one ends."""
    from vargen.cli import children
    from vargen.cli.compare_progress import FITTED, TOKENIZER

    left = [r for r in runs if not r.failed and not r.measured()]
    work = {r.name: r for r in left}
    fitted = {tokenizers[r.tokenizer].name for r in left if r.tokenizer_updates is None}

    def on_end(job: children.Job) -> None:
        kind, text = (FITTED if job.name in fitted else TOKENIZER), "done"
        if run := work.get(job.name):
            run.failed = job.failed
            kind, text = run.budget, run.text()
        text = f"failed: {job.failed}" if job.failed else text
        tally.ended(kind, None if job.failed else job.seconds, f"{job.name}: {text}")
        if run:
            write()

    write()
    if left:
        needed = {r.tokenizer for r in left}
        first = [job for name, job in tokenizers.items() if name in needed and not job.done]
        children.run([*first, *(r.job(tokenizers) for r in left)], jobs, environment, on_end, tally.watch)
