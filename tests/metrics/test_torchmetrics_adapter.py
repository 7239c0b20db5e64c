"""RetrievalMetric in one process; test_processes.py has it in two."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy

import zsbir_fast as zf

KS = (1, 10)


def fill(metric, data, batch=16):
    q, g, query_labels, gallery_labels = data
    for start in range(0, len(q), batch):
        part = slice(start, start + batch)
        metric.update(q[part], query_labels[part])
    for start in range(0, len(g), batch):
        part = slice(start, start + batch)
        metric.update(gallery=g[part], gallery_labels=gallery_labels[part])


@pytest.mark.parametrize(
    "options", [{}, {"metric": "euclidean", "protocol": "sake"}, {"ties": "index"}]
)
def test_equals_evaluate_retrieval(retrieval, options):
    data = retrieval()
    metric = zf.RetrievalMetric(ks=KS, **options)
    fill(metric, data)
    values = metric.compute()
    result = zf.evaluate_retrieval(*data, ks=KS, **options)
    expected = {"map": result.map}
    for k in KS:
        expected |= {f"map@{k}": result.map_at[k], f"precision@{k}": result.precision_at[k]}
    assert {name: float(value) for name, value in values.items()} == pytest.approx(expected)
    assert all(value.shape == () for value in values.values())


def test_reset_and_a_second_round(retrieval):
    metric = zf.RetrievalMetric(ks=KS)
    fill(metric, retrieval())
    metric.compute()
    metric.reset()
    data = retrieval()
    q, g, query_labels, gallery_labels = data
    metric.update(q, query_labels, g, gallery_labels)
    assert float(metric.compute()["map"]) == pytest.approx(zf.evaluate_retrieval(*data, ks=KS).map)


def test_in_a_collection(retrieval):
    data = retrieval()
    metrics = MetricCollection(
        {"a": zf.RetrievalMetric(ks=KS), "b": zf.RetrievalMetric(ks=KS, protocol="sake")},
        prefix="val/",
    )
    fill(metrics, data)
    values = metrics.compute()
    for name, protocol in (("a", "standard"), ("b", "sake")):
        expected = zf.evaluate_retrieval(*data, ks=KS, protocol=protocol).map
        assert float(values[f"val/{name}_map"]) == pytest.approx(expected)
    together = MetricCollection([zf.RetrievalMetric(ks=KS), BinaryAccuracy()])
    q, g, *labels = data
    one = torch.ones(3)
    together.update(
        queries=q, query_labels=labels[0], gallery=g, gallery_labels=labels[1],
        preds=one, target=one.long(),
    )  # fmt: skip
    assert set(together.compute()) == {
        "map",
        "map@1",
        "precision@1",
        "map@10",
        "precision@10",
        "BinaryAccuracy",
    }


def test_gradients_are_not_kept(retrieval):
    q, g, *labels = retrieval()
    metric = zf.RetrievalMetric(ks=KS)
    metric.update(q.requires_grad_(), labels[0], g.half(), labels[1])
    assert not any(e.requires_grad for e in metric.queries)
    assert float(metric.compute()["map"]) > 0


Q, Y = torch.ones(2, 3), torch.tensor([1, 2])


def test_the_metric_shows_its_options():
    text = repr(zf.RetrievalMetric(metric="dot", ks=5))
    assert text.startswith("RetrievalMetric(metric='dot', protocol=Protocol(name='standard'")
    assert text.endswith("ks=(5,))")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "queries or a gallery must be given, got neither"),
        ({"queries": Q}, ValueError, "queries and query_labels must go together"),
        ({"gallery_labels": Y}, ValueError, "gallery and gallery_labels must go togeth"),
        (
            {"queries": Q, "query_labels": Y[:1]},
            ValueError,
            r"query_labels must be \[2\], one label for each row of queries",
        ),
        (
            {"gallery": Q[0], "gallery_labels": Y},
            ValueError,
            r"gallery must be \[n, D\], got shape \[3\]",
        ),
        (
            {"gallery": Q, "gallery_labels": Y / 2},
            TypeError,
            "gallery_labels must be integers",
        ),
    ],
)
def test_update_refuses(arguments, error, message):
    with pytest.raises(error, match=f"RetrievalMetric.update: {message}"):
        zf.RetrievalMetric().update(**arguments)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric RetrievalMetric was called")
def test_compute_needs_both_sides():
    metric = zf.RetrievalMetric()
    with pytest.raises(
        ValueError, match=r"compute: queries and a gallery must have been given .* got 0"
    ):
        metric.compute()
    metric.update(Q, Y)
    with pytest.raises(ValueError, match="got 2 queries and 0 gallery items"):
        metric.compute()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric": "l1"}, ValueError, "metric must be one of cosine, euclidean, dot, got 'l1'"),
        ({"protocol": "x"}, ValueError, "protocol must be one of standard"),
        ({"ks": 0}, ValueError, "every k of ks must be at least 1, got 0"),
    ],
)
def test_constructor_refuses(options, error, message):
    with pytest.raises(error, match=f"RetrievalMetric: {message}"):
        zf.RetrievalMetric(**options)


def test_without_torchmetrics_the_import_says_what_to_install():
    code = (
        "import sys; sys.modules['torchmetrics'] = None\n"
        "import zsbir_fast as zf\n"
        "try: zf.RetrievalMetric\n"
        "except ImportError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == (
        "zsbir_fast.RetrievalMetric needs torchmetrics: pip install 'zsbir-fast[torchmetrics]'"
    )
