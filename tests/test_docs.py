"""What the documentation says in code is run."""

import doctest
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_there_are_pages():
    assert "step_through.md" in PAGES


@pytest.mark.parametrize("page", PAGES)
def test_pages(page):
    failed, run = doctest.testfile(str(ROOT / "docs" / page), module_relative=False)
    assert run > 10 and not failed
