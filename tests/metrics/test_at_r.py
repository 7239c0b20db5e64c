"""MAP@R and R-precision against pytorch-metric-learning; k beyond G and empty classes as SAKE."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN

import zsbir_fast as zf
from zsbir_fast.metrics.protocols import PROTOCOLS, Protocol
from zsbir_fast.reference.definitions import FIXED_COLUMNS

AT_R = ("mean_average_precision_at_r", "r_precision")


def theirs(*data, average="query", **options):
    calculator = AccuracyCalculator(
        include=AT_R,
        k="max_bin_count",
        avg_of_avgs=average == "class",
        device=torch.device("cpu"),
        knn_func=CustomKNN(LpDistance(normalize_embeddings=False)),  # its default needs FAISS
    )
    values = calculator.get_accuracy(*data, **options)
    return [values[name] for name in AT_R]


@pytest.mark.parametrize("average", ["query", "class"])
def test_equal_to_pytorch_metric_learning(retrieval, average):
    queries, gallery, query_labels, gallery_labels = retrieval(80, 300)
    query_labels[:5] = 99  # a class without photos, which both leave out
    protocol = Protocol("mine", average=average)
    data = (queries, gallery, query_labels, gallery_labels)
    result = zf.evaluate_retrieval(*data, metric="euclidean", protocol=protocol, ks=())
    expected = theirs(queries, query_labels, gallery, gallery_labels, average=average)
    assert [result.map_at_r, result.r_precision] == pytest.approx(expected, abs=1e-12)
    assert 0.1 < result.map_at_r < result.r_precision < 0.9


def test_equal_to_pytorch_metric_learning_where_the_queries_are_the_gallery(retrieval):
    rows, _, labels, _ = retrieval(120, 1)
    labels[7] = 99  # nothing is relevant to it but itself
    result = zf.evaluate_retrieval(
        rows, rows, labels, labels, metric="euclidean", ks=(), exclude_self=True
    )
    expected = theirs(rows, labels)
    assert [result.map_at_r, result.r_precision] == pytest.approx(expected, abs=1e-12)


def test_they_follow_the_ties_and_the_mean_of_a_protocol_and_nothing_else(retrieval):
    """Half-precision embeddings of few values tie much; `plain_metrics` has the right values."""
    queries, gallery, *labels = retrieval(40, 90, width=2)
    data = (queries.round(), gallery.round(), *labels)
    for ties in ("index", "grouped"):
        found = {
            zf.evaluate_retrieval(*data, protocol=name, ties=ties, ks=(3,)).map_at_r
            for name, protocol in PROTOCOLS.items()
            if protocol.average == "query"
        }
        assert len(found) == 1
    spread = [zf.evaluate_retrieval(*data, ties=t, ks=()) for t in ("pessimistic", "optimistic")]
    expected = zf.evaluate_retrieval(*data, ks=())
    for name in ("map_at_r", "r_precision"):
        low, high = (getattr(result, name) for result in spread)
        assert low < getattr(expected, name) < high


def test_they_are_in_files_and_nan_where_nothing_is_relevant():
    result = zf.evaluate_ranking(
        [[0.0, 1.0, 2.0]] * 2, [1, 5], [1, 0, 1], larger_is_closer=False, ks=1
    )
    assert result.to_dict()["map_at_r"] == result.map_at_r == 0.5
    assert result.to_dict()["r_precision"] == result.r_precision == 0.5
    at_r = result.columns[:, FIXED_COLUMNS.index("ap_at_r")]
    assert at_r.isnan().tolist() == [False, True]
    zeros = replace(result, protocol=Protocol("mine", empty="zero"))
    assert (zeros.map_at_r, zeros.r_precision) == (0.25, 0.25)


def sake_code(distances, query_labels, gallery_labels, k):
    """Macro mAP@all and Prec@k as those code bases have them: a list per class, then its mean."""
    classes = np.unique(query_labels)
    ap, precision = ({c: [] for c in classes} for _ in range(2))
    for row, label in zip(distances, query_labels, strict=True):
        relevant = (gallery_labels == label)[np.argsort(row, kind="stable")]
        top = min(k, len(row))
        precision[label].append(relevant[:top].sum() / top)
        share = relevant.cumsum() / np.arange(1, len(row) + 1)
        lifted = np.maximum.accumulate(share[::-1])[::-1]
        total = relevant.sum()
        ap[label].append(lifted[relevant].sum() / total if total else np.nan)
    return tuple(np.mean([np.mean(rows[c]) for c in classes]) for rows in (ap, precision))


@pytest.mark.parametrize("k", [5, 12, 100])
def test_sake_divides_by_the_gallery_where_k_exceeds_it(k):
    rng = np.random.default_rng(k)
    data = rng.integers(0, 9, (30, 12)) / 4, rng.integers(0, 3, 30), rng.integers(0, 3, 12)
    options = {"larger_is_closer": False, "protocol": "sake", "ks": k}
    with pytest.warns(UserWarning, match="exceeds") if k > 12 else np.errstate():
        result = zf.evaluate_ranking(*data, **options)
    expected = sake_code(*data, k)
    assert (result.map, result.precision_at[k]) == pytest.approx(expected, abs=1e-12)
    if k > 12:
        assert torch.equal(result.at("precision_at", k), result.relevant.double() / 12)


def test_sake_and_classes_without_photos():
    """Their Prec@k counts such a class as 0, their mAP is then NaN; `sake` leaves it out of both.

    `empty="zero"` has their Prec@k, and a mAP in which the class counts 0 likewise.
    """
    rng = np.random.default_rng(0)
    distances, gallery_labels = rng.random((30, 12)), rng.integers(0, 3, 12)
    query_labels = np.repeat([0, 1, 2, 7], [8, 8, 8, 6])
    options = {"larger_is_closer": False, "ks": 5}
    data = (distances, query_labels, gallery_labels)
    ap, precision = sake_code(*data, 5)
    assert np.isnan(ap)
    assert precision > 0
    own = zf.evaluate_ranking(*data, protocol="sake", **options)
    known = sake_code(distances[:24], query_labels[:24], gallery_labels, 5)
    assert (own.map, own.precision_at[5]) == pytest.approx(known, abs=1e-12)
    zero = replace(PROTOCOLS["sake"], name="sake, empty as zero", empty="zero")
    result = zf.evaluate_ranking(*data, protocol=zero, **options)
    assert result.precision_at[5] == pytest.approx(precision, abs=1e-12)
    assert result.map == pytest.approx(known[0] * 3 / 4, abs=1e-12)


def test_every_entrance_divides_alike_beyond_the_gallery(retrieval):
    queries, gallery, *labels = retrieval(20, 30)
    labels[0][3] = 99
    options = {"protocol": "sake", "ks": (5, 31, 200)}
    with pytest.warns(UserWarning, match="exceeds"):
        expected = zf.evaluate_retrieval(queries, gallery, *labels, metric="dot", **options)
    assert float(expected.at("precision_at", 200)[0]) == float(expected.relevant[0]) / 30
    assert expected.at("precision_at", 31).isnan().tolist() == (labels[0] == 99).tolist()
    evaluator = zf.RetrievalEvaluator(metric="dot", stream=True, **options)
    for rows in (slice(0, 11), slice(11, 30)):
        evaluator.add_gallery(gallery[rows], labels[1][rows])
    ranker = zf.ScoreRanker(lambda q, g: q @ g.T, name="product")
    with pytest.warns(UserWarning, match="exceeds"):
        others = [
            evaluator.evaluate(queries, labels[0]),
            ranker.evaluate(queries, gallery, *labels, **options),
        ]
    exact = others[0].columns.nan_to_num(-1)
    assert torch.equal(exact, expected.columns.nan_to_num(-1))
    at = expected.columns.shape[1] - 4 * 2 + 1
    for k in (31, 200):
        beyond = others[1].at("precision_at", k)
        assert torch.equal(beyond.nan_to_num(-1), exact[:, at])
