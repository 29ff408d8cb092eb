"""The pages of rankings are those of benchmarks/results/, and hold every system."""

import re

from figures import TEXT, agree, percent, results, rows

from vargen import systems
from vargen.cli import budgets, compare_progress

NAMES = {systems.read(name).title: name for name in systems.names()}


def test_ranking():
    """Every row, and all that were compared."""
    found, shown = results("ranking_fashion"), rows("A ranking", 9)
    lines = [row for same in shown.values() for row in same][1:]  # but the heads
    assert len(lines) == len(found["systems"])
    for row in lines:
        one = found["systems"][NAMES[row[0]]]
        m = one["metrics"]
        distance, rates = m["frechet_distance_classifier"], ("label_accuracy", "precision", "recall")
        counts = [one["updates"], m["sampling_passes"]["mean"], m["images_per_second"]["mean"]]
        values = [*distance.values(), *percent(*(m[k]["mean"] for k in rates)), *counts]
        agree(row[1:], values)


UNITS = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def agree_in_units(cells, values):
    """As `agree`, of numbers with units as the page of a comparison has them."""
    for cell, value in zip(cells, values, strict=True):
        number, _, unit = cell.partition(" ")
        agree([number], [value / UNITS[unit]])


def bits(m, cell):
    """Checks bits per dimension: a bound has its sign, and where there are none there is no cell."""
    kind = "bits_per_dimension_bound" if cell.startswith("≤ ") else "bits_per_dimension"
    assert bool(cell) == (kind in m)
    agree([cell], m[kind].values() if cell else ())


def test_what_each_of_the_ranking_took():
    """In the order of the ranking."""
    found, shown = results("ranking_fashion"), rows("What each took", 9)
    names = [NAMES[title] for title in [*shown][1:]]  # but the head
    ranked = [row[0] for same in rows("A ranking", 9).values() for row in same][1:]
    assert [*shown][1:] == ranked and sorted(names) == sorted(found["systems"])
    for name, title in zip(names, ranked, strict=True):
        (row,), one = shown[title], found["systems"][name]
        m, owner = one["metrics"], one["tokenizer"]
        whose = "its own" if owner == name else f"{ranked[names.index(owner)]}'s"
        updates = found["tokenizer_updates"].get(owner, "none")
        assert row[:2] == [whose, str(updates)]
        agree(row[2:3], [m["psnr_db"]["mean"]])
        bits(m, row[3])
        agree(row[5:6], m["training_images_per_second"].values())
        keys = "generator_parameters", "training_flops", "sampling_flops"
        agree_in_units([row[4], *row[6:]], [m[key]["mean"] for key in keys])


def test_what_each_of_the_emoji_took():
    found, shown = results("ranking_emoji"), rows("On emoji, at two budgets", 6)
    names = [NAMES[title] for title in [*shown][1:]]  # but the head
    assert sorted(names) == sorted(found["systems"])
    for name, (row,) in zip(names, [*shown.values()][1:], strict=True):
        m = found["systems"][name]["metrics"][found["budgets"][-1]]
        agree(row[:1], [m["psnr_db"]["mean"]])
        bits(m, row[1])
        agree_in_units(row[2:3], [m["generator_parameters"]["mean"]])
        agree(row[3:], [*m["training_images_per_second"].values(), m["sampling_passes"]["mean"]])


# Systems that the ranking doesn't have, as its page says.
NOT_RANKED = dict(orthus="conditioned on text")


def test_every_system_is_ranked_or_has_a_reason():
    found = results("ranking_fashion")["systems"]
    assert not found.keys() & NOT_RANKED.keys()
    assert sorted([*found, *NOT_RANKED]) == sorted(systems.names())
    assert re.search(r"Orthus draws from words and\s+isn.t in it", TEXT)


def test_what_the_ranking_needs_beforehand():
    """Its commands say beforehand how long all budgets are together."""
    found = results("ranking_fashion")
    owners = {one["tokenizer"] for one in found["systems"].values()}

    def needed(seeds, tokenizer, jobs):
        given = {found["budget"]: budgets.parse(found["budget"]), "tokenizer": budgets.parse(tokenizer)}
        tally = compare_progress.Tally(0, jobs, given)
        runs, pilots = len(found["systems"]) * seeds, len(found["systems"]) + len(owners)
        tally.expect({found["budget"]: runs, "tokenizer": len(found["tokenizer_updates"]), "pilot": pilots})
        return tally.needed()

    assert f"--seeds {found['seeds']} --tokenizer-budget 180s --share-tokenizer --out" in found["command"]
    assert "the same with `--seeds 1 --tokenizer-budget 60s --jobs 2`" in TEXT
    assert f"    {needed(1, '60s', 2)}\n" in TEXT
    (time,) = re.findall(r"the command above: (.*?) of training", TEXT)
    assert f": {time} of training;" in needed(found["seeds"], "180s", 1)


def test_ranking_at_two_budgets():
    """Every row of the emoji, and the sentences below."""
    found, shown = results("ranking_emoji"), rows("On emoji, at two budgets", 9)
    first, last = found["budgets"]
    lines = [row for same in shown.values() for row in same][1:]  # but the heads
    assert len(lines) == len(found["systems"])
    assert [rank for rank, same in shown.items() for _ in same][1:] == sorted(
        str(one["rank"]) for one in found["systems"].values()
    )
    for row in lines:
        one = found["systems"][NAMES[row[0]]]
        m, before = one["metrics"][last], one["metrics"][first]
        distances = [
            *m["frechet_distance_classifier"].values(),
            *before["frechet_distance_classifier"].values(),
        ]
        rates = percent(*(m[k]["mean"] for k in ("label_accuracy", "precision", "recall")))
        agree(row[1:], [*distances, *rates, one["updates"][last], m["images_per_second"]["mean"]])
    real, updates = found["real"], found["systems"]["mar"]["updates"][last]
    text = re.search(r"The classifier gets (.*?)\. Updates", TEXT, flags=re.DOTALL)[1]
    agree([text], [*percent(real["real_label_accuracy"]), real["real_frechet_distance_classifier"]])
    agree([re.search(r"MAR's (\d+) updates are few", TEXT)[1]], [updates])


def test_ranking_of_tokenizers():
    """Every row, in order, and the sentences about the classifier."""
    found, shown = results("ranking_tokenizers"), rows("On one's own pictures", 10)
    shown = dict(row for rank, (row,) in [*shown.items()][1:] for row in [(row[0], [rank, *row[1:]])])
    assert [name.strip("`") for name in shown] == list(found["systems"])
    for name, one in found["systems"].items():
        m, cells = one["metrics"], shown[f"`{name}`"]
        rates = percent(m["label_accuracy"], m["precision"], m["recall"])
        kept = [m["psnr_db"], *percent(m["codebook_use"]), m["bits_per_dimension"], m["sampling_passes"]]
        agree(cells, [one["rank"], m["frechet_distance_classifier"], *rates, *kept])
    seconds = [one["metrics"]["train_seconds"] for one in found["systems"].values()]
    text = re.search(r"trained for (.*?) minutes a system", TEXT)[1]
    agree([text], [min(seconds) / 60, max(seconds) / 60])
    text = re.search(r"The classifier gets ([^.]*\.\d[^.]*\.\d\d)\. TiTok's", TEXT)[1]
    real = found["real"]
    agree([text], [*percent(real["real_label_accuracy"]), real["real_frechet_distance_classifier"]])
    counts = [found["tokenizer_updates"], found["updates"]]
    agree(
        re.findall(r"for each tokenizer \((\d+) updates\) and 16,000 for\s+each generator \((\d+)\)", TEXT)[
            0
        ],
        counts,
    )
