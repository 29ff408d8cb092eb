"""The page and the picture about several systems: whole in one file, with everything that they were given."""

import re

import numpy as np
import pytest
from PIL import Image
from test_page import Page

from vargen.report import charts, comparison, ranking
from vargen.report.metrics import engineering
from vargen.report.ranking import Spread

RNG = np.random.default_rng(0)
NAMES = ("a", "b", "<c>")


def fake(**changes):
    """Three systems of which the third has failed, with two budgets."""
    spreads = {}
    for i, name in enumerate(NAMES):
        numbers = dict(
            frechet_distance_classifier=Spread(2.0 + i, 0.7, 3),
            label_accuracy=Spread(0.9, 0.01, 3),
            images_per_second=Spread(100.0 / (i + 1), 1.0, 3),
            training_flops=Spread(3e12 * (i + 1), 0.0, 3),
            sampling_flops=Spread(5e6, 0.0, 3),
        )
        numbers["bits_per_dimension" + "_bound" * i] = Spread(0.5 + i, 0.1, 3)
        spreads[name] = {"30s": numbers, "60s": numbers} if name != "<c>" else {"30s": {}, "60s": {}}
    standing = {name: spreads[name]["60s"]["frechet_distance_classifier"] for name in "ab"}
    images = RNG.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    system = comparison.System("VAR & co", "var:digits", "its own", "exact", {"30s": 2, "60s": 5}, 77)
    other = comparison.System(
        "RandAR", "randar:digits", "that of a (equal settings)", "bound", {"30s": 1, "60s": 6}, 77
    )
    failed = comparison.System("MAR", "mar:digits", "its own", "none: no explicit likelihood", {}, None)
    arguments = dict(
        title="3 systems",
        systems={"a": system, "b": other, "<c>": failed},
        summary=spreads,
        budgets={"30s": ("30 s", 30.0), "60s": ("60 s", 60.0)},
        unit="seconds",
        ranks=ranking.ranks(standing),
        ties=ranking.ties(standing),
        ranked="frechet_distance_classifier",
        pictures={name: (images, np.arange(12) % 3) for name in "ab"},
        classes=["cat", "dog", "<cow>"],
        real=dict(real_label_accuracy=0.987),
        failures={"<c>, 60s, seed 0": "killed <by> SIGKILL"},
        notes=["One & only."],
        facts={"Data": "digits"},
        command="vargen compare a b",
    )
    return comparison.Comparison(**arguments | changes)


def test_the_page_is_one_whole_file(tmp_path):
    text = comparison.write(tmp_path / "new", fake()).read_text()
    page = Page(re.sub(r"<circle[^>]*/>", "", text))
    assert page.open == []
    assert len(page.addresses) == 2 * 3 * 4  # two systems, three classes, all four pictures of each
    assert all(a.startswith("data:image/png;base64,") for a in page.addresses)
    assert not re.search(r"https?:|url\(|@import|<script", text)
    for words in (
        "2.00 ± 0.70",  # mean and spread
        "≤ 1.500 ± 0.100 <small>bound</small>",
        "<small>none: no explicit likelihood</small>",
        "98.7 %",  # real pictures
        "VAR &amp; co and RandAR share the first place",
        "3 T ± 0",
        "tokenizer: that of a (equal settings)",
        "killed &lt;by&gt; SIGKILL",
        "By training budget",
        "With 30 s",
        "One &amp; only.",
        "&lt;cow&gt;",
        "vargen compare a b",
    ):
        assert words in text, words
    with Image.open(tmp_path / "new" / "ranking.png") as picture:
        assert picture.mode == "RGB" and picture.width > 600


def test_nothing_was_measured(tmp_path):
    none = {name: {"30s": {}, "60s": {}} for name in NAMES}
    text = comparison.write(tmp_path, fake(summary=none, ranks={}, ties={}, pictures={}, real={})).read_text()
    assert "No ranking" in text and not (tmp_path / "ranking.png").exists()


def test_titles_that_two_have_are_names():
    c = fake()
    c.systems["b"].title = "VAR & co"
    assert [c.called(name) for name in NAMES] == ["a", "b", "MAR"]


def test_marks():
    """Places on logarithmic axes; a bar for a spread, a line between points of one name."""
    series = {"a": [(1.0, 2.0, 0.0), (100.0, 20.0, 5.0), (10.0, 6.0, 0.0)], "b": [(3.0, float("nan"), 0.0)]}
    svg = charts.marks("t", "x", series)
    at = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)]
    assert len(at) == 3 and at[1][0] - at[0][0] == pytest.approx(at[2][0] - at[1][0], abs=0.2)
    assert at[0][1] > at[1][1] > at[2][1] and svg.count("<polyline") == 2
    assert charts.marks("t", "x", {"a": []}) == charts.marks("t", "x", {}) == ""


@pytest.mark.parametrize("y", [0.0, 5.0, -1.0, 1e-9, 1e9])
def test_marks_of_odd_values_stay_inside(y):
    svg = charts.marks("t", "x", {"a": [(1.0, y, 0.0), (1.0, y + 1e-3, 1.0)], "b": [(2.0, y, abs(y))]})
    numbers = re.findall(r'<circle cx="([-\d.]+)" cy="([-\d.]+)"', svg)
    numbers += [p.split(",") for line in re.findall(r'points="([^"]*)"', svg) for p in line.split()]
    assert all(0 <= float(a) <= 460 and 0 <= float(b) <= 300 for a, b in numbers)


def test_large_numbers():
    shown = [engineering(x) for x in (0, 950, 999.6, 1234, 45_600_000, 7.89e9, 3e14, 2e19)]
    assert shown == ["0", "950", "1 k", "1.23 k", "45.6 M", "7.89 G", "300 T", "20 E"]
