from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from zsbir_fast.ranking.graph import NeighbourGraph, nearest_of_block


@pytest.fixture
def gallery(generator):
    rows = torch.randn(50, 8, generator=generator)
    rows[7] = rows[3]  # equal photos
    rows[20] = 0.0
    return rows


def test_neighbours_are_those_of_a_stable_sort(gallery):
    graph = NeighbourGraph.of(gallery, 6)
    unit = F.normalize(gallery.double(), dim=1)
    cosines = (unit @ unit.T).float()
    torch.testing.assert_close(graph.cosines, cosines.gather(1, graph.rows), rtol=0, atol=1e-6)
    worst = graph.cosines[:, -1:]
    assert ((cosines > worst + 1e-6).sum(1) <= 6).all()
    assert graph.rows[3, :2].tolist() == graph.rows[7, :2].tolist() == [3, 7]
    assert graph.rows[20].tolist() == [0, 1, 2, 3, 4, 5]  # all equal: the first of the gallery
    assert (len(graph), graph.k) == (50, 6)


@pytest.mark.parametrize("old", [1, 6, 30, 49, 50])
def test_added_photos_give_the_bits_of_a_new_graph(gallery, old):
    k = min(6, old)
    whole = NeighbourGraph.of(gallery, k)
    grown = NeighbourGraph.of(gallery[:old], k).extended(gallery)
    assert torch.equal(grown.rows, whole.rows)
    assert torch.equal(grown.cosines, whole.cosines)
    assert grown.fingerprint == whole.fingerprint


def test_ties_for_the_last_places_go_to_the_first_columns():
    scores = torch.tensor([[1.0, 2.0, 1.0, 1.0, 2.0], [0.0] * 5])
    values, columns = nearest_of_block(scores, 3)
    assert columns.tolist() == [[1, 4, 0], [0, 1, 2]]
    assert values.tolist() == [[2.0, 2.0, 1.0], [0.0] * 3]


def test_a_stored_graph(gallery, tmp_path):
    graph = NeighbourGraph.of(gallery, 4)
    graph.save(tmp_path / "graph.safetensors")
    loaded = NeighbourGraph.load(tmp_path / "graph.safetensors")
    assert torch.equal(loaded.rows, graph.rows)
    assert torch.equal(loaded.cosines, graph.cosines)
    loaded.require_gallery("f", gallery)
    with pytest.raises(ValueError, match="f: graph must be that of the gallery of 50 photos, got"):
        loaded.require_gallery("f", gallery * 2)
    with pytest.raises(ValueError, match="photos, got that of another gallery of 50"):
        loaded.extended(torch.cat([gallery.flip(0), gallery]))


def test_files_that_are_no_graph(gallery, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^NeighbourGraph\.load: no such graph: .*none"):
        NeighbourGraph.load(tmp_path / "none")
    path = tmp_path / "graph.safetensors"
    NeighbourGraph.of(gallery, 4).save(path)
    content = path.read_bytes()
    for damaged in (b"", content[:-5], content.replace(b"fingerprint", b"fingerprunt")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="path must be a graph written by zsbir, got"):
            NeighbourGraph.load(path)


@pytest.mark.parametrize(
    ("k", "error", "text"),
    [
        (0, ValueError, r"NeighbourGraph\.of: k must be in \[1, 50\], got 0"),
        (51, ValueError, r"NeighbourGraph\.of: k must be in \[1, 50\], got 51"),
        (2.0, TypeError, "k must be an integer"),
    ],
)
def test_impossible_numbers_of_neighbours(gallery, k, error, text):
    with pytest.raises(error, match=text):
        NeighbourGraph.of(gallery, k)


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("values", [3, 50, 10**6])
@pytest.mark.parametrize("width", [64 * 40, 64 * 40 + 1, 64 * 41 - 1])
def test_groups_of_columns_hide_no_score(generator, k, values, width):
    scores = torch.randint(values, (40, width), generator=generator).float()
    scores[0] = -scores[0]
    found, columns = nearest_of_block(scores, k)
    order = torch.sort(scores, dim=1, descending=True, stable=True)
    assert torch.equal(columns, order.indices[:, :k])
    assert torch.equal(found, order.values[:, :k])
