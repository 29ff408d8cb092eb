"""The runs of a comparison: folders, and commands that fill them."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vargen import paths
from vargen.cli import children, compare_pilots, compare_plan, compared, stages
from vargen.cli.compare_plan import Request
from vargen.report import METRICS

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from vargen.cli.compared import System

RUNS, PICTURES = "runs", "pictures.npz"
TOLD = (
    "label_accuracy",
    compare_plan.CLASSIFIERS,
    compare_plan.FIELDS,
    "generator_train_seconds",
)  # in a line, of a run that ends


@dataclasses.dataclass
class Run:
    """One system, trained with one budget and one seed.

    Attributes:
      system, budget, seed: which.
      updates: of its generator.
      tokenizer: whose tokenizer it takes.
      tokenizer_updates: of that; None where it has nothing to train.
      workdir: `OUT/runs/SYSTEM/BUDGET/seedK`; the config and the log lie beside it.
      config: of the system.
      measuring: further words for `vargen evaluate`.
      failed: what became of it, in a line; "" while it has not failed.
    """

    system: str
    budget: str
    seed: int
    updates: int
    tokenizer: str
    tokenizer_updates: int | None
    workdir: pathlib.Path
    config: ConfigDict
    measuring: Sequence[str] = ()
    failed: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.system}, {self.budget}, seed {self.seed}"

    def measured(self) -> dict[str, float]:
        """What was measured, as its metrics.json has it; {} where that isn't done."""
        try:
            found = json.loads((self.workdir / "metrics.json").read_text())
        except (OSError, ValueError):
            return {}
        # The report is written last.
        return found if (self.workdir / "report.html").is_file() else {}

    def text(self) -> str:
        """The first of what was measured, for a line."""
        found = self.measured()
        shown = [k for k in TOLD if found.get(k) is not None]
        return (
            ", ".join(f"{METRICS[k].label.strip('… ')} {METRICS[k].show(found[k])}" for k in shown)
            or "measured"
        )

    def job(self, tokenizers: Mapping[str, children.Job]) -> children.Job:
        """The commands that it is."""
        tokenizer_updates = self.tokenizer_updates or self.config.tokenizer_training.steps
        c = compared.trained(self.config, tokenizer_updates, self.updates)
        c.seed = (self.config.seed + self.seed) % 2**64
        c.evaluation.seed = (self.config.evaluation.seed + self.seed) % 2**64
        file = self.workdir.with_name(f"{self.workdir.name}.json")
        compared.write(file, c)
        owner = tokenizers[self.tokenizer]
        train = [
            "train",
            "--config",
            str(file),
            "--workdir",
            str(self.workdir),
            "--tokenizer",
            str(owner.workdir),
        ]
        evaluate = ["evaluate", "--workdir", str(self.workdir), "--pictures", str(self.workdir / PICTURES)]
        evaluate += self.measuring
        trained = functools.partial(stages.complete, paths.path(self.workdir) / "generator", self.updates)
        commands = [(train, trained), (evaluate, lambda: bool(self.measured()))]
        log = self.workdir.with_name(f"{self.workdir.name}.log")
        return children.Job(self.name, commands, self.workdir, log, (owner,))


def runs(out: pathlib.Path, request: Request, plan: Mapping[str, Any], seeds: int) -> list[Run]:
    """All of them: of each seed every system and budget, so that what there is early has all systems in it."""
    measuring = []
    if request.reference is not None and request.inception is not None:
        measuring = ["--reference", request.reference, "--inception", request.inception]
    return [
        Run(
            system.name,
            budget,
            seed,
            plan["systems"][system.name].get("updates", {}).get(budget, 0),
            system.tokenizer,
            plan["tokenizers"].get(system.tokenizer, {}).get("updates"),
            out / RUNS / system.name / budget / f"seed{seed}",
            system.config,
            measuring,
            compare_plan.failure(system, budget, plan),
        )
        for seed in range(seeds)
        for budget in map(str, request.budgets)
        for system in request.systems
    ]


def tokenizers(
    out: pathlib.Path, systems: Sequence[System], plan: Mapping[str, Any]
) -> dict[str, children.Job]:
    """Their training, by the names of the systems that they are of."""
    found = {}
    for system in systems:
        if (own := plan["tokenizers"].get(system.name)) is None:
            continue
        workdir = out / compare_pilots.TOKENIZERS / system.name
        updates = own.get("updates", system.config.tokenizer_training.steps)
        file = workdir.with_name(f"{system.name}.json")
        compared.write(file, compared.trained(system.config, updates, system.config.training.steps))
        arguments = ["train", "--config", str(file), "--workdir", str(workdir), "--stage", "tokenizer"]
        done = functools.partial(compare_pilots.tokenizer_done, out, system.name, plan)
        name, log = f"the tokenizer of {system.name}", workdir.with_name(f"{system.name}.log")
        found[system.name] = children.Job(name, [(arguments, done)], workdir, log, done=done())
    return found
