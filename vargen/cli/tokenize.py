"""`vargen tokenize`: what the tokenizer makes of the training images, stored once."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

from vargen.cli import common, flags
from vargen.errors import UserError
from vargen.spelling import counted

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from vargen.data import Source
    from vargen.paths import Path

SUMMARY = "store the codes or latents of the training images"
DESCRIPTION = """
Encodes the training images with the workdir's tokenizer and stores codes (or, for a continuous tokenizer, the
means and deviations of its latents) in WORKDIR/codes, so that a generator trains without the encoder in the
loop. config.training.augmented_copies says how many changed copies of the data are stored: changed at
random, or where data.crop and data.flip give a number of views, by one of them after the other.
`vargen train` does this by itself where it is needed.
"""
EXAMPLES = """\
  vargen tokenize --workdir runs/quickstart
  vargen tokenize --workdir runs/quickstart --config.training.augmented_copies=8
"""

FOLDER = "codes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    flags.add_config(parser, required=False)
    flags.add_check_data(parser)


def run(args: argparse.Namespace) -> None:
    """Stores the codes, whether or not some are there."""
    from vargen import data, paths
    from vargen.cli import lock
    from vargen.training import checkpoints, resume

    workdir = paths.path(args.workdir, "--workdir")
    config = common.read_config(args)
    _, params, step = checkpoints.load_params(workdir / "tokenizer")
    resume.check(config, workdir)
    sources = data.Sources(config.data)
    common.check_classes(workdir, sources["train"].classes)
    if args.check_data:
        common.check_data(sources)
    with lock.hold(workdir, "vargen tokenize"):
        store(config, workdir, sources["train"], params, step)


def store(
    config: ConfigDict,
    workdir: Path,
    source: Source,
    params: Any,
    step: int,
    *,
    again: bool = True,
    passes: int | None = None,
) -> Path:
    """Encodes the training images and stores what comes out.

    Args:
      config: its `data` and `training.augmented_copies` say what is encoded.
      workdir: where the codes go.
      source: the training images.
      params: of the trained tokenizer.
      step: at which they were saved.
      again: False keeps codes that the same tokenizer made of the same data, in as many copies or more.
      passes: how often training goes over the data: no more copies are made, but one of each view that there is.

    Returns:
      The directory of the codes.
    """
    import jax
    import numpy as np

    from vargen import data, progress
    from vargen.data import codes, transforms
    from vargen.models import build_tokenizer
    from vargen.tokenizers import usage

    directory = workdir / FOLDER
    copies = most = config.training.augmented_copies
    if passes is not None:
        copies = min(most, max(passes, transforms.views(config.data), 1))
    meta = dict(made_from(config, source), tokenizer_step=step, tokenizer_hash=fingerprint(params))
    stored = (not again and _stored(directory)) or {}
    if stored.pop("copies", 0) >= copies and stored == meta:
        return directory
    tokenizer = build_tokenizer(config)
    encode = jax.jit(tokenizer.stored)
    batch_size = min(config.evaluation.batch_size, len(source))
    batches = data.batches(
        source,
        batch_size=batch_size,
        seed=config.seed,
        settings=config.data,
        train=False,
        augment=most > 1,
        epochs=copies,
    )
    started = time.monotonic()
    total = copies * len(source)
    counts: Any = 0
    too_long = 0
    with codes.Writer(directory, dict(meta, copies=copies)) as writer:
        for batch in progress.each(batches, total, "tokenizing", size=lambda b: len(b["label"])):
            count = len(batch["label"])
            content = np.asarray(encode(params, data.padded(batch["image"], batch_size)))[:count]
            labels = batch["label"]
            if tokenizer.slot.stop is not None:
                whole = np.asarray(tokenizer.slot.stopped(content))
                too_long += int(np.sum(~whole))
                content, labels = content[whole], labels[whole]
            writer.add(content, labels)
            if content.dtype == np.int32 or tokenizer.slot.coded:
                some, exists = tokenizer.slot.codes(content), tokenizer.slot.exists(content)
                counts = counts + usage.count(some, tokenizer.grid.level_sizes, tokenizer.vocab, exists)
        if too_long == total:
            raise UserError(
                f"tokenizer {config.tokenizer.name}: expected pictures of less than {tokenizer.grid.size} codes, found "
                "none; a larger tokenizer.length holds longer ones"
            )
    spent = progress.duration(time.monotonic() - started)
    print(f"codes: {counted(total, 'picture')} in {spent}, in {directory}", flush=True)
    if too_long:
        print(
            f"{too_long} of them take more than {tokenizer.grid.size - 1} codes and are left out", flush=True
        )
    if np.ndim(counts):
        print(usage.line(usage.statistics(counts)), flush=True)
    return directory


def _stored(directory: Path) -> dict[str, Any] | None:
    """What made the codes that lie there, or None where there are none that are whole."""
    from vargen.data import codes

    if not directory.exists():
        return None
    try:
        return codes.load(directory).meta
    except UserError as error:
        print(f"{error}: they are made anew", flush=True)
        return None


def made_from(config: ConfigDict, source: Any) -> dict[str, Any]:
    """What decides what the codes are, as JSON gives it back."""
    settings = {
        k: v for k, v in config.data.to_dict().items() if k != "skip_broken"
    }  # stops, or changes nothing
    fields = dict(
        data=settings,
        images=source.fingerprint(),
        classes=source.classes,
        tokenizer=config.tokenizer.to_dict(),
        augmented_copies=config.training.augmented_copies,
        seed=config.seed,
    )
    return json.loads(json.dumps(fields))


def fingerprint(params: Any) -> str:
    """A hash of all parameters."""
    import jax
    import numpy as np

    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]
