"""`vargen push`: a model to the Hugging Face Hub."""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
from typing import TYPE_CHECKING

from vargen import schema
from vargen.cli import describe
from vargen.errors import UserError

if TYPE_CHECKING:
    from vargen.hub import Place
    from vargen.model import Model
    from vargen.paths import Path

SUMMARY = "upload a model to the Hugging Face Hub"
DESCRIPTION = """
Uploads config, averaged parameters (safetensors) and names of classes of a trained or imported model, and a
README.md where the repository has none; nothing else. `vargen.load` and every command that reads a model
then take the hf:// name. Repository and branch are made where they are missing. Needs the extra vargen[hub]
and a token: HF_TOKEN, or `hf auth login`.
"""
EXAMPLES = """\
  vargen push runs/quickstart hf://me/digits
  vargen push models/var_d16 hf://me/var --private --message "VAR-d16, imported"
  vargen push runs/b hf://me/digits/b --branch experiment
  vargen sample --workdir hf://me/digits --out samples
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    parser.add_argument("directory", metavar="DIR", help="a trained or imported model")
    parser.add_argument("target", metavar="hf://OWNER/REPO", help="where to; [@BRANCH][/FOLDER] may follow")
    parser.add_argument("--private", action="store_true", help="make a repository that only you can see")
    parser.add_argument("--branch", "--revision", metavar="NAME", help="the branch to commit to (main)")
    parser.add_argument("--message", default="", metavar="TEXT", help="of the commit")


def run(args: argparse.Namespace) -> None:
    """Pushes."""
    import vargen
    from vargen import hub, loading, paths

    workdir = paths.path(args.directory, "directory")
    where = target(args.target, args.branch)
    loading.check(workdir)
    hub.check_token(where)
    model = vargen.load(workdir)
    with tempfile.TemporaryDirectory() as folder:
        files = published(model, workdir, pathlib.Path(folder))
        files[hub.README] = card(model, where).encode()
        pushed, card_written = hub.push(files, where, private=args.private, message=args.message)
    kept = "" if card_written else f"; its {hub.README} is left as it was"
    print(f'pushed {pushed}{kept}; vargen.load("{where}") reads it')


def target(text: str, branch: str | None) -> Place:
    """Where to push.

    Raises:
      UserError: no place on the hub, or two branches.
    """
    from vargen import hub

    if not hub.is_hub(text):
        raise UserError(f"push: expected hf://OWNER/REPO to push to, found {text!r:.200}")
    where = hub.place(text, "push")
    if branch is None:
        return where
    if not branch.strip() or not branch.isprintable():
        raise UserError(f"--branch: expected a name, found {branch!r:.200}")
    if where.revision not in (None, branch):
        raise UserError(f"push: expected one branch, found {where.revision!r} and --branch {branch!r}")
    return where.at(branch)


def published(model: Model, workdir: Path, folder: pathlib.Path) -> dict[str, pathlib.Path | bytes]:
    """The files of a model as the hub has them: name -> a file of this machine, or what is in it.

    Args:
      model: what `vargen.load(workdir)` gave.
      workdir: where names of classes and the origin of imported weights lie.
      folder: on this machine, for parameters that don't lie in one file yet.
    """
    import jax
    import numpy as np

    from vargen import classes as class_names
    from vargen import hub, paths, weights_file
    from vargen.config import override, to_json
    from vargen.training import checkpoints

    c = model.config
    losses = "tokenizer_training.losses"
    for field in ("data.path", f"{losses}.perceptual_weights"):  # of this machine
        c = override(c, [(field, "")])
    for place, group in (("tokenizer", c.tokenizer), (losses, c.tokenizer_training.losses)):
        for name in ("discriminator", "teacher"):
            if (group.get(name) or {}).get("weights"):
                c = override(c, [(f"{place}.{name}.weights", "")])
    config = to_json(c).encode()
    files: dict[str, pathlib.Path | bytes] = {"config.json": config}
    for part, params in (("tokenizer", model.tokenizer_params), ("generator", model.generator_params)):
        if params is None:
            continue
        weights = workdir / part / checkpoints.WEIGHTS
        if checkpoints.last_whole(workdir / part / checkpoints.FOLDER, quiet=True) is None:
            file = paths.local(weights)
        else:
            file = folder / f"{part}.safetensors"
            weights_file.write(file, jax.tree.map(np.asarray, params))
        files |= {f"{part}/{checkpoints.CONFIG}": config, f"{part}/{checkpoints.WEIGHTS}": file}
    if class_names.stored(workdir) is not None:
        names = class_names.of(workdir, c.data.num_classes)
        files[class_names.FILE] = (json.dumps(names) + "\n").encode()
    if paths.is_file(workdir / hub.ORIGIN):
        files[hub.ORIGIN] = (workdir / hub.ORIGIN).read_bytes()
    return files


def card(model: Model, where: Place) -> str:
    """The README.md of a model."""
    from vargen.config import AXES
    from vargen.models import count_text, parameter_count

    c = model.config
    name = "".join(x for x in c.name if x.isalnum() or x in " -_.") or where.repo.partition("/")[2]
    rows = {axis: describe.part_text(c[axis]) for axis in AXES if axis in c}
    parts = dict(tokenizer=model.tokenizer, generator=model.generator)
    sizes = {k: count_text(parameter_count(v)) for k, v in parts.items() if v is not None}
    rows["parameters"] = ", ".join(f"{part} {size}" for part, size in sizes.items())
    rows["images"] = f"{'×'.join(map(str, schema.size(c.data)))}, {c.data.channels} channels"
    use = "images = model.reconstruct(pictures)  # float [B, H, W, C] in [-1, 1]"
    if model.generator is not None:
        rows["classes"] = str(c.data.num_classes)
        use = "images = model.sample([0, 1], key=0)  # float [2, H, W, C] in [-1, 1]"
        if model.generator.condition.takes == "texts":
            rows.pop("classes")
            use = 'images = model.sample(["a caption"], key=0)  # float [1, H, W, C] in [-1, 1]'
        elif model.generator.condition.takes == "embeddings":
            rows.pop("classes")
            use = "# model.sample: images of captions, given as a text encoder's states"
    table = "\n".join(f"| {k} | {' '.join(v.replace('|', '/').split())} |" for k, v in rows.items())
    kind = (
        "A generator of images, and its tokenizer" if model.generator is not None else "A tokenizer of images"
    )
    return CARD.format(name=name, kind=kind, table=table, where=where, use=use)


CARD = """\
---
library_name: vargen
---

# {name}

{kind}, for vargen: visual autoregressive generation in JAX.

| | |
|---|---|
{table}

```python
import vargen

model = vargen.load("{where}")
{use}
```
"""
