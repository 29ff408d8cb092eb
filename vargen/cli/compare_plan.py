"""What `vargen compare` will do: how many updates each budget is, written down once before anything is trained."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vargen import progress
from vargen.cli import budgets, compare_pilots, compared, env
from vargen.cli.budgets import Budget, Cost
from vargen.errors import UserError

if TYPE_CHECKING:
    import pathlib

    from vargen.cli.compare_progress import Tally

FILE = "plan.json"
CLASSIFIERS, FIELDS = (
    "frechet_distance_classifier",
    "fid",
)  # what it is ranked by, without a reference and with one


@dataclasses.dataclass
class Request:
    """What was asked for.

    Attributes:
      systems: see `compared`.
      budgets: of generators, from the smallest, of one unit.
      tokenizer: the budget of tokenizers.
      share: whether --share-tokenizer was.
      jobs: how many runs share the cores: with other shares neither times nor speeds would be beside each other.
      reference, inception: as of `vargen evaluate`, both or neither.
    """

    systems: list[compared.System]
    budgets: tuple[Budget, ...]
    tokenizer: Budget
    share: bool
    jobs: int
    reference: str | None = None
    inception: str | None = None

    def told(self) -> dict[str, Any]:
        """As the plan has it, by which it is known again."""
        return dict(
            systems={s.name: s.text for s in self.systems},
            budget=[str(b) for b in self.budgets],
            tokenizer_budget=str(self.tokenizer),
            share_tokenizer=self.share,
            jobs=self.jobs,
            reference=self.reference,
            inception=self.inception,
            configs={s.name: compared.plain(s.config) for s in self.systems},
        )

    def timed(self, stage: str) -> bool:
        """Whether a stage's budget is one of time."""
        amount = self.tokenizer if stage == "tokenizer" else self.budgets[0]
        return amount.unit == budgets.SECONDS

    @property
    def piloted(self) -> bool:
        """Whether updates are timed before the plan is made."""
        return any(map(self.timed, ("tokenizer", "generator")))

    @property
    def ranked(self) -> str:
        """The metric that it is ranked by."""
        return CLASSIFIERS if self.reference is None else FIELDS


def read(out: pathlib.Path) -> dict[str, Any] | None:
    """The plan in a folder; None where the comparison begins.

    Raises:
      UserError: the folder holds something else, or a damaged plan.
    """
    file = out / FILE
    if not file.is_file():
        if (
            found := sorted(p.name for p in out.iterdir() if p.name not in (compare_pilots.FOLDER, ".lock"))
            if out.is_dir()
            else []
        ):
            raise UserError(
                f"--out {out}: expected a new folder, or one of `vargen compare`, found {found[0]}"
            )
        return None
    try:
        plan = json.loads(file.read_text())
        named, told = plan["asked"]["systems"].keys(), plan["systems"].values()
        if named != plan["asked"]["configs"].keys() or any({"failed", "unfit"} - own.keys() for own in told):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: expected a plan of `vargen compare`, found a damaged one") from error
    return plan


def check(out: pathlib.Path, plan: Mapping[str, Any], request: Request) -> None:
    """Checks that a plan is of what is asked for; systems may come to it.

    Raises:
      UserError: it is of another comparison; the field is named.
    """
    from vargen.config import from_json
    from vargen.training import resume

    was, now = plan["asked"], request.told()
    if any(now["systems"].get(name) != text for name, text in was["systems"].items()):
        raise _another(out, "systems", was["systems"], now["systems"])
    for field in ("budget", "tokenizer_budget", "share_tokenizer", "jobs", "reference", "inception"):
        if was.get(field) != now[field]:
            raise _another(out, field, was.get(field), now[field])
    for system in request.systems:
        if (config := was["configs"].get(system.name)) is None:
            continue
        for field, a, b in resume.differences(from_json(json.dumps(config)), system.config):
            raise _another(out, f"config field {field} of {system.name}", a, b)


def _another(out: pathlib.Path, field: str, was: Any, now: Any) -> UserError:
    def text(value: Any) -> str:
        if isinstance(value, Mapping):
            return " ".join(map(str, value.values()))
        if isinstance(value, list) and field.endswith("budget"):
            return ",".join(value)
        return "none" if value is None else str(value)

    return UserError(
        f"--out {out}: holds another comparison: expected {field} {text(was)}, found {text(now)}; take another folder"
    )


def described(request: Request, plan: dict[str, Any] | None) -> dict[str, Any]:
    """A plan in which every system is described, and those that are new to it have no updates yet."""
    if plan is None:
        plan = dict(asked={}, machine="", systems={}, tokenizers={})
    for system in request.systems:
        if system.name not in plan["systems"]:
            plan["systems"][system.name] = _described(system)
    return plan | dict(asked=request.told())


def unplanned(request: Request, plan: Mapping[str, Any]) -> list[compared.System]:
    """The systems that have no updates yet: new ones, and those whose pilot failed."""
    return [s for s in request.systems if "updates" not in plan["systems"][s.name]]


def complete(
    out: pathlib.Path, request: Request, plan: dict[str, Any], environment: Mapping[str, str], tally: Tally
) -> None:
    """Times what has no updates yet, completes the plan and writes it.

    A system whose pilot fails has a line that says so, and no updates; one that a budget doesn't fit has the line
    beside that budget.

    Raises:
      UserError: nothing could be trained at all; or a plan of times was made on another machine.
    """
    from vargen import paths

    missing = unplanned(request, plan)
    if not missing:
        return
    here = machine(environment)
    if plan["machine"] and request.piloted and plan["machine"] != here:
        raise _another(out, "machine", plan["machine"], here)
    plan["machine"] = plan["machine"] or here
    if request.piloted:
        made = compare_pilots.jobs(out, missing, plan)
        compare_pilots.run(made, request.jobs, environment, plan, tally)
    for system in missing:
        _fit(system, request, plan)
    failures = [failure(s, str(b), plan) for s in request.systems for b in request.budgets]
    if all(failures):
        more = f"; no other of the {len(request.systems)} systems can be trained either"
        raise UserError(failures[0] + more * (len(request.systems) > 1))
    paths.write_text(out / FILE, json.dumps(plan, indent=1) + "\n")
    shutil.rmtree(out / compare_pilots.FOLDER, ignore_errors=True)


def failure(system: compared.System, budget: str, plan: Mapping[str, Any]) -> str:
    """Why a system can't be trained with a budget, in a line; "" where it can."""
    own, owner = plan["systems"][system.name], plan["systems"][system.tokenizer]
    found = own["failed"].get("generator") or own["unfit"].get(budget)
    return found or owner["failed"].get("tokenizer") or owner["unfit"].get("tokenizer") or ""


def _fit(system: compared.System, request: Request, plan: dict[str, Any]) -> None:
    """Updates of a system, and of its tokenizer; of what a budget doesn't pay for the line that says so."""
    own = plan["systems"][system.name]

    def pays(key: str, stage: str, budget: Budget, name: str, flag: str) -> int | None:
        try:
            return budgets.steps(budget, _cost(own, stage), name, flag)
        except UserError as error:
            own["unfit"][key] = str(error)
            progress.say(f"{name}: left out: {error}")
            return None

    if system.tokenizer == system.name and system.name not in plan["tokenizers"]:
        if not own["trained"]:
            plan["tokenizers"][system.name] = dict(trained=False)
        elif "tokenizer" not in own["failed"]:
            name = f"the tokenizer of {system.name}"
            count = pays("tokenizer", "tokenizer", request.tokenizer, name, "--tokenizer-budget")
            if count is not None:
                plan["tokenizers"][system.name] = dict(trained=True, updates=count)
    if "generator" not in own["failed"]:
        counts = {str(b): pays(str(b), "generator", b, system.name, "--budget") for b in request.budgets}
        own["updates"] = {budget: count for budget, count in counts.items() if count is not None}


def machine(environment: Mapping[str, str]) -> str:
    """The devices and the processor that children have, by one of them."""
    command = [sys.executable, "-m", "vargen", "env", "--json"]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True)
    try:
        found = json.loads(done.stdout)
        kind, _, devices = found["devices"].partition(": ")
        devices = "" if kind == "cpu" else devices.partition(" in ")[0]
        return env.machine(devices, int(found["cores"]), found["processor"])
    except (ValueError, KeyError):
        return "unknown"


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
        failed={},
        unfit={},
    )


def _cost(own: Mapping[str, Any], stage: str) -> Cost:
    timed = own.get("pilot", {}).get(stage, {})
    return Cost(own["batch"][stage], own["flops"][stage], timed.get("compiling"), timed.get("update"))
