"""The report of a run: numbers, pictures and settings, gathered from its parts."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from torch.nn import functional as F

from zsbir_fast.metrics.result import RetrievalResult
from zsbir_fast.ranking.clusters import ClusterRanker
from zsbir_fast.report.attention import attention_pairs, weighted_pairs
from zsbir_fast.report.clusters import cluster_picture
from zsbir_fast.report.content import (
    ClusterPicture,
    Curve,
    PerClass,
    RetrievalRow,
    WeightedPair,
)
from zsbir_fast.report.html import write_report
from zsbir_fast.report.retrieval import SecondRanking, retrieval_rows
from zsbir_fast.runs.curves import Points
from zsbir_fast.runs.explain import ExplainedPairs
from zsbir_fast.runs.outcome import Outcome, table_name
from zsbir_fast.runs.results import result_table

PRETRAINING_NOTE = (
    "The encoder starts from weights pre-trained on ImageNet, which holds photos of some of the "
    "unseen classes. Published methods start from such weights too; no sketch and no label of an "
    "unseen class was used here."
)

_MOST_CLUSTERS = 40  # that a report shows, over all blocks of the features

_IN_WORDS = (
    "A photo is right if it shows the class of the query, and there are R right ones. Average "
    "precision: go down the ranking, note at every right photo which share of the photos so far "
    "was right, add these up and divide by R. mAP@all is the mean over the queries. mAP@k stops "
    "after k photos and still divides by R, so even a perfect ranking stays below 1 where R "
    "exceeds k. Prec@k is the share of right photos among the first k. All are fractions, not "
    "percent. Other papers divide differently: zsbir eval --compare shows the same ranking "
    "under their definitions."
)


def write_run_report(path: str | Path, outcome: Outcome) -> Path:
    """Write the report of a command.

    Args:
        path: the HTML file.
        outcome: the content; pictures of retrieved photos where the images are known.

    Returns:
        The path written.
    """
    embedded, result = outcome.embedded, outcome.result
    leaked = len(embedded.leak.names)
    known = f", {leaked} of them known to the model" if leaked else ""
    table = outcome.table
    highlight = table_name(outcome.row)
    return write_report(
        path,
        title=outcome.title,
        lead=outcome.lead,
        tables=[
            result_table(
                f"{outcome.of_what}: {len(embedded.queries)} queries, {len(embedded.gallery)} "
                f"photos, {len(embedded.names)} classes{known}",
                table,
                highlight=highlight,
            )
        ],
        retrieval=_retrieval(outcome),
        clusters=_clusters(outcome),
        per_class=[
            PerClass(
                title="Per class",
                values=_by_class(result, embedded.names),
                baseline=_by_class(outcome.results[outcome.baseline], embedded.names)
                if outcome.baseline
                else {},
                value_name=f"mAP@all, {highlight}",
                baseline_name=table_name(outcome.baseline),
            )
        ],
        curves=training_curves(outcome.curves),
        **_explanation(outcome.explained),
        definition=f"Every query ranks all photos by {embedded.ranker.name}. {_IN_WORDS} In "
        f"short: {result.definition}.",
        settings=outcome.settings,
        versions=versions(),
        notes=[*filter(None, [embedded.leak.note, _reranking(outcome)]), *outcome.notes],
    )


def _reranking(outcome: Outcome) -> str:
    if outcome.reranked is None:
        return ""
    return (
        f"Re-ranked: {outcome.reranked.text}. It uses the other photos of the gallery, no label "
        "and no other query. Pictures show both rankings, bars the plain one."
    )


def _by_class(result: RetrievalResult, names: Mapping[int, str]) -> dict[str, float]:
    best_first = sorted(result.per_class.items(), key=lambda item: -item[1]["map"])
    return {names[label]: values["map"] for label, values in best_first}


def _retrieval(outcome: Outcome) -> list[RetrievalRow]:
    embedded = outcome.embedded
    if embedded.sketches is None or embedded.photos is None:
        return []
    again, second = outcome.reranked, None
    if again is not None and again.ranker is not embedded.ranker:
        second = SecondRanking(_reranked_by(again.by), again.ranker, again.result.ap)
    return retrieval_rows(
        outcome.result.ap,
        embedded.queries,
        embedded.gallery,
        embedded.sketches,
        embedded.photos,
        ranker=embedded.ranker,
        second=second,
    )


def _reranked_by(ranker: str) -> str:
    """Label a strip: "re-ranked (...)", without the plain ranking that the name begins with."""
    what = ranker.partition(", re-ranked ")[2]
    return f"re-ranked {what}" if what else f"re-ranked ({ranker})"


def _clusters(outcome: Outcome) -> list[ClusterPicture]:
    """The clusters that the gallery is ranked by, one picture for each block of the features."""
    embedded = outcome.embedded
    if embedded.photos is None or not isinstance(embedded.ranker, ClusterRanker):
        return []
    books = embedded.ranker.codebooks(embedded.gallery)
    blocks, count = books.codewords.shape[:2]
    distances = books.distances(F.normalize(embedded.gallery.float(), dim=1))
    return [
        cluster_picture(
            f"Clusters by block {m + 1} of {blocks} of the features" if blocks > 1 else "",
            books.codes[m],
            distances[m],
            embedded.photos,
            count=count,
            most=max(1, _MOST_CLUSTERS // blocks),
        )
        for m in range(blocks)
    ]


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
    """Return the versions and the hardware that a run depends on.

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
