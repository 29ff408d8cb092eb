"""Pilots of `vargen compare`: some updates of each system, timed, that tell what a budget of time is in updates."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vargen import paths
from vargen.cli import children, compared, stages
from vargen.training import checkpoints, metrics

if TYPE_CHECKING:
    import pathlib

    from ml_collections import ConfigDict

    from vargen.cli.compare_progress import Tally

FOLDER, TOKENIZERS = "pilots", "tokenizers"
# A pilot ends after so many updates that took so many seconds, or after the most; the first compile, and aren't timed.
LEAST, LONG, MOST, FIRST = 8, 5.0, 400, 2


def jobs(
    out: pathlib.Path, systems: Sequence[compared.System], plan: Mapping[str, Any]
) -> dict[tuple[str, str], children.Job]:
    """A pilot of each system's generator, and of each tokenizer that they need and that isn't trained yet.

    Args:
      out: of the comparison.
      systems: those to be timed.
      plan: of it, which describes them.

    Returns:
      By stage and the name of the system that it is of.
    """
    folder = out / FOLDER
    made: dict[tuple[str, str], children.Job] = {}
    for system in systems:
        # Of one that shares a tokenizer the file says how that is trained too.
        file = folder / f"{system.name}.json"
        compared.write(file, pilot(system.config))
        owner, brought = system.tokenizer, out / TOKENIZERS / system.tokenizer
        needs = []
        if not tokenizer_done(out, owner, plan):
            if ("tokenizer", owner) not in made:
                made["tokenizer", owner] = _job(folder, "tokenizer", owner, file, plan)
            needs, brought = [made["tokenizer", owner]], made["tokenizer", owner].workdir
        made["generator", system.name] = _job(folder, "generator", system.name, file, plan, brought, needs)
    return made


def _job(
    folder: pathlib.Path,
    stage: str,
    name: str,
    config: pathlib.Path,
    plan: Mapping[str, Any],
    tokenizer: pathlib.Path | None = None,
    needs: Sequence[children.Job] = (),
) -> children.Job:
    workdir = folder / stage / name
    enough = functools.partial(lambda directory: bool(timed(directory)), workdir / stage)
    if not enough():  # of one that goes on, updates would be compiled twice
        shutil.rmtree(workdir, ignore_errors=True)
    done = enough
    arguments = ["train", "--config", str(config), "--workdir", str(workdir)]
    if stage == "generator":
        arguments += ["--tokenizer", str(tokenizer)]
    else:
        arguments += ["--stage", "tokenizer"]
        if not plan["systems"][name]["trained"]:
            done = functools.partial(paths.is_file, paths.path(workdir) / stage / checkpoints.CONFIG)
    log = folder / stage / f"{name}.log"
    return children.Job(_called(stage, name), [(arguments, done)], workdir, log, needs, enough)


def _called(stage: str, name: str) -> str:
    return f"pilot of {name}" if stage == "generator" else f"pilot of the tokenizer of {name}"


def run(
    made: Mapping[tuple[str, str], children.Job],
    count: int,
    environment: Mapping[str, str],
    plan: Mapping[str, Any],
    tally: Tally,
) -> None:
    """Trains each for a few updates with the cores that it will have; times, or how it failed, go into the plan.

    Programs are compiled anew, whatever is cached: the number of updates is part of them, so that a run must.
    """
    environment = dict(environment, JAX_ENABLE_COMPILATION_CACHE="false")
    cores = len(children.shares(count)[0] or ())

    def ended(job: children.Job) -> None:
        stage, name = next(key for key, value in made.items() if value is job)
        own = plan["systems"][name]
        if job.failed:
            own["failed"][stage] = job.failed
            tally.ended("pilot", None, f"{job.name}: failed, and is left out: {job.failed}")
            return
        found = timed(job.workdir / stage)
        if stage != "tokenizer" or name not in plan["tokenizers"]:  # of one that is planned the plan stays
            own.setdefault("pilot", dict(cores=cores))[stage] = found
        took = (
            f"{found['compiling']:.1f} s to compile, {found['update']:.3g} s an update" if found else "done"
        )
        tally.ended("pilot", job.seconds, f"{job.name}: {took}")

    for stage, name in made:
        plan["systems"][name]["failed"].pop(stage, None)
    children.run(list(made.values()), count, environment, ended, tally.watch)


def timed(directory: pathlib.Path) -> dict[str, float]:
    """Seconds of compiling and of an update, mean, by the records of a pilot's stage; {} while they are too few."""
    seconds = [row["seconds"] for row in metrics.read(directory / metrics.FILE)]
    if len(seconds) < LEAST or (len(seconds) < MOST and seconds[-1] - seconds[FIRST - 1] < LONG):
        return {}
    update = max((seconds[-1] - seconds[FIRST - 1]) / (len(seconds) - FIRST), 1e-4)
    return dict(compiling=round(max(seconds[0] - update, 0.0), 3), update=round(update, 5))


def pilot(config: ConfigDict) -> ConfigDict:
    """A config of a few updates, each of which is recorded."""
    c = compared.trained(config, MOST, MOST)
    for group in (c.tokenizer_training, c.training):
        group.update(log_every=1, save_every=MOST, validate_every=0, image_every=0)
    c.training.augmented_copies = 1
    c.evaluation.update(samples=4, batch_size=4)
    return c


def tokenizer_done(out: pathlib.Path, name: str, plan: Mapping[str, Any]) -> bool:
    """Whether the tokenizer of a system is trained as the plan says."""
    own = plan["tokenizers"].get(name)
    if own is None:
        return False
    directory = paths.path(out / TOKENIZERS / name) / "tokenizer"
    # What has nothing to train is fitted to some pictures, and its config is written last.
    if not own["trained"]:
        return paths.is_file(directory / checkpoints.CONFIG)
    return stages.complete(directory, own["updates"])
