"""Rivals that people install. Each is optional; ``pip install '.[bench]'`` brings most of them.

Every row starts from embeddings and labels and pays for the conversion to that package's format,
as its users do. Packages are imported by name, so that a missing one only costs its own row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers import (
    BOTH,
    Sums,
    metrics_at_k,
    product_numpy,
    product_torch,
    relevant_counts,
    score_chunks,
    tensors,
)
from benchmarks.retrieval_cases import KS, Definition, RetrievalData
from benchmarks.suite import Prepared, Provider

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]  # queries, gallery and their labels

# torchmetrics drops every relevant item whose score is not positive, so cosines are shifted up.
ABOVE_ZERO = 1.0


def _rows(inputs: Inputs, n: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Scores and relevance of one query after the other."""
    queries, gallery, query_labels, gallery_labels = inputs
    for start, scores in score_chunks(queries, gallery, n, product_torch):
        for row, label in zip(scores, query_labels[start:], strict=False):
            yield row, gallery_labels == label


def _torchmetrics_functional(data: RetrievalData, device: str) -> Prepared:
    retrieval = import_module("torchmetrics.functional.retrieval")
    inputs = tensors(data, device)

    def run(n: int) -> dict[str, float]:
        sums = Sums()
        for scores, relevant in _rows(inputs, n):
            scores = scores + ABOVE_ZERO
            values = {"map": retrieval.retrieval_average_precision(scores, relevant)}
            for k in KS:
                at_k = {"top_k": k}
                values[f"map@{k}"] = retrieval.retrieval_average_precision(scores, relevant, **at_k)
                values[f"p@{k}"] = retrieval.retrieval_precision(scores, relevant, **at_k)
            sums.add({name: float(value) for name, value in values.items()})
        return sums.means()

    return Prepared(run)


def _torchmetrics_class(data: RetrievalData, device: str) -> Prepared:
    torchmetrics = import_module("torchmetrics")
    retrieval = import_module("torchmetrics.retrieval")
    queries, gallery, query_labels, gallery_labels = tensors(data, device)

    def run(n: int) -> dict[str, float]:
        metrics = {"map": retrieval.RetrievalMAP()}
        for k in KS:
            metrics[f"map@{k}"] = retrieval.RetrievalMAP(top_k=k)
            metrics[f"p@{k}"] = retrieval.RetrievalPrecision(top_k=k)
        collection = torchmetrics.MetricCollection(metrics)
        for start, scores in score_chunks(queries, gallery, n, product_torch):
            rows = torch.arange(start, start + len(scores))[:, None].expand(scores.shape)
            relevant = gallery_labels == query_labels[start : start + len(scores), None]
            collection.update(
                (scores + ABOVE_ZERO).flatten(), relevant.flatten(), indexes=rows.flatten()
            )
        return {name: float(value) for name, value in collection.compute().items()}

    return Prepared(run)


def _sklearn_ap(data: RetrievalData, device: str) -> Prepared:
    average_precision = import_module("sklearn.metrics").average_precision_score
    inputs = tensors(data, device)

    def run(n: int) -> dict[str, float]:
        sums = Sums()
        for scores, relevant in _rows(inputs, n):
            sums.add({"map": average_precision(relevant.numpy(), scores.numpy())})
        return sums.means()

    return Prepared(run)


def _sklearn_lrap(data: RetrievalData, device: str) -> Prepared:
    ranking = import_module("sklearn.metrics").label_ranking_average_precision_score
    queries, gallery, query_labels, gallery_labels = tensors(data, device)

    def run(n: int) -> dict[str, float]:
        total = 0.0
        for start, scores in score_chunks(queries, gallery, n, product_numpy):
            relevant = gallery_labels == query_labels[start : start + len(scores), None]
            total += ranking(relevant.numpy(), scores.numpy()) * len(scores)
        return {"map": total / n}

    return Prepared(run)


def _pml(searcher: str) -> Callable[[RetrievalData, str], Prepared]:
    def prepare(data: RetrievalData, device: str) -> Prepared:
        calculators = import_module("pytorch_metric_learning.utils.accuracy_calculator")
        inference = import_module("pytorch_metric_learning.utils.inference")
        distances = import_module("pytorch_metric_learning.distances")
        search = None
        if searcher == "custom":
            search = inference.CustomKNN(distances.CosineSimilarity(), batch_size=256)
        queries, gallery, query_labels, gallery_labels = tensors(data, device)
        calculator = calculators.AccuracyCalculator(
            include=("mean_average_precision",),
            k=len(gallery),
            knn_func=search,
            device=torch.device("cpu"),
        )

        def run(n: int) -> dict[str, float]:
            result = calculator.get_accuracy(queries[:n], query_labels[:n], gallery, gallery_labels)
            return {"map": result["mean_average_precision"]}

        return Prepared(run)

    return prepare


def _oml(data: RetrievalData, device: str) -> Prepared:
    search = import_module("oml.functional.knn").batched_knn_qg
    evaluate = import_module("oml.functional.metrics").calc_retrieval_metrics
    queries, gallery, query_labels, gallery_labels = tensors(data, device)

    def run(n: int) -> dict[str, float]:
        everything = len(gallery)
        _, retrieved, relevant = search(
            queries[:n], gallery, everything, query_labels[:n], gallery_labels, bs=256
        )
        result = evaluate(
            retrieved,
            relevant,
            cmc_top_k=(),
            precision_top_k=KS,
            map_top_k=(*KS, everything),
            verbose=False,
        )
        values = {"map": float(result["map"][everything])}
        for k in KS:
            values[f"map@{k}"] = float(result["map"][k])
            values[f"p@{k}"] = float(result["precision"][k])
        return values

    return Prepared(run)


RANX_NAMES = {
    "map": "map",
    **{f"map@{k}": f"map@{k}" for k in KS},
    **{f"p@{k}": f"precision@{k}" for k in KS},
}


def _ranx(form: str) -> Callable[[RetrievalData, str], Prepared]:
    def prepare(data: RetrievalData, device: str) -> Prepared:
        ranx = import_module("ranx")
        typed_list = import_module("numba").typed.List
        inputs = tensors(data, device)

        def lists(n: int) -> tuple[Any, Any]:
            qrels, run = typed_list(), typed_list()
            for scores, relevant in _rows(inputs, n):
                order = np.argsort(-scores.numpy())
                run.append(np.stack([order, scores.numpy()[order]], axis=1).astype(np.float64))
                hits = np.flatnonzero(relevant.numpy())
                qrels.append(np.stack([hits, np.ones_like(hits)], axis=1).astype(np.float64))
            return qrels, run

        def run(n: int) -> dict[str, float]:
            if form == "lists":
                qrels, ranking = lists(n)
            else:
                truth, scored = trec_dicts(inputs, n)
                qrels, ranking = ranx.Qrels(truth), ranx.Run(scored)
            result = ranx.evaluate(qrels, ranking, list(RANX_NAMES.values()))
            return {name: float(result[theirs]) for name, theirs in RANX_NAMES.items()}

        return Prepared(run)

    return prepare


def trec_dicts(inputs: Inputs, n: int) -> tuple[Any, Any]:
    """Relevance {query: {photo: 1}} and scores {query: {photo: score}} of ``n`` queries."""
    names = [str(i) for i in range(len(inputs[1]))]
    truth, scored = {}, {}
    for i, (scores, relevant) in enumerate(_rows(inputs, n)):
        truth[str(i)] = {names[j]: 1 for j in np.flatnonzero(relevant.numpy())}
        scored[str(i)] = dict(zip(names, scores.tolist(), strict=True))
    return truth, scored


def _pytrec_eval(data: RetrievalData, device: str) -> Prepared:
    pytrec_eval = import_module("pytrec_eval")
    inputs = tensors(data, device)
    names = (
        {"map": "map"} | {f"map@{k}": f"map_cut_{k}" for k in KS} | {f"p@{k}": f"P_{k}" for k in KS}
    )

    def run(n: int) -> dict[str, float]:
        truth, scored = trec_dicts(inputs, n)
        results = pytrec_eval.RelevanceEvaluator(truth, set(names.values())).evaluate(scored)
        sums = Sums()
        for values in results.values():
            sums.add({name: values[theirs] for name, theirs in names.items()})
        return sums.means()

    return Prepared(run)


def _ir_measures(data: RetrievalData, device: str) -> Prepared:
    ir_measures = import_module("ir_measures")
    inputs = tensors(data, device)
    names = {"map": ir_measures.AP}
    for k in KS:
        names |= {f"map@{k}": ir_measures.AP @ k, f"p@{k}": ir_measures.P @ k}

    def run(n: int) -> dict[str, float]:
        truth, scored = trec_dicts(inputs, n)
        result = ir_measures.calc_aggregate(list(names.values()), truth, scored)
        return {name: float(result[theirs]) for name, theirs in names.items()}

    return Prepared(run)


def _faiss(data: RetrievalData, device: str) -> Prepared:
    faiss = import_module("faiss")
    index = faiss.IndexFlatIP(data.case.D)
    index.add(data.gallery)

    def run(n: int) -> dict[str, float]:
        _, top = index.search(data.queries[:n], max(KS))
        hits = data.gallery_labels[top] == data.query_labels[:n, None]
        return metrics_at_k(hits, relevant_counts(data, n))

    return Prepared(run)


def _usearch(data: RetrievalData, device: str) -> Prepared:
    usearch = import_module("usearch.index")

    def run(n: int) -> dict[str, float]:
        found = usearch.search(
            data.gallery, data.queries[:n], max(KS), usearch.MetricKind.IP, exact=True
        )
        hits = data.gallery_labels[found.keys.astype(np.int64)] == data.query_labels[:n, None]
        return metrics_at_k(hits, relevant_counts(data, n))

    return Prepared(run)


HITS_FOUND = Definition(at_k="prefix_positive")
OVER_ALL = Definition(at_k="all_relevant")
SHIFTED = "given cosine + 1: it drops relevant items with a score of 0 or less"


def _rival(
    name: str, title: str, prepare: Any, definition: Definition, *needs: str, **more: Any
) -> Provider:
    return Provider(name, title, "rival", prepare, definition, needs, **more)


def _partial(name: str, title: str, prepare: Any, *needs: str, **more: Any) -> Provider:
    return Provider(name, title, "partial", prepare, Definition(), needs, note="no mAP@all", **more)


PROVIDERS = [
    _rival(
        "oml",
        "OML batched_knn_qg + calc_retrieval_metrics",
        _oml,
        Definition(at_k="prefix_positive", precision="min_relevant_k"),
        "oml",
        "omegaconf",
    ),
    _rival(
        "torchmetrics_functional",
        "torchmetrics functional, loop over queries",
        _torchmetrics_functional,
        HITS_FOUND,
        "torchmetrics",
        devices=BOTH,
        note=SHIFTED,
    ),
    _rival(
        "sklearn_lrap",
        "sklearn label_ranking_average_precision",
        _sklearn_lrap,
        Definition(),
        "sklearn",
        quick=False,
        note="mAP@all only",
    ),
    _rival(
        "sklearn_ap",
        "sklearn average_precision_score",
        _sklearn_ap,
        Definition(),
        "sklearn",
        note="mAP@all only",
    ),
    _rival(
        "pml_custom",
        "pytorch-metric-learning, CustomKNN(cosine)",
        _pml("custom"),
        Definition(),
        "pytorch_metric_learning",
        quick=False,
        note="mAP@all only",
    ),
    _rival(
        "pml_faiss",
        "pytorch-metric-learning, default FaissKNN",
        _pml("faiss"),
        Definition(),
        "pytorch_metric_learning",
        "faiss",
        note="mAP@all only",
    ),
    _rival("ranx", "ranx, numba typed lists", _ranx("lists"), OVER_ALL, "ranx", quick=False),
    _rival(
        "ir_measures",
        "ir-measures",
        _ir_measures,
        OVER_ALL,
        "ir_measures",
        "pytrec_eval",
        quick=False,
    ),
    _rival("pytrec_eval", "pytrec_eval", _pytrec_eval, OVER_ALL, "pytrec_eval"),
    _rival(
        "torchmetrics_class",
        "torchmetrics MetricCollection",
        _torchmetrics_class,
        HITS_FOUND,
        "torchmetrics",
        note=SHIFTED,
    ),
    _rival("ranx_dicts", "ranx, dicts", _ranx("dicts"), OVER_ALL, "ranx", quick=False),
    _partial("faiss", "@200 only: faiss IndexFlatIP", _faiss, "faiss"),
    _partial("usearch", "@200 only: usearch exact", _usearch, "usearch", quick=False),
]
