"""Rankings by clusters: equal to a transcription over SciPy and scikit-learn, ties and all."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist
from sklearn.mixture import GaussianMixture

import zsbir_fast as zf
from zsbir_fast.ranking import clusters, codebooks, ranker
from zsbir_fast.ranking.cluster_count import choose_clusters
from zsbir_fast.ranking.clusters import ClusterRanker
from zsbir_fast.ranking.codebooks import fit_codebooks


def unit(rows):
    """In float32, from which rounds of clustering would go other ways than from float64."""
    return torch.nn.functional.normalize(rows, dim=1).double().numpy()


def published(queries, gallery, *, model, clusters, blocks, covariance="full", seed=123):
    """Sums of squared distances to the centres, as the published code has them, in float64."""
    q, g = unit(queries), unit(gallery)
    stream = np.random.RandomState(seed)
    total = 0
    for part_q, part_g in zip(np.split(q, blocks, 1), np.split(g, blocks, 1), strict=True):
        if model == "kmeans":
            words, _ = kmeans2(part_g, clusters, iter=20, minit="points", seed=stream)
        else:
            mixture = GaussianMixture(clusters, covariance_type=covariance, random_state=stream)
            words = mixture.fit(part_g).means_
        codes = cdist(part_g, words).argmin(1)
        total = total + cdist(part_q, words, "sqeuclidean")[:, codes]
    return total, cdist(q, g)


@pytest.fixture
def data(generator):
    centres = torch.randn(5, 16, generator=generator)
    labels = torch.arange(23) % 5, torch.arange(121) % 5
    rows = [centres[x] + torch.randn(len(x), 16, generator=generator) for x in labels]
    return *rows, *labels


@pytest.mark.parametrize("blocks", [1, 2, 4])
@pytest.mark.parametrize("fuse", [0.0, 0.2, 1.0])
@pytest.mark.parametrize(
    ("model", "covariance"),
    [("kmeans", "full"), ("gmm", "full"), ("gmm", "diag"), ("gmm", "spherical")],
)
def test_scores_are_those_of_the_published_code(data, model, covariance, blocks, fuse, monkeypatch):
    monkeypatch.setattr(clusters, "_TILE", 50)
    queries, gallery, *_ = data
    options = {"model": model, "clusters": 6, "blocks": blocks, "covariance": covariance}
    sums, distances = published(queries, gallery, **options)
    expected = torch.from_numpy((1 - fuse) * sums + fuse * distances).float()
    by = ClusterRanker(**options, fuse=fuse)
    scores = by.scorer(gallery * 4)(queries / 8)  # lengths do not matter
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)
    books = by.codebooks(gallery * 4)
    assert books.codewords.shape == (blocks, 6, 16 // blocks)
    assert books.codewords.dtype == torch.float32
    assert books.codes.shape == (blocks, 121)


def test_photos_of_a_cluster_come_in_ascending_distance(data):
    queries, gallery, *_ = data
    for blocks in (1, 2):
        sums, distances = published(queries, gallery, model="kmeans", clusters=6, blocks=blocks)
        by = ClusterRanker(clusters=6, blocks=blocks, inside="distance")
        found = by.search(queries, gallery, 121).rows.numpy()
        expected = np.array(
            [np.lexsort((d, s)) for s, d in zip(sums.astype(np.float32), distances, strict=True)]
        )
        assert (found == expected).all()
        assert by.scorer(gallery)(queries).dtype == torch.float64


def test_ties_are_told(data):
    queries, gallery, *_ = data
    tied = ClusterRanker(clusters=3)
    scores = tied.scorer(gallery)(queries)
    assert all(len(row.unique()) == 3 for row in scores)
    result = tied.evaluate(*data, ks=(5,))
    assert result.map_worst + 0.01 < result.map < result.map_best - 0.01
    assert "ties: mAP@all from" in str(result)
    assert "ties expected" in result.definition
    assert result.to_dict()["tie_spread"] == result.tie_spread > 0.02
    # SAKE's preset orders ties by the gallery, which flatters one in the order of its classes.
    order = data[3].sort(stable=True).indices
    in_order = (queries, gallery[order], data[2], data[3][order])
    sake = replace(zf.PROTOCOLS["sake"], ties="pessimistic")
    flattered, worst = (tied.evaluate(*in_order, ks=(5,), protocol=p).map for p in ("sake", sake))
    assert worst < flattered
    for apart in (
        ClusterRanker(clusters=3, fuse=0.2),
        ClusterRanker(clusters=3, inside="distance"),
    ):
        assert apart.evaluate(*data, ks=(5,)).tie_spread == 0
    assert ClusterRanker(clusters=3, blocks=4).evaluate(*data, ks=(5,)).tie_spread > 0


def test_bits_depend_neither_on_blocks_nor_on_threads(data, monkeypatch, set_threads):
    queries, gallery, *_ = data
    for options in ({}, {"fuse": 0.2, "blocks": 2}, {"inside": "distance"}):
        found = []
        for threads, rows in ((1, 121), (2, 7)):
            set_threads(threads)
            monkeypatch.setattr(ranker, "_BLOCK_BYTES", 4 * 121 * rows)
            by = ClusterRanker(clusters=9, **options)
            found.append((by.scorer(gallery)(queries), by.evaluate(*data, ks=(5,)).columns))
        assert torch.equal(found[0][0], found[1][0])
        assert torch.equal(found[0][1], found[1][1])
    starts = [ClusterRanker(clusters=9, seed=s).codebooks(gallery).codewords for s in (1, 1, 2)]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_a_gallery_is_clustered_once(data, monkeypatch):
    queries, gallery, *_ = data
    fits = []
    fit = fit_codebooks
    monkeypatch.setattr(clusters, "fit_codebooks", lambda *a, **o: fits.append(1) or fit(*a, **o))
    by = ClusterRanker(clusters=6)
    first = by.search(queries, gallery, 3).rows
    assert torch.equal(by.search(queries, gallery.clone(), 3).rows, first)
    assert len(fits) == 1
    by.scorer(gallery[:100])
    by.scorer(gallery)
    assert len(fits) == 3


def test_names_say_all_settings(data):
    assert (
        ClusterRanker().name == "clusters by k-means (K 25, M 1, photos of a cluster tie, seed 123)"
    )
    mixed = ClusterRanker(model="gmm", covariance="diag", clusters=7, blocks=2, fuse=0.2, seed=4)
    assert mixed.name == (
        "clusters by diag Gaussian mixtures (K 7, M 2, fused with 0.2 of the distance, seed 4)"
    )
    assert repr(mixed) == (
        "ClusterRanker(model='gmm', clusters=7, blocks=2, covariance='diag', fuse=0.2, "
        "inside='tie', seed=4, starts=1)"
    )
    by = ClusterRanker(clusters=None, inside="distance")
    assert "K chosen without labels, M 1, by distance inside a cluster" in by.name
    by.evaluate(*data, ks=(5,))
    assert f"K {choose_clusters(data[1])} chosen without labels" in by.name


def test_no_query_and_equal_photos(data):
    by = ClusterRanker(clusters=1)
    assert by.search(data[0][:0], data[1], 5).rows.shape == (0, 5)
    assert by.scorer(torch.ones(1, 4))(torch.ones(2, 4)).tolist() == [[0.0], [0.0]]
    assert ClusterRanker(clusters=None).scorer(torch.ones(9, 4))(torch.ones(1, 4)).max() == 0


def blobs(count, photos, generator, width=24):
    centres = torch.randn(count, width, generator=generator)
    return centres[torch.arange(photos) % count] + 0.3 * torch.randn(
        photos, width, generator=generator
    )


def test_the_number_of_clusters_is_found(generator):
    for count in (2, 5, 9, 16):
        assert count <= choose_clusters(blobs(count, 400, generator)) <= 1.25 * count
    assert choose_clusters(blobs(6, 2300, generator)) in (6, 7)
    assert choose_clusters(blobs(9, 200, generator), most=4) == 4
    assert choose_clusters(torch.randn(300, 24, generator=generator)) == 1  # no clusters at all
    assert choose_clusters(torch.ones(50, 3)) == choose_clusters(torch.ones(1, 3)) == 1


def test_bad_input_has_one_clear_error(data):
    gallery = data[1]
    nan = gallery.clone()
    nan[3, 2] = float("nan")
    cases = [
        ({"blocks": 3}, gallery, r"ClusterRanker: blocks must divide .* features, 16, got 3"),
        ({"clusters": 122}, gallery, r"ClusterRanker: clusters must be in \[1, 121\], got 122"),
        ({}, gallery[:1], r"ClusterRanker: clusters must be in \[1, 1\], got 25"),
        (
            {"model": "gmm", "clusters": 1},
            gallery[:1],
            "ClusterRanker: gallery must have at least 2 photos for model='gmm', got 1",
        ),
        ({}, nan, "ClusterRanker: gallery must be finite, got nan in row 3"),
    ]
    for options, photos, text in cases:
        with pytest.raises(ValueError, match=text):
            ClusterRanker(**options).scorer(photos)
    with pytest.raises(ValueError, match="ClusterRanker: queries must be finite, got nan in row 3"):
        ClusterRanker().scorer(gallery)(nan)
    with pytest.raises(ValueError, match=r"queries must be \[q, 16\] like the gallery, got"):
        ClusterRanker().scorer(gallery)(gallery[:, :9])
    with pytest.raises(ValueError, match=r"ClusterRanker: gallery must be \[n, D\], got"):
        ClusterRanker().scorer(gallery[0])
    for model in ("kmeans", "gmm"):
        with pytest.raises(
            ValueError,
            match=r"ClusterRanker: clusters must be few enough .* got 4, of which 3 have photos",
        ):
            ClusterRanker(model=model, clusters=4).scorer(torch.eye(3).repeat(5, 1))
    with pytest.raises(ValueError, match=r"choose_clusters: gallery must not be empty, got"):
        choose_clusters(torch.empty(0, 4))


def test_a_singular_covariance(data):
    options = {"model": "gmm", "clusters": 20, "blocks": 1, "covariance": "full", "seed": 0}
    rows = torch.nn.functional.normalize(data[1][:40], dim=1)
    with pytest.raises(
        ValueError, match=r"f: covariance must be one that 40 photos in 20 clusters"
    ):
        fit_codebooks("f", rows, **options, regularisation=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = fit_codebooks("f", rows, **options)  # scikit-learn adds 1e-6 to the diagonal
    assert bool(torch.isfinite(fitted.codewords).all())


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"model": "means"}, ValueError, "model must be one of kmeans, gmm, got 'means'"),
        ({"covariance": "tied"}, ValueError, "covariance must be one of full, diag, spherical"),
        ({"inside": "index"}, ValueError, "inside must be one of tie, distance, got 'index'"),
        ({"clusters": 0}, ValueError, "clusters must be at least 1, got 0"),
        ({"clusters": 2.5}, TypeError, "clusters must be an integer, got 2.5"),
        ({"blocks": 0}, ValueError, "blocks must be at least 1, got 0"),
        ({"fuse": 1.5}, ValueError, r"fuse must be in \[0, 1\], got 1.5"),
        ({"seed": -1}, ValueError, "seed must be in"),
        ({"fuse": 0.2, "inside": "distance"}, ValueError, "fuse must be 0 with inside='distance'"),
    ],
)
def test_options_that_cannot_be(options, error, text):
    with pytest.raises(error, match=f"ClusterRanker: {text}"):
        ClusterRanker(**options)


def test_the_best_of_several_starts_is_kept(data):
    gallery, options = data[1], {"clusters": 9, "seed": 1}
    rows = unit(gallery)

    def squares(starts):
        books = ClusterRanker(**options, starts=starts).codebooks(gallery)
        return float(
            (
                (torch.nn.functional.normalize(gallery) - books.codewords[0][books.codes[0]]) ** 2
            ).sum()
        )

    sums, stream = [], np.random.RandomState(1)
    for _ in range(6):
        words, _ = kmeans2(rows, 9, iter=20, minit="points", seed=stream)
        sums.append((cdist(rows, words).min(1) ** 2).sum())
    assert min(sums) < sums[0] - 0.1
    assert squares(1) == pytest.approx(sums[0], rel=1e-5)
    assert squares(6) == pytest.approx(min(sums), rel=1e-5)
    by = ClusterRanker(**options, starts=6, model="gmm", covariance="diag")
    mixture = GaussianMixture(
        9, covariance_type="diag", n_init=6, random_state=np.random.RandomState(1)
    )
    words = torch.from_numpy(mixture.fit(rows).means_).float()
    torch.testing.assert_close(by.codebooks(gallery).codewords[0], words, rtol=0, atol=1e-6)
    assert "best of 6 starts, seed 1" in by.name
    with pytest.raises(ValueError, match="ClusterRanker: starts must be at least 1, got 0"):
        ClusterRanker(starts=0)


def test_codes_are_of_the_nearest_codeword(data):
    words = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    rows = torch.tensor([[0.4, 0.0], [0.6, 0.0], [0.5, 9.0]])
    assert codebooks.nearest_codewords(rows, words).tolist() == [0, 1, 0]
