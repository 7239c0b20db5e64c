"""evaluate_retrieval and evaluate_ranking: what they take, what they refuse, what they promise."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import zsbir_fast as zf

KS = (1, 5, 20)


def exact_columns(queries, gallery, query_labels, gallery_labels, metric, **options):
    """From float64 scores of the textbook definition of the distance."""
    q, g = queries.double(), gallery.double()
    if metric == "cosine":
        q, g = (x / x.norm(dim=1, keepdim=True).clamp(min=1e-300) for x in (q, g))
    scores = -torch.cdist(q, g, compute_mode="donot_use_mm_for_euclid_dist")
    if metric != "euclidean":
        scores = q @ g.t()
    return zf.evaluate_ranking(
        scores, query_labels, gallery_labels, larger_is_closer=True, ks=KS, **options
    ).columns


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "dot"])
@pytest.mark.parametrize("protocol", ["standard", "sake", "sem_pcyc"])
def test_embeddings_give_what_their_exact_scores_give(retrieval, metric, protocol):
    data = retrieval()
    got = zf.evaluate_retrieval(*data, metric=metric, protocol=protocol, ks=KS)
    torch.testing.assert_close(
        got.columns, exact_columns(*data, metric, protocol=protocol), rtol=0, atol=1e-5
    )


def test_float64_is_computed_in_float64(retrieval):
    q, g, *labels = retrieval()
    q, g = q.double(), g.double()
    g[1::2] = g[::2] * (1 + 1e-12)  # beyond float32
    got = zf.evaluate_retrieval(q, g, *labels, metric="dot", ks=KS, ties="index")
    assert torch.equal(got.columns, exact_columns(q, g, *labels, "dot", ties="index"))
    mixed = zf.evaluate_retrieval(q.float(), g, *labels, metric="dot", ks=KS)
    assert abs(mixed.map - got.map) < 1e-3


NUMBERS = [
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.uint16,
    torch.int32,
    torch.uint32,
    torch.int64,
    torch.uint64,
]


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
def test_every_type_of_numbers(retrieval, generator, dtype):
    """Small whole numbers are exact in every type, and so are their products."""
    _, _, *labels = retrieval(40, 200)
    q = torch.randint(0, 8, (40, 6), generator=generator)
    g = torch.randint(0, 8, (200, 6), generator=generator)
    expected = zf.evaluate_retrieval(q.float(), g.float(), *labels, metric="dot", ks=KS)
    got = zf.evaluate_retrieval(q.to(dtype), g.to(dtype), *labels, metric="dot", ks=KS)
    assert torch.equal(got.columns, expected.columns)
    scores = q @ g.t()
    if dtype in (torch.uint8, torch.int8):
        scores //= 4
    expected = zf.evaluate_ranking(scores.float(), *labels, larger_is_closer=True, ks=KS)
    got = zf.evaluate_ranking(scores.to(dtype), *labels, larger_is_closer=True, ks=KS)
    assert torch.equal(got.columns, expected.columns)


@pytest.mark.parametrize("dtype", NUMBERS[4:], ids=str)
def test_every_type_of_labels(retrieval, dtype):
    *embeddings, q, g = retrieval()
    expected = zf.evaluate_retrieval(*embeddings, q, g, ks=KS)
    got = zf.evaluate_retrieval(*embeddings, q.to(dtype), g.to(dtype).numpy(), ks=KS)
    assert torch.equal(got.columns, expected.columns)
    listed = zf.evaluate_retrieval(*embeddings, q.tolist(), g.tolist(), ks=KS)
    assert torch.equal(listed.columns, expected.columns)


def test_labels_are_names_not_numbers(retrieval):
    """Any renaming of the classes, in any order, large or negative, changes nothing."""
    *embeddings, q, g = retrieval()
    expected = zf.evaluate_retrieval(*embeddings, q, g, ks=KS, protocol="sake")
    names = torch.tensor([2**62, -5, 0, 17, -(2**62), 3, 1])
    got = zf.evaluate_retrieval(*embeddings, names[q], names[g], ks=KS, protocol="sake")
    assert torch.equal(got.columns, expected.columns)
    assert got.map == pytest.approx(expected.map, abs=1e-15)


def _layouts(x):
    a = x.numpy()
    read_only = a.copy()
    read_only.flags.writeable = False
    yield "array", a
    yield "read-only array", read_only
    yield "reversed array", a[::-1].copy()[::-1]
    yield "other byte order", a.astype(">f4")
    yield "transposed", x.t().contiguous().t()
    yield "every other column", torch.stack([x, -x], dim=2)[:, :, 0]
    yield "some columns", torch.cat([x, x], dim=1)[:, : x.shape[1]]
    yield "needs a gradient", x.clone().requires_grad_()
    yield "lists", x.tolist()
    yield "expanded copy", x[None].expand(2, *x.shape)[1]


def test_layouts_and_containers(retrieval):
    q, g, *labels = retrieval(20, 50)
    expected = zf.evaluate_retrieval(q, g, *labels, ks=KS)
    scores = q @ g.t()
    ranking = zf.evaluate_ranking(scores, *labels, larger_is_closer=True, ks=KS)
    for (name, a), (_, b), (_, s) in zip(_layouts(q), _layouts(g), _layouts(scores), strict=True):
        got = zf.evaluate_retrieval(a, b, *labels, ks=KS)
        torch.testing.assert_close(got.columns, expected.columns, msg=name)
        got = zf.evaluate_ranking(s, *labels, larger_is_closer=True, ks=KS)
        assert torch.equal(got.columns, ranking.columns), name


def test_inputs_stay_as_they_are(retrieval):
    data = retrieval()
    copies = [x.clone() for x in data]
    for metric in ("cosine", "euclidean", "dot"):
        zf.evaluate_retrieval(*data, metric=metric, ks=KS)
    assert all(map(torch.equal, data, copies))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("workspace_mib", [1, 3, 200])
def test_workspace_changes_nothing_but_rounding(retrieval, workspace_mib, metric):
    data = retrieval(300, 3000)
    whole = zf.evaluate_retrieval(*data, metric=metric, ks=KS)
    chunked = zf.evaluate_retrieval(*data, metric=metric, ks=KS, workspace_mib=workspace_mib)
    assert chunked.map == pytest.approx(whole.map, abs=1e-6)


def test_small_whole_numbers_are_exact_whatever_the_workspace_and_order(generator):
    """The products are exact, so the promise of bit-identical metrics reaches the embeddings."""
    q = torch.randint(-3, 4, (150, 8), generator=generator).float()
    g = torch.randint(-3, 4, (4000, 8), generator=generator).float()
    labels = [torch.randint(9, (n,), generator=generator) for n in (150, 4000)]
    options = {"metric": "dot", "ks": KS}
    whole = zf.evaluate_retrieval(q, g, *labels, **options)
    small = zf.evaluate_retrieval(q, g, *labels, **options, workspace_mib=1)
    assert torch.equal(small.columns, whole.columns)
    order = torch.randperm(4000, generator=generator)
    moved = zf.evaluate_retrieval(q, g[order], labels[0], labels[1][order], **options)
    assert torch.equal(moved.columns, whole.columns)
    euclidean = zf.evaluate_retrieval(q, g, *labels, metric="euclidean", ks=KS)
    assert torch.equal(euclidean.columns, exact_columns(q, g, *labels, "euclidean"))


def test_ties_by_index_follow_the_users_order():
    """Equal embeddings of different classes: who stands first in the gallery comes first."""
    g = torch.ones(4, 2)
    result = zf.evaluate_retrieval(g[:1], g, [1], [1, 0, 1, 0], ties="index", ks=1)
    assert result.map == pytest.approx((1 + 2 / 3) / 2)
    result = zf.evaluate_retrieval(g[:1], g, [1], [0, 1, 0, 1], ties="index", ks=1)
    assert result.map == pytest.approx((1 / 2 + 2 / 4) / 2)


@pytest.mark.parametrize("scale", [1e-30, 1e-44, 1e19, 1e38])
def test_cosine_knows_no_scale(retrieval, scale):
    q, g, *labels = retrieval(spread=0.2)
    expected = zf.evaluate_retrieval(q, g, *labels, ks=KS)
    largest = max(q.abs().max(), g.abs().max())
    got = zf.evaluate_retrieval(q / largest * scale, g / largest * scale, *labels, ks=KS)
    tolerance = 0.1 if scale < 1e-38 else 1e-4  # denormals have few digits
    assert got.map == pytest.approx(expected.map, abs=tolerance)


def test_row_of_zeros_has_cosine_zero():
    g = torch.tensor([[0.0, 0.0], [-1.0, 0.1], [1.0, 0.1]])
    result = zf.evaluate_retrieval(torch.tensor([[1.0, 0.0]]), g, [1], [1, 0, 0], ks=1)
    assert result.map == pytest.approx(1 / 2)
    result = zf.evaluate_retrieval(torch.zeros(1, 2), g, [1], [1, 0, 0], ks=1, ties="pessimistic")
    assert result.map == pytest.approx(1 / 3)


def test_autocast_and_default_dtype_change_nothing(retrieval):
    data = retrieval()
    expected = zf.evaluate_retrieval(*data, ks=KS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(zf.evaluate_retrieval(*data, ks=KS).columns, expected.columns)
    with torch.inference_mode():
        assert torch.equal(zf.evaluate_retrieval(*data, ks=KS).columns, expected.columns)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(zf.evaluate_retrieval(*data, ks=KS).columns, expected.columns)
    finally:
        torch.set_default_dtype(torch.float32)


def test_distances_are_negated_similarities(retrieval):
    q, g, *labels = retrieval()
    scores = q @ g.t()
    up = zf.evaluate_ranking(scores, *labels, larger_is_closer=True, ks=KS)
    down = zf.evaluate_ranking(-scores, *labels, larger_is_closer=False, ks=KS)
    assert torch.equal(up.columns, down.columns)
    assert up.map > 1.2 * zf.evaluate_ranking(scores, *labels, larger_is_closer=False, ks=KS).map


def test_k_beyond_the_gallery_warns_once_where_it_was_called(retrieval):
    *embeddings, q, g = retrieval(3, 30)
    with pytest.warns(UserWarning, match=r"k = \[31, 200\] exceeds the gallery of 30") as told:
        result = zf.evaluate_retrieval(*embeddings, q, g, ks=(5, 31, 200))
    assert len(told) == 1
    assert told[0].filename == __file__
    assert result.map_at[31] == result.map
    assert result.precision_at[200] == pytest.approx(float(result.relevant.double().mean()) / 200)
    assert result.recall_at[200] == 1.0
    scores = embeddings[0] @ embeddings[1].t()
    with pytest.warns(UserWarning, match="evaluate_ranking: k") as told:
        zf.evaluate_ranking(scores, q, g, larger_is_closer=True, ks=31)
    assert told[0].filename == __file__
    with pytest.warns(UserWarning, match="compare_definitions: k") as told:
        zf.compare_definitions(*embeddings, q, g, ks=31)
    assert len(told) == 1
    assert told[0].filename == __file__


def test_repeated_ks_count_once(retrieval):
    assert zf.evaluate_retrieval(*retrieval(), ks=(5, 1, 5, np.int64(1))).ks == (5, 1)
    assert zf.evaluate_retrieval(*retrieval(), ks=7).ks == (7,)
    assert zf.evaluate_retrieval(*retrieval(), ks=()).map_at == {}


def test_progress(retrieval, capsys, monkeypatch):
    monkeypatch.setattr("zsbir_fast._progress.SECONDS_BETWEEN_LINES", 0.0)
    data = retrieval(300, 3000)
    zf.evaluate_retrieval(*data, workspace_mib=1, progress=True)
    assert "zsbir: evaluating: 1 of 4 blocks (0 s)\n" in capsys.readouterr().err
    zf.evaluate_retrieval(*data, workspace_mib=1)
    assert capsys.readouterr().err == ""


def test_finite_numbers_whose_sum_overflows_are_fine():
    scores = torch.full((4, 300), 3e38)
    scores[:, 0] = -3e38
    result = zf.evaluate_ranking(scores, [1] * 4, [1] + [0] * 299, larger_is_closer=False, ks=1)
    assert result.map == 1.0
    halves = torch.full((4, 300), 6e4, dtype=torch.float16)
    zf.evaluate_ranking(halves, [1] * 4, [1] + [0] * 299, larger_is_closer=False, ks=1)


def test_read_only_input_raises_no_warning(tmp_path, retrieval):
    q, g, *labels = retrieval(10, 40)
    np.save(tmp_path / "g.npy", g.numpy())
    mapped = np.load(tmp_path / "g.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = zf.evaluate_retrieval(q, mapped, *labels, ks=KS)
    assert torch.equal(result.columns, zf.evaluate_retrieval(q, g, *labels, ks=KS).columns)


def test_default_device_changes_nothing(retrieval):
    """As with `torch.set_default_device("cuda")` and data on the CPU."""
    q, g, *labels = retrieval()
    expected = zf.evaluate_retrieval(q, g, *labels, ks=KS)
    scores = q @ g.t()
    ranking = zf.evaluate_ranking(scores, *labels, larger_is_closer=True, ks=KS)
    arrays = [x.numpy() for x in (q, g, *labels)]
    with torch.device("meta"):
        got = zf.evaluate_retrieval(*arrays, ks=KS)
        assert got.to_dict() == expected.to_dict()
        got = zf.evaluate_ranking(scores, *labels, larger_is_closer=True, ks=KS)
        assert got.to_dict() == ranking.to_dict()
        for stream in (False, True):
            evaluator = zf.RetrievalEvaluator(ks=KS, stream=stream, protocol="sake")
            evaluator.add_gallery(arrays[1], arrays[3])
            assert evaluator.evaluate(arrays[0], arrays[2]).map > 0
