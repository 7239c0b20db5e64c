from __future__ import annotations

import numpy as np
import pytest

from benchmarks.retrieval_cases import (
    CASES,
    WARM_UP,
    Definition,
    RetrievalData,
    generate,
    reference_metrics,
    relevant_ranks,
)

# Relevant photos at ranks 1, 3 and 201: precisions 1, 2/3 and 3/201.
RANKS = [np.array([1, 3, 201])]


def test_reference_standard_by_hand():
    got = reference_metrics(RANKS, Definition())
    assert got["map"] == pytest.approx((1 + 2 / 3 + 3 / 201) / 3)
    assert got["map@200"] == pytest.approx((1 + 2 / 3) / 3)
    assert got["p@100"] == pytest.approx(2 / 100)


def test_reference_normalisers_by_hand():
    hits_found = reference_metrics(RANKS, Definition(at_k="prefix_positive"))
    assert hits_found["map@200"] == pytest.approx((1 + 2 / 3) / 2)
    large = [np.arange(1, 301)]
    over_all = reference_metrics(large, Definition(at_k="all_relevant"))
    assert over_all["map@200"] == pytest.approx(200 / 300)
    assert reference_metrics(large, Definition())["map@200"] == pytest.approx(1.0)


def test_reference_precision_over_min_by_hand():
    assert reference_metrics(RANKS, Definition(precision="min_relevant_k"))["p@200"] == 2 / 3


def test_reference_voc_envelope_by_hand():
    got = reference_metrics([np.array([2, 3, 8])], Definition(ap="voc"))
    assert got["map"] == pytest.approx((2 / 3 + 2 / 3 + 3 / 8) / 3)


def test_no_hit_within_k_counts_zero():
    got = reference_metrics([np.array([500])], Definition(at_k="prefix_positive"))
    assert got["map@200"] == 0.0
    assert got["map"] == pytest.approx(1 / 500)


def test_data_are_what_they_promise():
    data = generate(CASES["tiny"])
    assert data.queries.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(data.gallery, axis=1), 1.0, rtol=1e-5)
    sizes = np.bincount(data.gallery_labels)
    assert sizes.max() > 1.5 * sizes.min() > 0
    assert 0.4 < reference_metrics(relevant_ranks(data), Definition())["map"] < 0.6


def test_data_come_back_from_files(tmp_path):
    data = generate(WARM_UP)
    data.save(tmp_path)
    again = RetrievalData.load(WARM_UP, tmp_path)
    np.testing.assert_array_equal(again.queries, data.queries)
    np.testing.assert_array_equal(again.gallery_labels, data.gallery_labels)
    np.testing.assert_array_equal(again.exact_scores, generate(WARM_UP).exact_scores)
