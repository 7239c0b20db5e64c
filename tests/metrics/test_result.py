"""Results, protocols and the table of definitions."""

from __future__ import annotations

import json
import math

import pytest
import torch

import zsbir_fast as zf
from zsbir_fast.metrics.protocols import PROTOCOLS, Protocol, get_protocol

# Two queries of class 7, one of 8, one of a class that the gallery lacks.
SCORES = torch.tensor(
    [[9.0, 8.0, 7.0, 6.0], [6.0, 7.0, 8.0, 9.0], [1.0, 4.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]]
)
QUERY_LABELS = [7, 7, 8, 99]
GALLERY_LABELS = [7, 8, 8, 7]
# AP of the queries: (1 + 2/4) / 2, the same again, and ranks 1 and 3 of class 8: (1 + 2/3) / 2
AP = [3 / 4, 3 / 4, 5 / 6]


def result(protocol="standard", **options):
    options = {"ks": (1, 2), **options}
    return zf.evaluate_ranking(
        SCORES, QUERY_LABELS, GALLERY_LABELS, larger_is_closer=True, protocol=protocol, **options
    )


def test_means_follow_the_protocol():
    assert result().map == pytest.approx(sum(AP) / 3)
    assert result(Protocol("mine", empty="zero")).map == pytest.approx(sum(AP) / 4)
    assert result(Protocol("mine", average="class")).map == pytest.approx((AP[0] + AP[2]) / 2)
    both = Protocol("mine", average="class", empty="zero")
    assert result(both).map == pytest.approx((AP[0] + AP[2] + 0) / 3)
    with pytest.raises(ValueError, match=r"evaluate_ranking: every query must have a relevant "):
        result(Protocol("mine", empty="error"))
    with pytest.raises(ValueError, match=r"got 1 of 4 without; the first rows: \[3\]"):
        result(Protocol("mine", empty="error"))


def test_per_query_columns():
    r = result()
    assert r.relevant.tolist() == [2, 2, 2, 0]
    assert r.ap[:3].tolist() == pytest.approx(AP)
    assert math.isnan(r.ap[3])
    assert r.ap.dtype == torch.float64
    assert r.at("precision_at", 2)[:3].tolist() == [0.5, 0.5, 0.5]
    assert r.at("hit_at", 1)[:3].tolist() == [1, 1, 1]
    assert r.mrr == 1.0
    assert r.hit_at == {1: 1.0, 2: 1.0}
    assert r.recall_at == {1: 0.5, 2: 0.5}
    with pytest.raises(ValueError, match=r"at: k must be one of \[1, 2\], got 3"):
        r.at("ap_at", 3)
    with pytest.raises(ValueError, match=r"at: what must be one of ap_at, .*mean 'recall_at'\?"):
        r.at("recall", 1)


def test_per_class():
    report = result().per_class
    assert list(report) == [7, 8, 99]
    assert report[7]["queries"] == 2
    assert report[7]["relevant"] == 2
    assert report[7]["map"] == pytest.approx(3 / 4)
    assert report[8]["map_at"][1] == pytest.approx(1 / 2)
    assert report[8]["precision_at"][2] == pytest.approx(1 / 2)
    assert report[99]["relevant"] == 0
    assert math.isnan(report[99]["map"])


def test_to_dict_is_json_without_nan():
    values = json.loads(json.dumps(result().to_dict(), allow_nan=False))
    assert values["map"] == pytest.approx(sum(AP) / 3)
    assert set(values["map_at"]) == {"1", "2"}
    assert values["queries"] == 4
    assert values["queries_without_relevant"] == 1
    assert values["gallery"] == 4
    assert values["definition"].startswith("standard: standard AP, AP@k over R, Prec@k over k")
    assert "map_worst" not in values


def test_text_tells_the_numbers_and_the_definition():
    text = str(result())
    assert "mAP@all 0.7778  mAP@1 0.5000  mAP@2 0.5000  Prec@1 1.0000  Prec@2 0.5000" in text
    assert "[standard: standard AP, AP@k over R" in text
    assert "4 x 4]" in text
    assert "ties:" not in text


def test_ties_that_matter_are_told():
    tied = zf.evaluate_ranking(
        torch.zeros(1, 4), [7], GALLERY_LABELS, larger_is_closer=True, ks=(1,), ties="index"
    )
    assert tied.tie_spread == pytest.approx(1 - (1 / 3 + 2 / 4) / 2)
    assert "(ties: mAP@all from 0.4167 to 1.0000)" in str(tied)
    values = tied.to_dict()
    assert (values["map_worst"], values["map_best"]) == (tied.map_worst, tied.map_best)
    assert tied.definition.startswith("standard with index ties: standard AP")


def test_presets_are_what_their_code_bases_compute():
    table = {
        name: (p.ap, p.normaliser, p.precision, p.average, p.ties, p.empty)
        for name, p in PROTOCOLS.items()
    }
    assert table == {
        "standard": ("standard", "all_relevant", "k", "query", "expected", "skip"),
        "sake": ("voc", "min_relevant_k", "min_gallery_k", "class", "index", "skip"),
        "zse": ("voc", "min_relevant_k", "min_relevant_k", "query", "index", "skip"),
        "sem_pcyc": ("standard", "prefix_positive", "k", "query", "grouped", "zero"),
        "torchmetrics": ("standard", "prefix_positive", "k", "query", "index", "zero"),
        "eccv18": ("standard", "at_k", "k", "query", "index", "zero"),
    }


def test_get_protocol():
    mine = Protocol("mine", ties="grouped")
    assert get_protocol(mine) is mine
    assert get_protocol("sake", ties="index") is PROTOCOLS["sake"]
    assert get_protocol("sake", ties="grouped").ties == "grouped"
    with pytest.raises(ValueError, match="get_protocol: protocol must be one of standard, sake, "):
        get_protocol("x")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"average": "micro"}, "Protocol: average must be one of query, class, got 'micro'"),
        ({"empty": "nan"}, "Protocol: empty must be one of skip, zero, error, got 'nan'"),
        ({"precision": "r"}, "Protocol: precision must be one of k, min_relevant_k, min_gall"),
        ({"ap": "voc"}, "ties='expected' has no closed form with ap='voc'"),
    ],
)
def test_protocol_refuses(choices, message):
    with pytest.raises(ValueError, match=message):
        Protocol("mine", **choices)


def test_compare_definitions_equals_each_alone(retrieval):
    data = retrieval(50, 300)
    table = zf.compare_definitions(*data, ks=(5, 50))
    assert list(table.results) == list(PROTOCOLS)
    for name, got in table.results.items():
        alone = zf.evaluate_retrieval(*data, protocol=name, ks=(5, 50))
        assert torch.equal(got.columns, alone.columns)
        assert got.definition == alone.definition
    rows = table.rows()
    assert rows[0] == ["protocol", "mAP@all", "mAP@5", "mAP@50", "Prec@5", "Prec@50", "definition"]
    assert [row[0] for row in rows[1:]] == list(PROTOCOLS)
    assert str(table).splitlines()[1].startswith("standard ")
    assert json.dumps(table.to_dict(), allow_nan=False)


def test_compare_definitions_with_protocols_of_ones_own(retrieval):
    data = retrieval(20, 60)
    mine = Protocol("mine", normaliser="at_k")
    table = zf.compare_definitions(*data, ks=5, protocols=("sake", mine), metric="euclidean")
    assert list(table.results) == ["sake", "mine"]
    for protocols in ((), ("sake", "sake"), (mine, Protocol("mine"))):
        with pytest.raises(ValueError, match="compare_definitions: protocols must have one name"):
            zf.compare_definitions(*data, ks=5, protocols=protocols)
    with pytest.raises(ValueError, match="compare_definitions: protocol must be one of"):
        zf.compare_definitions(*data, ks=5, protocols=("sak",))
