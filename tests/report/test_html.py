from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from zsbir_fast.report.content import (
    ClusterPicture,
    ClusterRow,
    Curve,
    PerClass,
    RetrievalRow,
    Retrieved,
    Strip,
    Table,
)
from zsbir_fast.report.html import format_cell, write_report

VOID = {"meta", "img", "br", "hr", "link", "input", "line", "polyline"}


class _Page(HTMLParser):
    """Collects tags and addresses, and checks that tags close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.sources += [v for k, v in attrs if k in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def _picture(seed, *, grey=False):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return np.repeat(image[..., :1], 3, axis=2) if grey else image


@pytest.fixture
def page(tmp_path):
    results = [Retrieved(_picture(i), "hot_air <balloon>", hit=i == 0) for i in range(3)]
    path = write_report(
        tmp_path / "new" / "report.html",
        title="A & B",
        lead="lead text",
        tables=[Table("Numbers", ["", "mAP@all"], [["a", 0.12345], ["b", None]], highlight=0)],
        retrieval=[
            RetrievalRow("Best", _picture(9, grey=True), "cat", 0.5, results),
            RetrievalRow("Worst", _picture(8, grey=True), "dog", 0.25, results),
        ],
        per_class=[PerClass("Classes", {"cat": 0.5}, {"cat": 0.25}, baseline_name="raw")],
        curves=[Curve("Loss", "step", {"loss": [(0, 2.0), (10, 1.0)], "other": [(0, 1.0)]})],
        definition="standard AP",
        settings={"optim.lr": 0.1},
        versions={"torch": "2"},
        notes=["a caveat"],
    )
    html = path.read_text(encoding="utf-8")
    parsed = _Page()
    parsed.feed(html)
    return path, html, parsed


def test_report_is_one_file_without_requests(page):
    path, html, parsed = page
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert parsed.open == []
    assert parsed.sources
    assert all(source.startswith("data:image/") for source in parsed.sources)
    assert "http" not in re.sub(r"base64,[^\"]+", "", html)
    assert "@import" not in html
    assert "url(" not in html


def test_report_shows_what_it_was_given(page):
    _, html, parsed = page
    for text in ("A & B", "lead text", "0.123", "–", "AP 0.50", "AP 0.25", "standard AP"):
        assert text in parsed.text
    for text in ("optim.lr", "a caveat", "0.500 (0.250)", "torch", "Best", "Worst"):
        assert text in parsed.text
    assert '<tr class="best"><td>a</td>' in html
    assert html.count("<polyline") == 2


def test_hits_and_misses_differ_by_sign_not_colour_alone(page):
    _, html, parsed = page
    assert parsed.text.count("✓") == 2 + 1  # one per row, one in the legend
    assert parsed.text.count("✗") == 4 + 1
    assert html.count('alt="hit: ') == 2
    assert html.count('alt="miss: ') == 4


def test_plain_and_reranked_strips_stand_under_one_sketch(tmp_path):
    strips = [[Retrieved(_picture(i), "cat", hit=i < n) for i in range(3)] for n in (1, 3)]
    row = RetrievalRow(
        "Best",
        _picture(9, grey=True),
        "cat",
        0.25,
        strips[0],
        Strip("re-ranked <so>", 0.75, strips[1]),
    )
    path = write_report(tmp_path / "r.html", title="t", tables=[], retrieval=[row])
    html = path.read_text(encoding="utf-8")
    parsed = _Page()
    parsed.feed(html)
    assert parsed.open == []
    assert html.count('alt="query sketch: cat"') == 1
    text = " ".join(parsed.text.split())
    plain, again = text.index("plain · AP 0.25"), text.index("re-ranked <so> · AP 0.75")
    assert plain < again
    assert text[plain:again].count("✓ cat") == 1
    assert text[again:].count("✓ cat") == 3
    assert "The upper strip is the plain ranking" in text


def test_clusters_show_size_classes_and_photos(tmp_path):
    photos = [Retrieved(_picture(i), "ceiling_fan", hit=i > 0) for i in range(2)]
    rows = [
        ClusterRow(12, {"ceiling_fan": 0.75, "car": 0.25}, photos),
        ClusterRow(1, {"car": 1.0}, photos[:1]),
    ]
    whole = ClusterPicture("", rows, clusters=2, empty=0, purity=10 / 13)
    part = ClusterPicture("Block 2 of 2", rows[:1], clusters=5, empty=1, purity=0.5)
    path = write_report(tmp_path / "r.html", title="t", tables=[], clusters=[whole, part])
    html = path.read_text(encoding="utf-8")
    parsed = _Page()
    parsed.feed(html)
    assert parsed.open == []
    text = " ".join(parsed.text.split())
    for words in (
        "2 clusters. 77 % of all photos are of the largest class of their cluster.",
        "5 clusters, 1 of them without a photo; the 1 largest are shown. 50 % of all",
        "12 photos ceiling fan 75 % car 25 %",
        "1 photo car 100 %",
        "✗ ceiling fan ✓ ceiling fan",
    ):
        assert words in text
    assert html.count("<h3>") == 1


def test_report_escapes_what_it_was_given(page):
    _, html, parsed = page
    assert "<balloon>" not in html
    assert "hot air <balloon>" in parsed.text


def test_report_replaces_an_older_one(tmp_path):
    path = tmp_path / "r.html"
    path.write_text("old", encoding="utf-8")
    write_report(path, title="new", tables=[])
    assert "old" not in path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_ragged_table_is_refused_before_writing(tmp_path):
    table = Table("T", ["a", "b"], [[1]])
    with pytest.raises(
        ValueError, match=r"write_report: every row of table 'T' must have 2 cells, got 1"
    ):
        write_report(tmp_path / "r.html", title="t", tables=[table])
    assert list(tmp_path.iterdir()) == []


def test_cells():
    assert [format_cell(c) for c in (0.5, 3, "x", None)] == ["0.500", "3", "x", "–"]
