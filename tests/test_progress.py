"""What long work says of itself, where there is no terminal and where there is one."""

import os
import pty
import re
import select
import termios

import numpy as np
import pytest
import tqdm

from vargen import data, progress
from vargen.data import checking, duplicates


class Shown(tqdm.tqdm):
    """A bar that the tests' TQDM_DISABLE doesn't hide."""

    def __init__(self, **options):
        super().__init__(disable=False, **options)


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    monkeypatch.setattr("tqdm.tqdm", Shown)


def lines(text):
    return [line for line in text.splitlines() if line]


def test_each_says_first_what_it_does_and_last_that_it_is_done(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PACE", 0.0)
    batches = [np.zeros(3), np.zeros(5)]
    assert list(progress.each(iter(batches), 8, "reading", unit="files")) == batches
    said = lines(capsys.readouterr().err)
    assert re.fullmatch(r"reading: 0 of 8 files, at work, 00:00 gone, \? left", said[0])
    assert re.fullmatch(r"reading: 8 of 8 files, \S+ files/s, 00:0\d gone, 00:00 left", said[-1])


def test_what_is_quick_is_not_said(capsys):
    list(progress.each([[1]], 1, "reading", delay=60.0))
    assert capsys.readouterr().err == ""


def test_a_line_above_the_bar(monkeypatch):
    """On a terminal the bar is cleared for the line, and drawn again below."""
    main, other = pty.openpty()
    termios.tcsetwinsize(other, (24, 120))
    with open(other, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setattr("sys.stdout", terminal)
        with progress.bar("reading", 2):
            progress.say("a.png: skipped")
        terminal.flush()
        text = ""
        while select.select([main], [], [], 0.1)[0]:
            text += os.read(main, 10_000).decode()
    os.close(main)
    shown = re.split(r"[\r\n]+", text)
    assert "a.png: skipped" in shown and sum(part.startswith("reading: 0 of 2") for part in shown) >= 2
    assert shown[shown.index("a.png: skipped") - 1].strip() == ""


class Few(data.ArraySource):
    in_memory = False


def test_checking_says_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PACE", 0.0)
    source = Few("few", ["a"], np.zeros((40, 8, 8, 1), np.uint8), np.zeros(40, int))
    checking.check([source])
    found = capsys.readouterr()
    said = lines(found.err)
    counts = [int(re.match(r"checking data: (\d+) of 40 images, ", line)[1]) for line in said]
    assert counts[0] == 0 and counts[-1] == 40 and counts == sorted(counts)
    assert {16, 32} <= set(counts)
    assert found.out == "40 images checked, none broken\n"


@pytest.mark.parametrize("patience, said", [(0.0, True), (60.0, False)])
def test_comparing_is_said_where_it_takes_long(tmp_path, capsys, monkeypatch, patience, said):
    monkeypatch.setattr(duplicates, "PATIENCE", patience)
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(bytes([i // 2] * 9))
    numbers = duplicates.same_content([str(tmp_path / f"{i}.png") for i in range(3)])
    assert numbers.tolist() == [0, 0, 2]
    text = capsys.readouterr().err
    assert ("comparing pictures: 3 of 3 files" in text) == said and bool(text) == said


@pytest.mark.parametrize(
    "seconds, text",
    [(3.21, "3.2 s"), (42, "42 s"), (59.7, "1 min 0 s"), (312, "5 min 12 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text


def test_what_is_left_is_foretold(capsys, monkeypatch):
    """In the place of a rate, which says nothing where jobs aren't equally long."""
    monkeypatch.setattr(progress, "PACE", 0.0)
    left = [None, 90.0, 90.0, 60.0]
    with progress.bar("all", 3, unit="jobs", left=lambda: left[0]) as shown:
        left.pop(0)
        shown.update(1)
        left[:] = [60.0]
        shown.set_postfix_str("two")
    said = lines(capsys.readouterr().err)
    assert re.fullmatch(r"all: 0 of 3 jobs, at work, 00:00 gone, \? left", said[0])
    assert said[1].startswith("all: 1 of 3 jobs, at work, ") and said[1].endswith(" gone, 01:30 left")
    assert said[2].startswith("all: 1 of 3 jobs, two, ") and said[2].endswith(" gone, 01:00 left")
