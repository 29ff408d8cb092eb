"""The report: whole in one file, with everything that it was given."""

import base64
import html.parser
import io
import json
import re
import types

import numpy as np
from PIL import Image

from vargen import report
from vargen.cli import main
from vargen.report import completions
from vargen.report import page as pages

RNG = np.random.default_rng(0)


def fake(**changes):
    images = RNG.uniform(-1, 1, (12, 8, 8, 3)).astype(np.float32)
    arguments = dict(
        title="Cats <& dogs>",
        summary="A summary.",
        config_json='{"name": "<tiny>"}',
        metrics=dict(
            label_accuracy=0.9, real_label_accuracy=0.99, psnr_db=21.5, train_seconds=75.0, extra=float("nan")
        ),
        samples=images,
        labels=np.arange(12) % 3,
        class_names=["cat", "dog", "<cow>"],
        originals=images[:4],
        reconstructions=images[4:8],
        steps=images.reshape(3, 4, 8, 8, 3),
        step_names=["1×1", "2×2", "4×4"],
        curves={"Tokenizer": {"training": ([1, 2, 3], [3.0, 2.0, float("nan")])}},
        facts={"Order": "levels"},
        command="make quickstart",
    )
    return arguments | changes


class Page(html.parser.HTMLParser):
    """Open tags, and every address that the page refers to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.addresses += [v for k, v in attributes if k in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img", "line", "polyline", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        pass


def test_completions_are_one_whole_file(tmp_path):
    images = np.uint8(RNG.integers(256, size=(2, 4, 8, 8, 1)))
    rows = [("0000, <cow>", images[0]), ("0001", images[1][:3])]
    completions.write(tmp_path / "c.html", "<VAR>", "A lead.", rows, dict(keep="top", seed=3))
    text = (tmp_path / "c.html").read_text()
    page = Page(text)
    assert page.open == [] and page.addresses == [pages.pictures.data_address(x) for _, r in rows for x in r]
    assert re.findall("<span>(.*?)</span>", text) == [
        "before",
        "kept",
        "after",
        "after",
        "before",
        "kept",
        "after",
    ]
    for words in ("&lt;VAR&gt;", "0000, &lt;cow&gt;", "A lead.", "<dt>keep</dt><dd>top</dd>"):
        assert words in text


def test_report_is_one_whole_file(tmp_path):
    path = report.write(tmp_path / "new", **fake())
    text = path.read_text()
    page = Page(text)
    assert page.open == []
    assert page.addresses and all(a.startswith("data:image/png;base64,") for a in page.addresses)
    assert not re.search(r"https?:|url\(|@import|<script", text)
    for words in (
        "Cats &lt;&amp; dogs&gt;",
        "&lt;cow&gt;",
        "90.0 %",
        "99.0 %",
        "1 min 15 s",
        "4×4",
        "make quickstart",
    ):
        assert words in text
    assert len(page.addresses) == 12 + 12 + 8  # samples, steps, pairs


def test_metrics_and_samples_beside_it(tmp_path):
    report.write(tmp_path, **fake())
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert stored["label_accuracy"] == 0.9 and stored["extra"] is None
    with Image.open(tmp_path / "samples.png") as sheet:
        assert sheet.mode == "RGB" and min(sheet.size) > 3 * 64  # three rows, enlarged


def test_every_row_has_its_label(tmp_path):
    """Samples, growth, reconstructions and nearest pictures; with what is to be known first."""
    images = fake()["originals"]
    more = dict(
        recognised={0: 0.875, 2: 0.5},
        original_labels=[0, 1, 2, 1],
        step_labels=[2, 1, 0, 1],
        nearest=(images, images, [1, 1, 2, 0]),
        caveats=["Few <samples>."],
    )
    path = report.write(tmp_path, **fake(**more))
    text = path.read_text()
    assert Page(text).open == []
    assert "Few &lt;samples&gt;." in text and "88%" in text and "Drawn or remembered?" in text
    body = text.split("</style>")[1]
    names = re.findall(r'class="name">([^<]*)<', body)
    cow = "&lt;cow&gt;"
    assert names == [
        "cat",
        "dog",
        cow,
        cow,
        "dog",
        "cat",
        "dog",
        "cat",
        "dog",
        cow,
        "dog",
        "dog",
        "dog",
        cow,
        "cat",
    ]
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert stored["label_accuracy_by_class"] == {"cat": 0.875, "<cow>": 0.5}


def test_one_class(tmp_path, monkeypatch, capsys):
    """Label accuracy is neither computed nor shown then: not in the page, not in the quickstart's last lines."""
    metrics = dict(psnr_db=21.5, codebook_use=0.9, train_seconds=75.0)
    shown = report.write(
        tmp_path, **fake(metrics=metrics, labels=np.zeros(12, int), class_names=["cat"])
    ).read_text()
    assert "ccuracy" not in shown and "None" not in shown and shown.count("21.50 dB") == 2
    assert set(json.loads((tmp_path / "metrics.json").read_text())) == set(metrics)

    generator = types.SimpleNamespace(condition=types.SimpleNamespace(takes="classes"))
    model = types.SimpleNamespace(classes=["cat"], needs_generator=lambda: generator)
    monkeypatch.setattr("vargen.cli.train.train", lambda *given, **options: None)
    monkeypatch.setattr("vargen.load", lambda workdir: model)
    monkeypatch.setattr("vargen.cli.evaluate.evaluate", lambda *given: metrics)
    assert main.main(["quickstart", "--config", "var:digits", "--workdir", str(tmp_path / "w")]) == 0
    said = capsys.readouterr().out.partition("measuring\n\n")[2].partition("\n\n")[0].splitlines()
    assert said == [
        "Reconstruction PSNR  21.50 dB",
        "Codebook use         90.0 %",
        "Training time        1 min 15 s",
    ]


def test_report_without_steps_and_curves(tmp_path):
    text = report.write(tmp_path, **fake(steps=None, curves=None, facts=None, command="")).read_text()
    assert Page(text).open == [] and "<svg" not in text


def test_use_of_the_codebook_by_level(tmp_path):
    metrics = dict(codebook_use=1.0, codebook_perplexity=80.0)
    for level, use in ((1, 0.25), (2, 0.875)):
        metrics |= {f"codebook_use_level_{level}": use, f"codebook_perplexity_level_{level}": 40.0 + level}
    text = report.write(tmp_path, **fake(metrics=metrics)).read_text()
    assert Page(text).open == []
    assert '<th scope="row">Codebook, level 1</th><td>25.0 %</td><td>41.0</td>' in text
    assert '<th scope="row">Codebook, level 2</th><td>87.5 %</td><td>42.0</td>' in text
    assert "in use at level 1 (25.0 %);" in text
    text = report.write(tmp_path, **fake(metrics=metrics | dict(codebook_use_level_1=0.5))).read_text()
    assert "level 1" in text and "warning" not in text
    assert "Codebook, level" not in report.write(tmp_path, **fake()).read_text()


def test_rows_hold_the_asked_class():
    samples = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    rows = pages.by_class(samples, [1, 0, 1, 0, 1, 4], most=2)
    assert {c: images.ravel().tolist() for c, images in rows.items()} == {0: [1, 3], 1: [0, 2], 4: [5]}


def test_clips_move_in_the_page(tmp_path):
    """And lie frame by frame, one of each class: the sheet beside it is of strips."""
    clips = RNG.uniform(-1, 1, (12, 5, 8, 8, 3)).astype(np.float32)
    own = dict(
        samples=clips,
        originals=clips[:4],
        reconstructions=clips[4:8],
        steps=clips.reshape(3, 4, *clips.shape[1:]),
    )
    page = Page(report.write(tmp_path, **fake(**own)).read_text())
    assert page.open == [] and "Frame by frame" in (tmp_path / "report.html").read_text()
    found = [Image.open(io.BytesIO(base64.b64decode(a.partition(",")[2]))) for a in page.addresses]
    moving = [x for x in found if getattr(x, "is_animated", False)]
    assert len(found) == 12 + 3 * 5 + 12 + 8 and len(moving) == 12 + 12 + 8
    assert all(x.n_frames == 5 for x in moving)
    with Image.open(tmp_path / "samples.png") as sheet:
        assert sheet.width > 4 * 5 * 32  # four samples of five frames
