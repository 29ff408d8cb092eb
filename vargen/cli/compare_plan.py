"""What `vargen compare` will do: how many updates each budget is, written down once before anything is trained."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vargen.cli import budgets, children, compared
from vargen.cli.budgets import Budget, Cost
from vargen.errors import UserError

if TYPE_CHECKING:
    import pathlib

    from ml_collections import ConfigDict

FILE, PILOTS, TOKENIZERS = "plan.json", "pilots", "tokenizers"
# A pilot ends after so many updates that took so many seconds, or after the most; the first compile, and aren't timed.
LEAST, LONG, MOST, FIRST = 8, 5.0, 400, 2


@dataclasses.dataclass
class Request:
    """What was asked for.

    Attributes:
      systems: see `compared`.
      budgets: of generators, from the smallest, of one unit.
      tokenizer: the budget of tokenizers.
      share: whether --share-tokenizer was.
      jobs: how many runs share the cores: with other shares neither times nor speeds would be beside each other.
    """

    systems: list[compared.System]
    budgets: tuple[Budget, ...]
    tokenizer: Budget
    share: bool
    jobs: int

    def told(self) -> dict[str, Any]:
        """As the plan has it, by which it is known again."""
        return dict(
            systems={s.name: s.text for s in self.systems},
            budget=[str(b) for b in self.budgets],
            tokenizer_budget=str(self.tokenizer),
            share_tokenizer=self.share,
            jobs=self.jobs,
            configs={s.name: compared.plain(s.config) for s in self.systems},
        )

    def timed(self, stage: str) -> bool:
        """Whether a stage's budget is one of time."""
        amount = self.tokenizer if stage == "tokenizer" else self.budgets[0]
        return amount.unit == budgets.SECONDS


def read(out: pathlib.Path, request: Request) -> dict[str, Any] | None:
    """The plan in a folder; None where the comparison begins.

    Raises:
      UserError: the folder holds another comparison, of which the field is named, or something else.
    """
    from vargen.config import from_json
    from vargen.training import resume

    file = out / FILE
    if not file.is_file():
        if (
            found := sorted(p.name for p in out.iterdir() if p.name not in (PILOTS, ".lock"))
            if out.is_dir()
            else []
        ):
            raise UserError(
                f"--out {out}: expected a new folder, or one of `vargen compare`, found {found[0]}"
            )
        return None
    try:
        plan = json.loads(file.read_text())
        was = plan["asked"]
        configs = was["configs"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: expected a plan of `vargen compare`, found a damaged one") from error
    now = request.told()
    for field in ("systems", "budget", "tokenizer_budget", "share_tokenizer", "jobs"):
        if was.get(field) != now[field]:
            raise _another(out, field, was.get(field), now[field])
    for system in request.systems:
        for field, a, b in resume.differences(from_json(json.dumps(configs[system.name])), system.config):
            raise _another(out, f"config field {field} of {system.name}", a, b)
    return plan


def _another(out: pathlib.Path, field: str, was: Any, now: Any) -> UserError:
    def text(value: Any) -> str:
        if isinstance(value, Mapping):
            return " ".join(map(str, value.values()))
        return ",".join(value) if isinstance(value, list) and field.endswith("budget") else str(value)

    return UserError(
        f"--out {out}: holds another comparison: expected {field} {text(was)}, found {text(now)}; take another folder"
    )


def make(
    out: pathlib.Path,
    request: Request,
    plan: dict[str, Any] | None,
    environment: Mapping[str, str],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The plan, made or completed and written; a system whose pilot fails has a line that says so, and no updates.

    Raises:
      UserError: a budget that doesn't pay for an update, or for compiling it.
    """
    from vargen import paths

    systems = request.systems
    if plan is None:
        described = {s.name: _described(s) for s in systems}
        plan = dict(asked=request.told(), machine=machine(environment), systems=described, tokenizers={})
    missing = [s for s in systems if "updates" not in plan["systems"][s.name]]
    if not missing:
        return plan
    if any(map(request.timed, ("tokenizer", "generator"))):
        pilots(out, missing, request.jobs, environment, plan, say)
    for system in missing:
        own = plan["systems"][system.name]
        if own.get("failed"):
            continue
        cost = _cost(own, "generator")
        own["updates"] = {str(b): budgets.steps(b, cost, system.name) for b in request.budgets}
        if system.tokenizer == system.name:
            plan["tokenizers"][system.name] = _tokenizer(system, request, own)
    paths.write_text(out / FILE, json.dumps(plan, indent=1) + "\n")
    shutil.rmtree(out / PILOTS, ignore_errors=True)
    return plan


def machine(environment: Mapping[str, str]) -> str:
    """The devices that children have, by one of them."""
    command = [sys.executable, "-m", "vargen", "env", "--json"]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True)
    try:
        found = json.loads(done.stdout)
        kind, _, devices = found["devices"].partition(": ")
        cores = f"{found['cores']} CPU core{'s' * (found['cores'] != '1')}"
    except (ValueError, KeyError):
        return "unknown"
    return cores if kind == "cpu" else f"{devices.partition(' in ')[0]}, {cores}"


def _described(system: compared.System) -> dict[str, Any]:
    """What is known of a system before it runs."""
    from vargen.models import build_generator, build_tokenizer, parameter_count
    from vargen.samplers import likelihood
    from vargen.training import work

    c = system.config
    tokenizer = build_tokenizer(c)
    generator = build_generator(c, tokenizer)
    of_tokenizer = work.of_tokenizer(tokenizer).flops if tokenizer.trained else 0.0
    return dict(
        title=c.name,
        tokenizer=system.tokenizer,
        shared=system.shared,
        apart=system.apart,
        likelihood=likelihood.kind(generator),
        parameters=dict(tokenizer=parameter_count(tokenizer), generator=parameter_count(generator)),
        flops=dict(tokenizer=of_tokenizer, generator=work.of_generator(generator, tokenizer).flops),
        batch=dict(tokenizer=c.tokenizer_training.batch_size, generator=c.training.batch_size),
        trained=tokenizer.trained,
    )


def _cost(own: Mapping[str, Any], stage: str) -> Cost:
    timed = own.get("pilot", {}).get(stage, {})
    return Cost(own["batch"][stage], own["flops"][stage], timed.get("compiling"), timed.get("update"))


def _tokenizer(system: compared.System, request: Request, own: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = dict(trained=own["trained"])
    if own["trained"]:
        name = f"the tokenizer of {system.name}"
        found["updates"] = budgets.steps(
            request.tokenizer, _cost(own, "tokenizer"), name, "--tokenizer-budget"
        )
    return found


def pilots(
    out: pathlib.Path,
    systems: Sequence[compared.System],
    jobs: int,
    environment: Mapping[str, str],
    plan: dict[str, Any],
    say: Callable[[str], None],
) -> None:
    """Trains each system for a few updates with the cores that it will have, and times them.

    Programs are compiled anew, whatever is cached: the number of updates is part of them, so that a run must.
    """
    from vargen import paths
    from vargen.training import checkpoints

    folder = out / PILOTS
    environment = dict(environment, JAX_ENABLE_COMPILATION_CACHE="false")
    made: dict[tuple[str, str], children.Job] = {}
    for system in systems:
        file = folder / f"{system.name}.json"
        write_config(file, pilot(system.config))
        for stage in ("tokenizer", "generator"):
            if stage == "tokenizer" and system.tokenizer != system.name:
                continue
            workdir = folder / stage / system.name
            enough = functools.partial(lambda directory: bool(timed(directory)), workdir / stage)
            if not enough():  # of one that goes on, updates would be compiled twice
                shutil.rmtree(workdir, ignore_errors=True)
            done, needs = enough, []
            arguments = ["train", "--config", str(file), "--workdir", str(workdir)]
            if stage == "tokenizer":
                arguments += ["--stage", "tokenizer"]
                if not plan["systems"][system.name]["trained"]:
                    done = functools.partial(paths.is_file, workdir / stage / checkpoints.CONFIG)
            elif owner := made.get(("tokenizer", system.tokenizer)):
                arguments += ["--tokenizer", str(owner.workdir)]
                needs = [owner]
            else:  # trained for the systems whose pilots didn't fail before
                arguments += ["--tokenizer", str(out / TOKENIZERS / system.tokenizer)]
            log = folder / stage / f"{system.name}.log"
            name = system.name if stage == "generator" else f"the tokenizer of {system.name}"
            made[stage, system.name] = children.Job(name, [(arguments, done)], workdir, log, needs, enough)
    say(f"timing some updates of each of {len(systems)} systems")
    cores = len(children.shares(jobs)[0] or ())

    def ended(job: children.Job) -> None:
        stage, name = next(key for key, value in made.items() if value is job)
        own = plan["systems"][name]
        if job.failed:
            own["failed"] = job.failed
            say(f"{job.name}: failed, and is left out: {job.failed}")
            return
        found = timed(job.workdir / stage)
        own.setdefault("pilot", dict(cores=cores))[stage] = found
        if found:
            say(f"{job.name}: {found['compiling']:.1f} s to compile, {found['update']:.3g} s an update")

    for system in systems:
        plan["systems"][system.name].pop("failed", None)
    children.run(list(made.values()), jobs, environment, ended)


def timed(directory: pathlib.Path) -> dict[str, float]:
    """Seconds of compiling and of an update, mean, by the records of a pilot's stage; {} while they are too few."""
    from vargen.training import metrics

    seconds = [row["seconds"] for row in metrics.read(directory / metrics.FILE)]
    if len(seconds) < LEAST or (len(seconds) < MOST and seconds[-1] - seconds[FIRST - 1] < LONG):
        return {}
    update = max((seconds[-1] - seconds[FIRST - 1]) / (len(seconds) - FIRST), 1e-4)
    return dict(compiling=round(max(seconds[0] - update, 0.0), 3), update=round(update, 5))


def pilot(config: ConfigDict) -> ConfigDict:
    """A config of a few updates, each of which is recorded."""
    c = trained(config, MOST, MOST)
    for group in (c.tokenizer_training, c.training):
        group.update(log_every=1, save_every=MOST, validate_every=0, image_every=0)
    c.training.augmented_copies = 1
    c.evaluation.update(samples=4, batch_size=4)
    return c


def trained(config: ConfigDict, tokenizer: int, generator: int) -> ConfigDict:
    """A config with so many updates of each, of which the learning rate rises for at most a tenth."""
    c = config.copy_and_resolve_references()
    for group, count in ((c.tokenizer_training, tokenizer), (c.training, generator)):
        group.steps = count
        group.warmup_steps = min(group.warmup_steps, count // 10)
    return c


def write_config(file: pathlib.Path, config: ConfigDict) -> None:
    """A config as a file for --config."""
    from vargen import paths
    from vargen.config import to_json

    paths.write_text(file, to_json(config))
