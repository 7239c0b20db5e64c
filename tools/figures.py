"""The pictures of README.md and docs/: a retrieval row from a model, charts from the records.

``python -m tools.figures`` draws the charts from benchmarks/results/;
``python -m tools.figures --model zsbir-quickstart/model`` draws the retrieval row, too.

Every number in a chart is read from a record. The charts have a transparent background and colours
of middle brightness, so that they stand on light and on dark pages.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from benchmarks import mining_cases, retrieval_cases, token_cases
from benchmarks.records import Row, read_records, significant
from zsbir_fast._files import write_atomically
from zsbir_fast.data.benchmarks import Benchmark, load_benchmark
from zsbir_fast.report.content import RetrievalRow

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

TEXT, OURS, OTHERS, FLOOR = "#768390", "#2f81f7", "#8b949e", "#b08d3c"
RIGHT, WRONG = "#2da44e", "#d1242f"
CHART_DPI, PHOTO_DPI = 160, 130
PHOTOS = 8  # of a retrieval row
MOST_ON_LINEAR = 20  # times the shortest bar of a panel; longer ones ask for a logarithmic scale


@dataclass(frozen=True)
class Panel:
    """One part of a chart: the times of some providers in one case of a record."""

    heading: str
    record: str
    case: str
    sizes: str
    labels: Mapping[str, str]  # of the providers
    unit: str
    us_per_unit: float


EVALUATION = (
    Panel(
        "One evaluation: mAP@all, mAP@100, mAP@200, Prec@100 and Prec@200, per sketch",
        "batched_map_cpu",
        "quickdraw",
        retrieval_cases.CASES["quickdraw"].title,
        {
            "product_onednn": "the bare float32 product, oneDNN",
            "ours": "zsbir_fast, gallery prepared",
            "ours_unprepared": "zsbir_fast, one call",
            "product_torch": "the bare float32 product, torch's default",
            "numpy_sort_threads": "NumPy sort + searchsorted, our product, all cores",
            "numpy_sort": "NumPy sort + searchsorted",
            "torch_argsort": "PyTorch matmul + argsort, in chunks",
            "pml_custom": "pytorch-metric-learning, CustomKNN",
            "oml": "Open Metric Learning",
            "torchmetrics_functional": "torchmetrics, functional",
            "research_code": "research code (full matrix, VOC loop)",
            "torchmetrics_class": "torchmetrics, MetricCollection",
        },
        "us",
        1.0,
    ),
)


def _loss(heading: str, **labels: str) -> Panel:
    sizes = mining_cases.CASES["b1024"].title
    return Panel(heading, "quadruplet_mining_cpu", "b1024", sizes, labels, "ms", 1e3)


def _weighting(case: str) -> Panel:
    labels = {
        "copy": "a copy of the same bytes",
        "ours": "zsbir_fast",
        "sdpa_trimmed": "PyTorch scaled_dot_product_attention, padding trimmed",
        "compiled_trimmed": "torch.compile, padding trimmed",
        "eager_trimmed": "PyTorch, padding trimmed",
        "compiled": "torch.compile",
        "eager": "PyTorch",
    }
    heading, sizes = "Token weighting, forward and backward", token_cases.CASES[case].title
    return Panel(heading, "token_weighting_cpu", case, sizes, labels, "ms", 1e3)


TRAINING = (
    _loss(
        "Batch-hard quadruplets, forward and backward",
        floor_two="the two matrices of distances alone, PyTorch",
        ours_hard_quadruplet="zsbir_fast",
        torch_hard_quadruplet_compiled="PyTorch, torch.compile",
        torch_hard_quadruplet="PyTorch",
    ),
    _loss(
        "Batch-all triplets, forward and backward",
        floor="the matrix of distances alone, PyTorch",
        ours_all_triplet="zsbir_fast",
        pml_all="pytorch-metric-learning",
        torch_broadcast_compiled="PyTorch, torch.compile",
    ),
    _weighting("mixed"),
    _weighting("all77"),
)


# --- charts --------------------------------------------------------------------------------------


def rows_of(panel: Panel) -> tuple[list[Row], str]:
    """The rows of a panel, fastest first, and the machine that they were measured on.

    Raises:
        ValueError: the record lacks one of the rows.
    """
    result = read_records(RESULTS / f"{panel.record}.json")
    found = {row.provider: row for row in result.rows if row.case == panel.case}
    missing = [name for name in panel.labels if name not in found]
    if missing:
        raise ValueError(
            f"rows_of: {panel.record}.json must hold a row of {panel.case} for every provider, "
            f"got none for {', '.join(missing)}"
        )
    facts = result.facts
    rows = sorted((found[name] for name in panel.labels), key=lambda row: row.p50_us)
    return rows, f"{facts['cpu']}, {facts['threads']} threads, {facts['date'][:10]}"


def draw_chart(panels: Sequence[Panel]) -> Figure:
    """A bar of the median time with its number for every row of each panel."""
    drawn = [rows_of(panel) for panel in panels]
    heights = [len(rows) for rows, _ in drawn]
    figure = Figure(figsize=(9, 0.26 * sum(heights) + 0.6 * len(panels)), layout="constrained")
    parts = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, panel, (rows, machine) in zip(parts, panels, drawn, strict=True):
        _draw_panel(axes, panel, rows, machine)
    return figure


def _draw_panel(axes: Axes, panel: Panel, rows: Sequence[Row], machine: str) -> None:
    times = [row.p50_us / panel.us_per_unit for row in rows]
    colours = [{"ours": OURS, "floor": FLOOR}.get(row.kind, OTHERS) for row in rows]
    axes.barh(range(len(rows)), times, color=colours, height=0.72)
    for place, (time, colour) in enumerate(zip(times, colours, strict=True)):
        label = f" {significant(time)}"
        axes.text(time, place, label, va="center", color=colour, fontsize=8, fontweight="bold")
    wide = max(times) > MOST_ON_LINEAR * min(times)
    if wide:
        axes.set_xscale("log")
    axes.set_xlim(min(times) / 2 if wide else 0, max(times) * (1.8 if wide else 1.1))
    axes.set_yticks(range(len(rows)), [panel.labels[row.provider] for row in rows])
    for name, colour in zip(axes.get_yticklabels(), colours, strict=True):
        name.set(color=TEXT, fontsize=8, fontweight="bold" if colour == OURS else "normal")
    axes.invert_yaxis()
    axes.tick_params(left=False, which="both", bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_title(" \n ", fontsize=9)  # space for the two lines of the heading
    scale = f"{panel.unit}{', logarithmic scale' if wide else ''}"
    for text, above, size in (
        (panel.heading, 18, 9),
        (f"{scale}; {panel.sizes}; {machine}", 6, 7),
    ):
        axes.annotate(
            text,
            (0, 1),
            (4, above),
            xycoords=("figure fraction", "axes fraction"),
            textcoords="offset points",
            color=TEXT,
            fontsize=size,
            fontweight="bold" if size == 9 else "normal",
        ).set_in_layout(False)


# --- the retrieval row ---------------------------------------------------------------------------


def find_rows(model_folder: Path, benchmark: Benchmark, *, photos: int) -> list[RetrievalRow]:
    """Search the unseen photos of a benchmark with an exported model.

    Returns:
        Sketches of different classes whose average precision is nearest to the median, with their
        nearest photos.
    """
    # Everything that knows how a model is stored and searches is imported here.
    from zsbir_fast.methods.saving import load_model
    from zsbir_fast.report.retrieval import retrieval_rows
    from zsbir_fast.retrieval.embed import embed_images

    model, _ = load_model(model_folder)
    images = benchmark.test_sketches, benchmark.test_photos
    embedded = embed_images(model, images[0]), embed_images(model, images[1])
    ranker = model.ranker()
    ap = ranker.evaluate(*embedded, images[0].labels, images[1].labels, ks=()).ap
    rows = retrieval_rows(ap, *embedded, *images, ranker=ranker, top=photos)
    return [row for row in rows if row.group.startswith("Typical")]


def draw_retrieval(rows: Sequence[RetrievalRow]) -> Figure:
    """A line for each query: the sketch, and its photos in green or red frames, nearest first.

    A wrong photo also has its class written under it.
    """
    columns = 1 + max(len(row.results) for row in rows)
    figure = Figure(figsize=(0.98 * columns, 1.12 * len(rows)))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.98, bottom=0.08, wspace=0.1, hspace=0.22)
    for line, row in zip(grid, rows, strict=True):
        for axes in line:
            axes.set_axis_off()
        _draw_tile(line[0], row.query, TEXT, row.label)
        for axes, photo in zip(line[1:], row.results, strict=False):
            _draw_tile(axes, photo.image, *((RIGHT, "") if photo.hit else (WRONG, photo.label)))
    return figure


def _draw_tile(axes: Axes, image: NDArray[np.uint8], colour: str, label: str) -> None:
    axes.set_axis_on()
    axes.imshow(image, interpolation="lanczos")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(color=colour, linewidth=2.5)
    axes.set_xlabel(label.replace("_", " "), color=colour, fontsize=7, labelpad=2)


# --- files ---------------------------------------------------------------------------------------


def write_png(figure: Figure, path: Path, *, dpi: int) -> None:
    """Write a figure with a transparent background in 256 colours."""
    whole = io.BytesIO()
    figure.savefig(whole, format="png", dpi=dpi, transparent=True)
    small = io.BytesIO()
    with Image.open(whole) as image:
        few = image.convert("RGBA").quantize(256, method=Image.Quantize.FASTOCTREE)
        few.save(small, format="PNG", optimize=True)
    write_atomically(path, lambda stream: stream.write(small.getvalue()))


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the figures into a folder."""
    parser = argparse.ArgumentParser(prog="python -m tools.figures", description=__doc__)
    parser.add_argument("--model", type=Path, help="folder of an exported model, for retrieval.png")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures")
    arguments = parser.parse_args(argv)
    write_png(draw_chart(EVALUATION), arguments.out / "evaluation.png", dpi=CHART_DPI)
    write_png(draw_chart(TRAINING), arguments.out / "training_step.png", dpi=CHART_DPI)
    if arguments.model:
        rows = find_rows(arguments.model, load_benchmark(), photos=PHOTOS)
        write_png(draw_retrieval(rows), arguments.out / "retrieval.png", dpi=PHOTO_DPI)


if __name__ == "__main__":
    main()
