"""The pictures of README.md and docs/ are drawn by tools/figures.py from records and a model."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import matplotlib.colors
import numpy as np
import pytest
from PIL import Image

from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.methods.build import build_model
from zsbir_fast.methods.identity import ModelIdentity
from zsbir_fast.methods.saving import export_model

REPO = Path(__file__).parents[2]
NAMES = ("evaluation.png", "retrieval.png", "training_step.png")
MOST_BYTES = 200_000


@pytest.fixture(scope="module")
def figures():
    """The module tools.figures, which is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPO))
        yield importlib.import_module("tools.figures")


@pytest.fixture(scope="module")
def benchmark():
    """Four sketches and four photos of every unseen class of the bundled benchmark."""
    whole = load_benchmark()

    def few(images):
        labels = images.labels.tolist()
        firsts = [labels.index(label) + i for label in range(len(images.classes)) for i in range(4)]
        return images.subset(firsts)

    return type(whole)(
        "small",
        whole.seen,
        whole.unseen,
        whole.train_sketches,
        whole.train_photos,
        few(whole.test_sketches),
        few(whole.test_photos),
    )


@pytest.fixture(scope="module")
def model(benchmark, tmp_path_factory):
    """An untrained model, as an exported folder."""
    arguments = {
        "encoder": {"weights": None, "image_size": 32},
        "weighting": {"kind": "pairwise"},
    }
    identity = ModelIdentity.of("dmwan", arguments, benchmark.seen)
    return export_model(build_model(identity), identity, tmp_path_factory.mktemp("model"))


def test_figures_are_written(figures, benchmark, model, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "load_benchmark", lambda: benchmark)
    figures.main(["--model", str(model), "--out", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == list(NAMES)
    for name in NAMES:
        assert _corner_alpha(tmp_path / name) == 0  # stands on light and on dark pages
        assert (tmp_path / name).stat().st_size < MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_committed_figure_is_small_and_shown(name):
    path = REPO / "docs" / "figures" / name
    assert path.stat().st_size < MOST_BYTES
    assert _corner_alpha(path) == 0
    assert f"](docs/figures/{name})" in (REPO / "README.md").read_text(encoding="utf-8")


def _corner_alpha(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.convert("RGBA").getpixel((0, 0))[3]


def test_bars_and_their_numbers_are_those_of_the_record(figures):
    (panel,) = figures.EVALUATION
    (axes,) = figures.draw_chart(figures.EVALUATION).axes
    record = json.loads((REPO / "benchmarks" / "results" / f"{panel.record}.json").read_text())
    times = {
        panel.labels[row["provider"]]: row["p50_us"]
        for row in record["rows"]
        if row["case"] == "quickdraw" and row["provider"] in panel.labels
    }
    assert len(times) == 12
    names = [label.get_text() for label in axes.get_yticklabels()]
    widths = [bar.get_width() for bar in axes.patches]
    assert dict(zip(names, widths, strict=True)) == pytest.approx(times)
    assert widths == sorted(widths)
    numbers = [int(t.get_text().replace(",", "")) for t in axes.texts if _is_number(t.get_text())]
    assert numbers == [round(width) for width in widths]


def test_steps_are_in_milliseconds_and_scales_are_named(figures):
    chart = figures.draw_chart(figures.TRAINING)
    scales = [axes.get_xscale() for axes in chart.axes]
    assert scales == ["linear", "log", "linear", "linear"]
    for axes, panel in zip(chart.axes, figures.TRAINING, strict=True):
        rows, _ = figures.rows_of(panel)
        assert [bar.get_width() for bar in axes.patches] == [row.p50_us / 1e3 for row in rows]
        (under,) = (t.get_text() for t in axes.texts if t.get_text().startswith("ms"))
        assert ("logarithmic scale" in under) == (axes.get_xscale() == "log")


def _is_number(text):
    return re.fullmatch(r" [\d,]+", text) is not None


def test_a_row_that_the_record_lacks(figures):
    panel = figures.Panel("", "batched_map_cpu", "tiny", "", {"ours": "", "magic": ""}, "us", 1.0)
    text = (
        r"rows_of: batched_map_cpu\.json must hold a row of tiny for every provider, "
        "got none for magic"
    )
    with pytest.raises(ValueError, match=text):
        figures.rows_of(panel)


def test_retrieval_row_frames_right_and_wrong_photos(figures, benchmark, model):
    rows = figures.find_rows(model, benchmark, photos=5)
    assert len({row.label for row in rows}) == len(rows) == 3
    assert all(len(row.results) == 5 for row in rows)
    chart = figures.draw_retrieval(rows)
    tiles = np.array(chart.axes).reshape(3, 6)
    for line, row in zip(tiles, rows, strict=True):
        assert line[0].get_xlabel() == row.label.replace("_", " ")
        for axes, photo in zip(line[1:], row.results, strict=True):
            colour = figures.RIGHT if photo.label == row.label else figures.WRONG
            frame = axes.spines["top"].get_edgecolor()
            assert frame == pytest.approx(matplotlib.colors.to_rgba(colour))
            wrong = "" if photo.label == row.label else photo.label.replace("_", " ")
            assert axes.get_xlabel() == wrong
