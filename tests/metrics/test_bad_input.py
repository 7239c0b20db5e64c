"""Every bad input is one clear error, before any work."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import zsbir_fast as zf

but = dict  # what differs from good arguments

BAD_RETRIEVAL = [
    (but(queries=torch.zeros(3)), ValueError, r"queries must be \[Q, D\], got shape \[3\]"),
    (but(queries=torch.zeros(2, 5)), ValueError, "must have the same width D, got 5 and 4"),
    (
        but(queries=torch.zeros(0, 4), query_labels=[]),
        ValueError,
        r"queries must not be empty, got shape \[0, 4\]",
    ),
    (
        but(gallery=torch.zeros(0, 4), gallery_labels=[]),
        ValueError,
        r"gallery must not be empty, got shape \[0, 4\]",
    ),
    (but(gallery=torch.zeros(3, 0)), ValueError, r"gallery must not be empty, got shape \[3, 0\]"),
    (
        but(gallery=torch.ones(3, 4, dtype=torch.complex64)),
        TypeError,
        "gallery must be real numbers, got torch.complex64",
    ),
    (
        but(gallery=torch.ones(3, 4, dtype=torch.bool)),
        TypeError,
        "gallery must be real numbers, got torch.bool",
    ),
    (
        but(gallery=torch.ones(3, 4).to_sparse()),
        TypeError,
        "gallery must be a dense tensor, got layout torch.sparse_coo",
    ),
    (
        but(gallery=np.array([["a"] * 4] * 3)),
        TypeError,
        "gallery must be a tensor or an array of numbers, got an array of <U1",
    ),
    (but(gallery=None), TypeError, "gallery must be a tensor or an array of numbers, got None"),
    (
        but(gallery=[[1.0], [1.0, 2.0]]),
        TypeError,
        "gallery must be a tensor or an array of numbers, got list",
    ),
    (
        but(query_labels=[1, 2, 3]),
        ValueError,
        r"query_labels must be \[2\], one label for each row of queries, got shape",
    ),
    (
        but(gallery_labels=[[1, 2, 3]]),
        ValueError,
        r"gallery_labels must be \[3\], one label for each row of gallery",
    ),
    (but(query_labels=[1.0, 2.0]), TypeError, "query_labels must be integers, got torch.float32"),
    (
        but(gallery_labels=[True, False, True]),
        TypeError,
        "gallery_labels must be integers, got torch.bool",
    ),
    (
        but(gallery_labels=["cat", "dog", "cat"]),
        TypeError,
        "gallery_labels must be a tensor or an array of numbers, got list",
    ),
    (
        but(gallery_labels=np.array([1, 2, 2**63], dtype=np.uint64)),
        ValueError,
        r"gallery_labels must be below 2\^63",
    ),
    (
        but(gallery_labels=[7, 8, 9]),
        ValueError,
        "query_labels and gallery_labels must share a label, got none in common",
    ),
    (
        but(metric="hamming"),
        ValueError,
        "metric must be one of cosine, euclidean, dot, got 'hamming'",
    ),
    (
        but(protocol="sakee"),
        ValueError,
        r"sem_pcyc, torchmetrics, eccv18, got 'sakee' \(did you mean 'sake'\?\)",
    ),
    (but(protocol=None), TypeError, "protocol must be a name or a Protocol, got None"),
    (but(ks=(5, 0)), ValueError, "every k of ks must be at least 1, got 0"),
    (but(ks=(2**63,)), ValueError, r"every k of ks must be below 2\^63, got 9223372036854775808"),
    (but(ks=(2.5,)), TypeError, "ks must be integers, got 2.5"),
    (
        but(gallery=torch.ones(3, 4, device="meta")),
        TypeError,
        "gallery must hold numbers, got a tensor on the meta device",
    ),
    (
        but(gallery=np.ma.masked_equal(np.ones((3, 4)), 0)),
        TypeError,
        "gallery must have all its values, got a masked array",
    ),
    (
        but(gallery_labels=[1, 2, 2**70]),
        TypeError,
        "gallery_labels must be a tensor or an array of numbers, got list",
    ),
    (but(ks=(True,)), TypeError, "ks must be integers, got True"),
    (but(ks=True), TypeError, "ks must be integers, got True"),
    (but(query_labels=torch.zeros(2, dtype=torch.int64, device="meta")), TypeError, "on the meta"),
    (but(ks="100"), TypeError, "ks must be integers, got '100'"),
    (but(ks=2.5), TypeError, "ks must be integers, got 2.5"),
    (but(workspace_mib=0), ValueError, "workspace_mib must be at least 1, got 0"),
    (but(workspace_mib=1.5), TypeError, "workspace_mib must be an integer, got 1.5"),
    (
        but(metric="dot", gallery=torch.full((3, 4), 1e30), queries=torch.full((2, 4), 1e30)),
        ValueError,
        r"scores within the range of torch.float32 for metric='dot', got norms up",
    ),
    (
        but(metric="euclidean", gallery=torch.full((3, 4), 1e19)),
        ValueError,
        "within the range of torch.float32 for metric='euclidean'",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_RETRIEVAL)
def test_evaluate_retrieval_refuses(change, error, message):
    arguments = {
        "queries": torch.ones(2, 4),
        "gallery": torch.ones(3, 4),
        "query_labels": [1, 2],
        "gallery_labels": [1, 2, 2],
        "ks": 1,
        **change,
    }
    with pytest.raises(error, match=f"evaluate_retrieval: .*{message}"):
        zf.evaluate_retrieval(**arguments)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_not_finite_is_named(dtype, bad):
    good, spoiled = torch.ones(70, 3, dtype=dtype), torch.ones(70, 3, dtype=dtype)
    spoiled[66, 2] = spoiled[69, 0] = bad
    labels = [1] * 70
    message = rf"must be finite, got {bad} in row 66 \(2 such rows\)"
    with pytest.raises(ValueError, match=f"evaluate_retrieval: queries {message}"):
        zf.evaluate_retrieval(spoiled, good, labels, labels, ks=1)
    with pytest.raises(ValueError, match=f"evaluate_retrieval: gallery {message}"):
        zf.evaluate_retrieval(good, spoiled.t().contiguous().t(), labels, labels, ks=1)
    with pytest.raises(ValueError, match=f"evaluate_ranking: scores {message}"):
        zf.evaluate_ranking(spoiled, labels, [1, 1, 1], larger_is_closer=True, ks=1)


BAD_RANKING = [
    (but(scores=torch.zeros(6)), ValueError, r"scores must be \[Q, G\], got shape \[6\]"),
    (
        but(query_labels=[1]),
        ValueError,
        r"query_labels must be \[2\], one label for each row of scores, got shape \[1\]",
    ),
    (
        but(gallery_labels=[1, 2]),
        ValueError,
        r"gallery_labels must be \[3\], one label for each row of the gallery \(columns\), got",
    ),
    (but(larger_is_closer=1), TypeError, "larger_is_closer must be True or False, got 1"),
    (but(larger_is_closer=None), TypeError, "larger_is_closer must be True or False, got None"),
    (
        but(scores=torch.full((2, 3), 2**60)),
        ValueError,
        r"scores must be at most 2\^53 in size, got larger integers",
    ),
    (but(scores=torch.full((2, 3), -(2**63))), ValueError, r"scores must be at most 2\^53 in size"),
    (
        but(scores=np.full((2, 3), 2**64 - 1, dtype=np.uint64)),
        ValueError,
        r"scores must be at most 2\^53 in size",
    ),
    (but(protocol="nope"), ValueError, "protocol must be one of standard, "),
    (
        but(ties="random"),
        ValueError,
        "ties must be one of index, optimistic, pessimistic, grouped, expected, got 'random'",
    ),
    (
        but(protocol="sake", ties="expected"),
        ValueError,
        "Definition: ties='expected' has no closed form with ap='voc'",
    ),
    (but(query_labels=[8, 9]), ValueError, "must share a label, got none in common"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_RANKING)
def test_evaluate_ranking_refuses(change, error, message):
    arguments = {
        "scores": torch.zeros(2, 3),
        "query_labels": [1, 2],
        "gallery_labels": [1, 2, 2],
        "larger_is_closer": True,
        "ks": 1,
        **change,
    }
    with pytest.raises(error, match=message):
        zf.evaluate_ranking(**arguments)
    arguments.pop("larger_is_closer")
    with pytest.raises(TypeError, match="larger_is_closer"):
        zf.evaluate_ranking(**arguments)


def test_large_rows_with_small_partners_are_fine():
    """The norm of such a row is beyond float32, and no score is."""
    rows = torch.tensor([[1e25, 1e25], [1e24, 0.0]])
    for metric, size in (("dot", 1e-20), ("euclidean", 1e-20)):
        gallery = rows * size if metric == "euclidean" else rows
        result = zf.evaluate_retrieval(rows * size, gallery, [0, 1], [0, 1], metric=metric, ks=1)
        assert 0 < result.map <= 1
    huge = torch.full((2, 3), 1e200, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"got norms up to 1.73e\+200"):
        zf.evaluate_retrieval(huge, huge, [0, 1], [0, 1], metric="dot", ks=1)


def test_strided_labels_are_taken_without_a_word():
    labels = torch.arange(4).repeat_interleave(2)[::2]
    rows = torch.eye(4)
    assert zf.evaluate_retrieval(rows, rows, labels, labels, ks=1).map == 1
