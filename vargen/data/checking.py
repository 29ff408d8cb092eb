"""Reading all of a data set beforehand, to know every broken file."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Sequence

from vargen import progress
from vargen.data.folder import FolderSource, say_copies
from vargen.data.image_file import BrokenImage
from vargen.data.listing import natural
from vargen.data.pipeline import READERS
from vargen.data.sources import Source
from vargen.errors import UserError
from vargen.spelling import counted

NAMED = 10
AT_ONCE = 16  # images that a thread reads at once


def check(sources: Sequence[Source]) -> None:
    """Reads every item of some sources; prints how many there are, and which broken ones are skipped.

    Of a folder's splits it is also said how many held-out files are equal to training files, however many there are.

    Args:
      sources: such as the splits of a data set. Of those held in memory nothing needs to be read.

    Raises:
      UserError: what cannot be read, by name, where it is more than may be skipped.
    """
    items = [(source, i) for source in sources if not source.in_memory for i in range(len(source))]

    def read(some: list[tuple[Source, int]]) -> tuple[int, list[tuple[Source, int, UserError]]]:
        found = []
        for source, i in some:
            try:
                source.read(i)
            except UserError as error:
                found.append((source, i, error))
        return len(some), found

    parts = [items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE)]
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        done = pool.map(read, parts)
        if items:
            done = progress.each(done, len(items), "checking data", size=lambda part: part[0])
        wrong = [broken for _, part in done for broken in part]
    wrong.sort(key=lambda found: natural(_name(*found[:2])))
    found = f"{len(wrong)} of {len(items)} images that cannot be read"
    allowed = max((s.broken.most for s in sources if isinstance(s, FolderSource)), default=0)
    if len(wrong) > allowed or any(not isinstance(error, BrokenImage) for *_, error in wrong):
        names = [_name(source, i) for source, i, _ in wrong[:NAMED]]
        more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        where = f"{sources[0].name}: expected whole images, found {found}"
        raise UserError(f"{where}: {', '.join(names)}{more}; the first: {wrong[0][2]}")
    for source, i, error in wrong:
        if isinstance(source, FolderSource) and isinstance(error, BrokenImage):
            source.broken.skip(source.files[i], error)
    match sources:
        case [FolderSource() as training, FolderSource() as held_out]:
            say_copies(training.name, training.files, held_out.files)
    print(f"{counted(len(items), 'image')} checked, {len(wrong) or 'none'} broken", flush=True)


def _name(source: Source, index: int) -> str:
    if isinstance(source, FolderSource):
        return os.fspath(source.files[index].relative_to(source.root))
    return f"number {index}"
