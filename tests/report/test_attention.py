"""Pictures of attention: which pairs, which colours, and what the page says."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.report.attention import attention_pairs, heat_map, legend_colours, weighted_pairs
from zsbir_fast.report.html import write_report

BATCH, WORDS, PATCHES = 6, 10, 16


@pytest.fixture(scope="module")
def images():
    bundled = load_benchmark("qd_caltech")
    return [
        those.subset([int((those.labels == label).nonzero()[0]) for label in range(BATCH)])
        for those in (bundled.train_sketches, bundled.train_photos)
    ]


def explanation(patches=PATCHES):
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, BATCH, WORDS, patches, generator=generator).softmax(3)
    words = [["<one>"], ["one", "two"], [], [f"w{i}" for i in range(10)], ["a", "b", "c"], ["d"]]
    return SimpleNamespace(
        weights=torch.tensor([0.5, 2.0, 1.75, 0.25, 1.0, 0.5]),
        local=torch.linspace(-0.5, 0.5, BATCH),
        global_=torch.linspace(0.5, -0.5, BATCH),
        answers=SimpleNamespace(words=words, sketch=maps[0], photo=maps[1]),
    )


def test_pairs_that_count_most_and_least(images):
    pairs = weighted_pairs(explanation(), *images, per_group=2)
    classes = images[0].classes
    assert [(p.group, p.label, p.weight) for p in pairs] == [
        ("Largest weights", classes[1], 2.0),
        ("Largest weights", classes[2], 1.75),
        ("Smallest weights", classes[3], 0.25),
        ("Smallest weights", classes[5], 0.5),
    ]
    assert pairs[0].local == pytest.approx(-0.3)
    assert pairs[0].global_ == pytest.approx(0.3)
    assert pairs[0].sketch.shape[2] == pairs[0].photo.shape[2] == 3
    assert len(weighted_pairs(explanation(), *images, per_group=9)) == 6  # no pair twice


def test_pairs_with_words_are_spread_over_the_weights(images):
    given = explanation()
    pairs = attention_pairs(given, *images, count=2)
    # by weight: 1 (two words), 4 (three words) | 0, 5, 3 (ten words); pair 2 has no word
    assert [p.label for p in pairs] == [images[0].classes[i] for i in (4, 3)]
    many = pairs[1]
    assert [m.word for m in many.words] == [f"w{i}" for i in range(8)]
    shown = torch.cat([given.answers.sketch[3, :8], given.answers.photo[3, :8]]) * PATCHES
    assert many.low == pytest.approx(float(shown.min()))
    assert many.high == pytest.approx(float(shown.max()))
    assert many.grids == (4, 4)
    assert many.words[0].sketch.shape == many.sketch.shape
    assert len(attention_pairs(given, *images, count=9)) == 5


def test_without_words_or_without_a_grid_there_are_no_pictures(images):
    given = explanation()
    given.answers.words = [[]] * BATCH
    assert attention_pairs(given, *images) == []
    assert attention_pairs(explanation(patches=15), *images) == []


def test_heat_is_where_the_attention_is():
    white = np.full((40, 80, 3), 255, np.uint8)
    shares = torch.zeros(4)
    shares[1] = 1.0  # upper right of a grid of 2 x 2
    coloured = heat_map(white, shares, low=0.0, high=1.0).astype(int)
    redness = coloured[..., 0] - coloured[..., 2]
    assert coloured.shape == white.shape
    assert redness[:10, 60:].min() > redness[:10, :20].max()
    assert redness[30:, :20].max() == 0
    ends = [tuple(map(int, re.findall(r"\d+", c))) for c in (legend_colours()[i] for i in (0, -1))]
    assert tuple(coloured[39, 0]) == ends[0] == (255, 255, 255)
    assert tuple(coloured[0, 79]) == ends[1]


def test_strokes_stay_visible_under_the_heat():
    image = np.full((8, 8, 3), 255, np.uint8)
    image[4] = 0
    coloured = heat_map(image, torch.ones(1), low=0.0, high=1.0).astype(int)
    assert coloured[4].sum(1).max() < 0.6 * coloured[3].sum(1).min()


def test_equal_attention_is_pale():
    image = np.full((8, 8, 3), 255, np.uint8)
    assert (heat_map(image, torch.full((4,), 0.25), low=0.25, high=0.25) == 255).all()


def test_page_shows_weights_words_and_scale(images, tmp_path):
    given = explanation()
    path = write_report(
        tmp_path / "report.html",
        title="t",
        tables=[],
        weighted=weighted_pairs(given, *images, per_group=1),
        attention=attention_pairs(given, *images, count=5),
    )
    html = path.read_text(encoding="utf-8")
    assert "Which training pairs count" in html
    assert "Largest weights" in html
    assert "<b>2.00</b>" in html
    assert "<dd>-0.30</dd>" in html
    assert "&lt;one&gt;" in html
    assert "<one>" not in html
    assert "4 × 4 patches" in html
    shown = sum(min(len(words), 8) for words in given.answers.words)
    assert html.count('alt="attention of') == 2 * shown
    assert html.count("linear-gradient") == 5
    assert "Where the words look" not in write_report(
        tmp_path / "none.html", title="t", tables=[]
    ).read_text(encoding="utf-8")


def test_wrong_input_is_named(images):
    few = [those.subset([0, 1]) for those in images]
    for draw in (weighted_pairs, attention_pairs):
        with pytest.raises(ValueError, match=f"{draw.__name__}: explanation, .* got 6, 2 and 2"):
            draw(explanation(), *few)
    with pytest.raises(ValueError, match="heat_map: shares must form a square grid, got 3"):
        heat_map(np.zeros((4, 4, 3), np.uint8), torch.ones(3), low=0.0, high=1.0)
