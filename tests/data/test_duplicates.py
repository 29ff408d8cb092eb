"""Equal files: on one side of a split that vargen makes, and counted across splits that are given."""

import numpy as np
import pytest
from picture_files import copy, loaded, names_of, pictures

from vargen.data import checking, duplicates, folder, sources


@pytest.mark.parametrize("deep", ("", "a/"))
def test_copies_across_given_splits_are_said(tmp_path, capsys, deep):
    """Counted by content, in whatever class, and once, with and without --check-data."""
    pictures(tmp_path, *(f"train/{deep}{i}.png" for i in range(6)), *(f"val/{deep}{i}.png" for i in range(4)))
    copy(
        tmp_path, f"train/{deep}1.png", f"val/{deep}copy.png", f"val/{deep}again.png", f"train/{deep}too.png"
    )
    copy(tmp_path, f"val/{deep}0.png", f"val/{deep}own.png")  # twice held out, and no training picture
    (tmp_path / f"val/{deep}link.png").symlink_to(tmp_path / f"train/{deep}2.png")
    found = loaded(tmp_path)
    line = f"folder {tmp_path}: 3 of 8 held-out pictures are also training pictures (equal files)\n"
    assert line in capsys.readouterr().out
    checking.check(found)
    assert "also training" not in capsys.readouterr().out


def test_a_held_out_folder_that_is_the_training_folder(tmp_path, capsys):
    pictures(tmp_path, *(f"train/{c}/{i}.png" for c in "ab" for i in range(3)))
    (tmp_path / "val").symlink_to("train")
    loaded(tmp_path)
    assert "6 of 6 held-out pictures are also training pictures" in capsys.readouterr().out


def test_splits_without_copies_say_nothing_of_them(tmp_path, capsys):
    """Nor do those that vargen makes, where equal files lie on one side."""
    given = pictures(tmp_path / "given", "train/a/0.png", "train/a/1.png", "test/a/0.png")
    made = pictures(tmp_path / "made", *(f"a/{i}.png" for i in range(9)))
    copy(made, "a/0.png", "a/copy.png")
    for root in (given, made):
        checking.check(loaded(root))
    assert "training pictures" not in capsys.readouterr().out


def test_too_many_files_are_compared_only_on_request(tmp_path, capsys, monkeypatch):
    pictures(tmp_path, *(f"train/a/{i}.png" for i in range(6)))
    copy(tmp_path, "train/a/1.png", "val/a/1.png")
    monkeypatch.setattr(folder, "MOST_COMPARED", 1)
    found = loaded(tmp_path)
    said = capsys.readouterr().out
    assert "not compared, too many; --check-data does it\n" in said and "also training" not in said
    checking.check(found)
    assert "1 of 1 held-out pictures are also training pictures" in capsys.readouterr().out


def test_of_given_splits_only_files_that_may_be_copies_are_read(tmp_path, monkeypatch):
    files = [tmp_path / str(i) for i in range(7)]
    for file, content in zip(files, (b"1", b"22", b"22", b"333", b"1", b"333", b"4444")):
        file.write_bytes(content)
    read, digest = [], duplicates._digest
    monkeypatch.setattr(duplicates, "_digest", lambda *given: (read.append(given[0]), digest(*given))[1])
    held_out, training = [str(f) for f in files[:3]], [str(f) for f in files[3:]]
    assert duplicates.copies(held_out, training) == 1
    assert sorted(read) == [str(files[0]), str(files[4])]
    assert duplicates.copies(held_out, training, 2) == 1 and duplicates.copies(held_out, training, 1) is None


# ---- Held out by name and content --------------------------------------------------------------------------


def by_content(*found):
    return [{file.read_bytes() for file in source.files} for source in found]


def test_equal_files_lie_on_one_side(tmp_path):
    """Copies in the same class, in others and behind links, of any name and size."""
    rng = np.random.default_rng(0)
    contents = [rng.bytes(size) for size in (10, 10, 10, 70_000, 70_000, 0, 33) for _ in range(10)]
    for k, content in enumerate(contents):
        for again in range(1 + k % 4):
            file = tmp_path / f"{'abc'[(k + again) % 3]}" / f"{'x' * again}{k}.png"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
    (tmp_path / "c" / "link.png").symlink_to(tmp_path / "a" / "0.png")
    for fraction in (0.1, 0.5, 0.9, 1e-9, 1 - 1e-9):
        train, test = loaded(tmp_path, test_fraction=fraction)
        assert len(train) + len(test) == sum(1 + k % 4 for k in range(len(contents))) + 1
        inside = by_content(train, test)
        assert not inside[0] & inside[1]
        assert set(train.labels) == set(test.labels) == {0, 1, 2}


def test_pieces_that_are_equal_are_not_yet_files_that_are(tmp_path):
    """Same size, same middle, other ends; and an end of a file longer than a piece."""
    middle = bytes(duplicates.PIECE)
    contents = [b"a" * 9 + middle + b"b" * 9, b"c" * 9 + middle + b"b" * 9, b"a" * 9 + middle + b"d" * 9]
    contents += [contents[0], b"x", b"y", b"x", b"xx"]
    files = []
    for i, content in enumerate(contents):
        files.append(tmp_path / str(i))
        files[-1].write_bytes(content)
    numbers = duplicates.same_content([str(f) for f in files] + [str(tmp_path / "gone")])
    assert [[i for i, n in enumerate(numbers) if n == m] for m in sorted(set(numbers))] == [
        [0, 3], [1], [2], [4, 6], [5], [7], [8],
    ]  # fmt: skip


def test_only_files_of_equal_size_are_read(tmp_path, monkeypatch):
    files = []
    for i in range(50):
        files.append(tmp_path / f"{i}.png")
        files[-1].write_bytes(bytes(100_000 + i // 2 * (i < 40) + i * (i >= 40)))
    for i in range(0, 40, 2):
        files[i].write_bytes(b"x" + bytes(100_000 + i // 2 - 1))  # another first byte, the same middle
    read = []
    digest = duplicates._digest
    monkeypatch.setattr(duplicates, "_digest", lambda *given: (read.append(given), digest(*given))[1])
    names = [str(f) for f in files]
    assert len(set(duplicates.same_content(names))) == 50
    assert sorted({name for name, *_ in read}) == sorted(names[:40])
    assert sum(most[0] if most else 100_000 for _, _, *most in read) == 40 * (100_000 + duplicates.PIECE)
    files[0].write_bytes(files[1].read_bytes())
    assert len(set(duplicates.same_content(names))) == 49


def test_different_files_are_held_out_as_they_always_were(tmp_path):
    """By SHA-256 of `class/name` alone: frozen, so that nobody's split changes with the version."""
    pictures(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(12)))
    assert names_of(loaded(tmp_path)[1]) == HELD


HELD = ["a/0.png", "b/0.png"]


def test_a_copy_moves_no_original(tmp_path):
    pictures(tmp_path, *(f"a/{i}.png" for i in range(60)))
    before = set(names_of(loaded(tmp_path)[1]))
    for i in range(60):
        content = (tmp_path / "a" / f"{i}.png").read_bytes()
        for name in (f"copy of {i}", f"{i} (1)", f"{i}-copy"):
            (tmp_path / "a" / f"{name}.png").write_bytes(content)
    after = set(names_of(loaded(tmp_path)[1]))
    assert {name for name in after if name[2:-4].isdigit()} == before and len(after) == 4 * len(before)


def test_contents_in_several_groups():
    """Training has every group; the test split has those that it can have then."""
    keys = ["a", "b", "c", "d", "e"]
    groups = [0, 0, 1, 1, 2]
    contents = [0, 1, 1, 2, 2]
    for fraction in (0.0, 0.3, 0.7, 1.0):
        test = sources.held_out(keys, groups, fraction, contents)
        assert (
            (test[1] == test[2]) and (test[3] == test[4]) and not test[4]
        )  # of group 2 there is nothing else
        train = {g for g, t in zip(groups, test) if not t}
        assert train == {0, 1, 2}
    rng = np.random.default_rng(0)
    for _ in range(200):
        groups, contents = rng.integers(0, 4, 12), rng.integers(0, 6, 12)
        test = sources.held_out([str(i) for i in range(12)], groups, rng.random(), contents)
        assert set(groups[~test]) == set(groups)
        assert not set(contents[test]) & set(contents[~test])
