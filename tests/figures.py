"""Reading the documentation's tables and the results that they are held to."""

import decimal
import json
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
TEXT = "\n".join(page.read_text() for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"


def results(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def rows(heading, columns):
    """The rows of that many cells under a heading, by their first cell; an empty one is the row's above."""
    section = re.search(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", TEXT, flags=re.DOTALL | re.MULTILINE)[1]
    found, name = {}, ""
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == columns and set(cells[-1]) != set("-"):
            name = cells[0] or name
            found.setdefault(name, []).append(cells[1:])
    return found


def agree(texts, values):
    """Every number in the texts is the next value, rounded (halves up) to the digits that it shows."""
    numbers = [n.replace(",", "") for n in re.findall(NUMBER, " ".join(texts))]
    rounded = [
        str(decimal.Decimal(str(v)).quantize(decimal.Decimal(n), decimal.ROUND_HALF_UP))
        for n, v in zip(numbers, values, strict=True)
    ]
    assert numbers == rounded


def percent(*values):
    return [decimal.Decimal(str(v)) * 100 for v in values]
