"""Compares vargen with goldens of the authors' own code:

    python -m vargen.interop.check FILE.npz ...

Each file is recognised by its arrays and `meta`, whatever its sizes; every output that can be compared is, in
float32 on the CPU. Exits 0 only if all of them hold.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from vargen.errors import UserError

FAMILIES = (
    "rar",
    "randar",
    "arpg",
    "acdit",
    "bsqvit",
    "dar",
    "flextok",
    "flexvar",
    "flexvar_vq",
    "gigatok",
    "hart_tokenizer",
    "ibq",
    "imagefolder",
    "larp",
    "llamagen",
    "llamagen_vq",
    "maskgit",
    "maskgit_vqgan",
    "mar",
    "mar_kl",
    "open_magvit2",
    "ops",
    "restok",
    "rqtransformer",
    "rqvae",
    "semanticist",
    "taming_mingpt",
    "taming_vqgan",
    "titok",
    "titok_tokenizer",
    "var",
    "var_tokenizer",
)


@dataclasses.dataclass
class Report:
    """What came of one golden.

    Attributes:
      family: whose it is.
      results: the comparisons (`parity.golden.Result`).
      left: names of outputs that were not compared.
      error: why comparing ended early; '' where it didn't.
    """

    family: str
    results: list[Any]
    left: list[str]
    error: str = ""

    @property
    def problem(self) -> str:
        """'' where everything that the golden holds was compared, by something that it could fail."""
        if self.error:
            return self.error
        if self.left:
            return f"not compared: {', '.join(self.left)}"
        if all(r.restated for r in self.results):
            return "expected outputs to compare, found none"
        return ""


def check(path: str) -> Report:
    """Compares one golden.

    Args:
      path: the .npz.

    Raises:
      UserError: a golden of nothing that is known, or broken.
    """
    from vargen.interop.parity.golden import Golden

    golden = Golden(path)
    for name in FAMILIES:
        family = importlib.import_module(f"vargen.interop.parity.{name}")
        if family.matches(golden):
            break
    else:
        raise UserError(f"golden {path}: expected one of {', '.join(FAMILIES)}, found none of their arrays")
    report = Report(name, [], [])
    try:
        report.results.extend(family.results(golden))  # keeps what came before an error
    except UserError as error:
        report.error = str(error)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        lines = str(error).strip().splitlines() or [""]
        report.error = f"golden {path}: cannot be computed ({type(error).__name__}: {lines[0][:300]})"
    done = {r.output for r in report.results}
    report.left = [output for output in golden.outputs() if output not in done]
    report.left += [] if report.error else golden.unread()
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks the files, prints a table for each.

    Returns:
      0 only if everything that they hold was compared and holds; 1 where something differs; 2 for a file that is
      broken or not compared whole.
    """
    paths = list(sys.argv[1:] if arguments is None else arguments)
    if not paths or any(p.startswith("-") for p in paths):
        print("usage: python -m vargen.interop.check FILE.npz ...", file=sys.stderr)
        return 2
    failed = total = 0
    broken = False
    for path in paths:
        try:
            report = check(path)
        except UserError as error:
            print(f"{path}: {error}", file=sys.stderr)
            broken = True
            continue
        results = report.results
        width = max((len(r.output) for r in results), default=6)
        print(f"{path}: {report.family}, {len(results)} comparisons")
        print(f"  {'output':{width}}  max abs error  tolerance  verdict")
        for r in results:
            verdict = "DIFFERS" if not r.holds else "ok (input)" if r.restated else "ok"
            print(f"  {r.output:{width}}  {r.error:13.3g}  {r.tolerance:9.3g}  {verdict}")
        if report.problem:
            print(f"{path}: {' '.join(report.problem.split())}", file=sys.stderr)
            broken = True
        failed += sum(not r.holds for r in results)
        total += len(results)
    print(f"{total - failed} of {total} comparisons hold in {len(paths)} files")
    return 2 if broken else int(failed > 0)


if __name__ == "__main__":
    # Goldens are float32 on a CPU; set before JAX is imported.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main())
