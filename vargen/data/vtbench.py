"""VTBench's pictures from disk, in the layout in which they are published (arXiv 2505.13439, huaweilin/VTBench).

A folder for each set, Parquet files in it, whose column `image` is dict(bytes, path); a file's name begins with its
split. `hf download huaweilin/VTBench --repo-type dataset --local-dir DIR` makes it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from vargen import paths
from vargen.data import image_file
from vargen.errors import UserError

ROWS = 16  # pictures of a file in memory at once


class Set(NamedTuple):
    """One of the benchmark's sets.

    Attributes:
      pattern: of its files, below the folder.
      task: "reconstruction", "detail" or "text".
      whole: whether pictures keep their size where a tokenizer takes any; else they are cut to the model's.
      language: of its texts, as Tesseract calls it.
    """

    pattern: str
    task: str
    whole: bool
    language: str = ""


SETS = dict(
    imagenet=Set("imagenet/val-*.parquet", "reconstruction", False),
    high_resolution=Set("high_quality_1024/test-*.parquet", "reconstruction", True),
    varying_resolution=Set("DIV2K/test-*.parquet", "reconstruction", True),
    patterns=Set("patterns/test-*.parquet", "detail", True),
    posters=Set("movie_posters/test-*.parquet", "text", True, "eng"),
    abstracts=Set("arxiv_04_2025/test-*.parquet", "text", True, "eng"),
    chinese=Set("*/Chinese-*.parquet", "text", True, "chi_sim"),
    hindi=Set("*/Hindi-*.parquet", "text", True, "hin"),
    japanese=Set("*/Japanese-*.parquet", "text", True, "jpn"),
    korean=Set("*/Korean-*.parquet", "text", True, "kor"),
)


def files(folder: paths.Path) -> dict[str, list[paths.Path]]:
    """The files of the sets that are there, by the names in `SETS`.

    Raises:
      UserError: none of them.
    """
    found = {name: sorted(folder.glob(one.pattern)) for name, one in SETS.items()}
    if not any(found.values()):
        raise UserError(
            f"--vtbench {folder}: expected VTBench's folders, such as {SETS['patterns'].pattern}, found none"
        )
    return {name: some for name, some in found.items() if some}


def count(file: paths.Path) -> int:
    """How many pictures a file has.

    Raises:
      UserError: no Parquet file, or one without the column.
    """
    with _table(file) as table:
        return table.metadata.num_rows


def pictures(file: paths.Path, channels: int) -> Iterator[np.ndarray]:
    """The pictures of a file, uint8 [H, W, channels] each of its size.

    Raises:
      UserError: as `count`, or a broken picture.
    """
    with _table(file) as table:
        for batch in table.iter_batches(ROWS, columns=["image"]):
            for cell in batch.column(0).to_pylist():
                if not isinstance(cell, dict) or not isinstance(cell.get("bytes"), bytes):
                    raise UserError(f"{file}: expected bytes in the column image, found {cell!r:.60}")
                yield image_file.read(io.BytesIO(cell["bytes"]), str(file), channels)


@contextlib.contextmanager
def _table(file: paths.Path) -> Iterator[Any]:
    """A Parquet file, open."""
    import pyarrow
    import pyarrow.parquet

    try:
        with file.open("rb") as opened:
            table = pyarrow.parquet.ParquetFile(opened)
            if "image" not in (names := table.schema_arrow.names):
                raise UserError(f"{file}: expected a column image, found {', '.join(names) or 'none'}")
            yield table
    except pyarrow.ArrowException as error:
        said = str(error).splitlines()[0]
        raise UserError(f"{file}: expected a Parquet file, found a broken one ({said})") from error
