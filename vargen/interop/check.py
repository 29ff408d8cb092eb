"""Compares vargen with goldens of the authors' own code:

    python -m vargen.interop.check FILE.npz ...

Each file is recognised by its arrays and `meta`, whatever its sizes; every output that can be compared is, in
float32 on the CPU. Exits 0 only if all of them hold.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from vargen.errors import UserError

FAMILIES = ("rar", "llamagen", "llamagen_vq", "maskgit_vqgan", "mar", "mar_kl", "ops", "var", "var_tokenizer")


def check(path: str) -> tuple[str, list[Any], list[str]]:
    """Compares one golden.

    Args:
      path: the .npz.

    Returns:
      The family, the comparisons (`parity.golden.Result`), and the names of outputs that were not compared.

    Raises:
      UserError: a golden of nothing that is known, or broken.
    """
    from vargen.interop.parity.golden import Golden

    golden = Golden(path)
    for name in FAMILIES:
        family = importlib.import_module(f"vargen.interop.parity.{name}")
        if family.matches(golden):
            results = []
            try:
                results.extend(family.results(golden))  # keeps what came before an error
            except UserError as error:
                print(error, file=sys.stderr)
            done = {r.output for r in results}
            return name, results, [output for output in golden.outputs() if output not in done]
    raise UserError(f"golden {path}: expected one of {', '.join(FAMILIES)}, found none of their arrays")


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks the files, prints a table for each; returns the exit code: 0, 1 where something differs, 2."""
    paths = list(sys.argv[1:] if arguments is None else arguments)
    if not paths or any(p.startswith("-") for p in paths):
        print("usage: python -m vargen.interop.check FILE.npz ...", file=sys.stderr)
        return 2
    failed = total = 0
    broken = False
    for path in paths:
        try:
            family, results, left = check(path)
        except UserError as error:
            print(f"{path}: {error}", file=sys.stderr)
            broken = True
            continue
        width = max((len(r.output) for r in results), default=6)
        print(f"{path}: {family}, {len(results)} comparisons")
        print(f"  {'output':{width}}  max abs error  tolerance  verdict")
        for r in results:
            verdict = "DIFFERS" if not r.holds else "ok (input)" if r.restated else "ok"
            print(f"  {r.output:{width}}  {r.error:13.3g}  {r.tolerance:9.3g}  {verdict}")
        if left:
            print(f"  not compared: {', '.join(left)}")
        failed += sum(not r.holds for r in results)
        total += len(results)
        broken |= not results
    print(f"{total - failed} of {total} comparisons hold in {len(paths)} files")
    return 2 if broken else int(failed > 0)


if __name__ == "__main__":
    # Goldens are float32 on a CPU; set before JAX is imported.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main())
