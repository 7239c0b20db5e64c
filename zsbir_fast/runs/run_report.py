"""The report of a run: numbers, pictures and settings, gathered from its parts."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zsbir_fast.data.benchmarks import Benchmark
from zsbir_fast.metrics.result import RetrievalResult
from zsbir_fast.report.attention import attention_pairs, weighted_pairs
from zsbir_fast.report.content import Curve, PerClass, WeightedPair
from zsbir_fast.report.html import write_report
from zsbir_fast.report.retrieval import retrieval_rows
from zsbir_fast.runs.curves import Points
from zsbir_fast.runs.explain import ExplainedPairs
from zsbir_fast.runs.results import result_table
from zsbir_fast.runs.train import Embedded

PRETRAINING_NOTE = (
    "The encoder starts from weights pre-trained on ImageNet, which holds photos of some of the "
    "unseen classes. Published methods start from such weights too; no sketch and no label of an "
    "unseen class was used here."
)

_IN_WORDS = (
    "Every sketch ranks all photos by cosine similarity; a photo is right if it shows the class of "
    "the sketch, and there are R right ones. Average precision: go down the ranking, note at every "
    "right photo which share of the photos so far was right, add these up and divide by R. mAP@all "
    "is the mean over the sketches. mAP@k stops after k photos and still divides by R, so even a "
    "perfect ranking stays below 1 where R exceeds k. Prec@k is the share of right photos among "
    "the first k. All are fractions, not percent. Other papers divide differently: zsbir eval "
    "--compare shows the same ranking under their definitions."
)


def report_run(
    path: str | Path,
    benchmark: Benchmark,
    results: Mapping[str, RetrievalResult],
    trained: Embedded,
    *,
    title: str,
    lead: str,
    curves: Mapping[str, Points],
    settings: Mapping[str, Any],
    notes: Sequence[str] = (),
    baseline: str = "",
    explained: ExplainedPairs | None = None,
) -> Path:
    """Write the report of a trained model on the unseen classes of a benchmark.

    Args:
        path: the HTML file.
        benchmark: gives the test images and the names of the unseen classes.
        results: row name -> result, for the table; must hold ``"trained"``.
        trained: embeddings and result of the trained model.
        title: title of the page.
        lead: a sentence under the title.
        curves: logged numbers by name, as ``read_curves`` gives them.
        settings: what was run.
        notes: caveats.
        baseline: row of ``results`` that the bars per class are compared with; none if empty.
        explained: pairs of seen classes with their weights and patches, from
            ``explain_seen_pairs``; None leaves these sections out.

    Returns:
        The path written.
    """
    names = dict(enumerate(benchmark.unseen))
    leaked = len(trained.leak.names)
    known = f", {leaked} of them known to the model" if leaked else ""
    kind = "Retrieval, not zero-shot," if leaked else "Zero-shot retrieval"
    by_class = sorted(trained.result.per_class.items(), key=lambda item: -item[1]["map"])
    return write_report(
        path,
        title=title,
        lead=lead,
        tables=[
            result_table(
                f"{kind} on {benchmark.name}: {len(trained.queries)} sketches, "
                f"{len(trained.gallery)} photos, {len(names)} unseen classes{known}",
                results,
                highlight="trained",
            )
        ],
        retrieval=retrieval_rows(
            trained.result.ap,
            trained.queries,
            trained.gallery,
            benchmark.test_sketches,
            benchmark.test_photos,
        ),
        per_class=[
            PerClass(
                title="Per unseen class",
                values={names[label]: values["map"] for label, values in by_class},
                baseline={
                    names[label]: values["map"]
                    for label, values in results[baseline].per_class.items()
                }
                if baseline
                else {},
                value_name="mAP@all of the trained model",
                baseline_name=baseline,
            )
        ],
        curves=training_curves(curves),
        **_explanation(explained),
        definition=f"{_IN_WORDS} In short: {trained.result.definition}.",
        settings=settings,
        versions=versions(),
        notes=[*filter(None, [trained.leak.note]), *notes],
    )


def _explanation(explained: ExplainedPairs | None) -> dict[str, list[WeightedPair]]:
    if explained is None:
        return {}
    parts = (explained.explanation, explained.sketches, explained.photos)
    return {"weighted": weighted_pairs(*parts), "attention": attention_pairs(*parts)}


def training_curves(curves: Mapping[str, Points]) -> list[Curve]:
    """Pick the curves worth showing: the losses, and the validation if there was one.

    Args:
        curves: logged numbers by name.

    Returns:
        Up to two charts.
    """
    losses = {
        name.removeprefix("train/"): points
        for name, points in curves.items()
        if name.startswith("train/")
    }
    charts = []
    if "loss" in losses:
        charts.append(Curve("Training loss", "optimizer step", {"loss": losses["loss"]}))
    if "val/map" in curves:
        series = {"mAP@all": curves["val/map"]}
        charts.append(Curve("Held-out seen classes, mAP@all", "optimizer step", series))
    return charts


def versions() -> dict[str, str]:
    """Return what a run depends on: versions and hardware.

    Returns:
        Name -> text.
    """
    from zsbir_fast import env_report

    facts = env_report.collect()
    return {
        "zsbir_fast": facts["zsbir_fast"]["version"],
        "CUDA kernels": facts["zsbir_fast"]["CUDA kernels"],
        "SIMD level": facts["zsbir_fast"]["SIMD level here"],
        "torch": facts["torch"]["version"],
        "GPUs": facts["torch"]["GPUs"],
        "lightning": facts["packages"]["lightning"],
        "python": platform.python_version(),
        "platform": facts["system"]["platform"],
        "processor": facts["system"]["processor"],
    }
