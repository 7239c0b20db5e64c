"""No value that is not finite gives a finite loss: it is an error, or NaN where it is unseen."""

from __future__ import annotations

import re

import pytest
import torch

import zsbir_fast as zf
from zsbir_fast.losses.alignment import alignment_loss, supervised_contrastive_loss
from zsbir_fast.losses.classification import CosineClassifier
from zsbir_fast.methods.regularisers import DomainMeans
from zsbir_fast.ops._checks import unit_length
from zsbir_fast.ops.quadruplet_mining.quadruplet_hinges import quadruplet_hinges
from zsbir_fast.reference import quadruplet_mining as reference

INF, NAN = float("inf"), float("nan")
LABELS = torch.arange(12) // 3
IMPLS = ["fused", "reference"]
NEGATIVES = ["hardest", "semihard", "distance_weighted", "all"]


def batch(value=None, row=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sketches = torch.randn(12, 5, generator=generator)
    photos = torch.randn(12, 5, generator=generator)
    if value is not None:
        sketches[row, 2] = value
    return sketches.requires_grad_(), photos.requires_grad_()


def loss_of(sketches, photos, **options):
    torch.manual_seed(0)
    return zf.WeightedQuadrupletLoss(preset="full", **options)(sketches, photos, LABELS)


@pytest.fixture
def values_are_unseen(monkeypatch):
    """As on CUDA and in compiled code, where a look at values would wait or break the graph."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)


CALLS = {
    "WeightedQuadrupletLoss": lambda s, p: loss_of(s, p),
    "mine_quadruplets": lambda s, p: zf.mine_quadruplets(s, p, LABELS, LABELS),
    "batch_all_triplet_loss": lambda s, p: zf.batch_all_triplet_loss(s, LABELS, p, LABELS),
    "batch_all_quadruplet_loss": lambda s, p: zf.batch_all_quadruplet_loss(s, p, LABELS, LABELS),
    "BatchAllTripletLoss": lambda s, p: zf.BatchAllTripletLoss()(s, LABELS, None, p, LABELS),
    "HardTripletMiner": lambda s, p: zf.HardTripletMiner()(s, LABELS, p, LABELS),
    "alignment_loss": lambda s, p: alignment_loss(s, p, LABELS),
    "supervised_contrastive_loss": lambda s, _: supervised_contrastive_loss(s, LABELS),
    "CosineClassifier": lambda s, _: CosineClassifier(width=5, classes=4)(s, LABELS),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("value", "named"), [(INF, "inf"), (-INF, "-inf"), (NAN, "nan")])
def test_an_error_names_the_row_and_what_is_there(name, value, named):
    with pytest.raises(ValueError, match=rf"{name}: \w+ must be finite, got {named} in row 4"):
        CALLS[name](*batch(value))


HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64])
@pytest.mark.parametrize("looked_at", [True, False])
def test_rows_of_any_length_are_normalised(dtype, looked_at, monkeypatch):
    """Zeros became NaN in float16, tiny rows shorter than 1, and huge ones an error."""
    if not looked_at:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    rows = torch.tensor([[0.0, 0], [3, -4], [3, -4], [3, -4]], dtype=dtype)
    huge, tiny = 2.0**13, 2.0**-23
    if dtype != torch.float16:
        huge, tiny = 2.0**124, 2.0**-96
    rows = rows * torch.tensor([[1.0], [1], [huge], [tiny]], dtype=dtype)
    rows.requires_grad_()
    unit = unit_length("f", "rows", rows)
    ordinary = torch.nn.functional.normalize(rows[1:2], dim=1)
    assert torch.equal(unit, torch.cat([0 * ordinary, *[ordinary] * 3]))
    unit[:, 0].sum().backward()
    assert torch.equal(rows.grad[0], torch.zeros(2, dtype=dtype))
    want = torch.tensor([16 / 125, 12 / 125]).double()
    assert torch.allclose(rows.grad[1].double(), want, rtol=2e-2)
    assert torch.allclose(rows.grad[2].double() * huge, want, rtol=0.3 if huge < 1e5 else 2e-2)


def in_float32(rows):
    return torch.nn.functional.normalize(rows.float(), dim=1).to(rows.dtype)


def test_parts_of_a_gradient_that_cancel_do_not_overflow():
    """Rows of one feature have no gradient, however short they are in float16."""
    generator = torch.Generator().manual_seed(0)
    sketches = torch.randn(32, 1, generator=generator).half()
    labels = torch.arange(32) % 3, torch.arange(9) % 3
    loss = zf.WeightedQuadrupletLoss(
        negative="all", preset="triplet", distance="squared_euclidean", reduction="sum"
    )
    for scale in (1e-3, 1e-5, 1e-7):
        photos = (scale * torch.randn(9, 1, generator=generator)).half().requires_grad_()
        loss(sketches, photos, labels).backward()
        assert photos.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_ordinary_rows_beside_others_keep_their_bits(dtype):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(30, 33, generator=generator).to(dtype)
    beside = torch.cat([rows, torch.zeros(1, 33, dtype=dtype)])
    found = []
    for function, x in (
        (in_float32, rows.clone().requires_grad_()),
        (lambda x: unit_length("f", "rows", x), rows.clone().requires_grad_()),
        (lambda x: unit_length("f", "rows", x), beside.requires_grad_()),
    ):
        unit = function(x)[:30]
        (unit * rows.flip(0)).sum().backward()
        found.append((unit, x.grad[:30]))
    for unit, grad in found[1:]:
        assert torch.equal(unit, found[0][0])
        assert torch.equal(grad, found[0][1])


def test_a_miner_takes_zeros_of_float16():
    labels = torch.tensor([0, 0, 1])
    mined = zf.HardTripletMiner()(torch.zeros(3, 3, dtype=torch.float16), labels)
    assert [x.tolist() for x in mined] == [[0, 1], [1, 0], [2, 2]]


@pytest.mark.parametrize("negative", NEGATIVES)
def test_a_huge_row_counts_as_its_direction(negative):
    huge, photos = batch(1e20)
    ordinary = huge.detach() / torch.tensor([2.0**60 if i == 4 else 1 for i in range(12)])[:, None]
    assert torch.equal(
        loss_of(huge, photos, negative=negative), loss_of(ordinary, photos, negative=negative)
    )


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("negative", NEGATIVES)
@pytest.mark.parametrize(
    ("value", "normalize"), [(INF, True), (INF, False), (NAN, True), (NAN, False), (1e20, False)]
)
def test_where_values_are_unseen_loss_and_gradients_are_nan(
    values_are_unseen, impl, negative, value, normalize
):
    sketches, photos = batch(value)
    loss = loss_of(sketches, photos, impl=impl, negative=negative, normalize=normalize)
    assert loss.isnan()
    loss.backward()
    assert not all(x.grad.isfinite().all() for x in (sketches, photos))


@pytest.mark.parametrize("impl", IMPLS)
def test_a_row_that_was_not_chosen_is_seen(values_are_unseen, impl):
    """The photo in no quadruplet, and no hinge above 0: its NaN reaches loss and gradients."""
    sketches, photos = torch.zeros(2, 3), torch.tensor([[0.0, 0, 0], [9, 0, 0], [INF, 0, 0]])
    sketches.requires_grad_()
    mined = zf.Quadruplets(*torch.tensor([[0, 0], [1, 1], [1, 0]]), torch.tensor([True, True]))
    loss = zf.quadruplet_loss(sketches, photos, mined, preset="triplet", impl=impl)
    loss.backward()
    assert loss.isnan()
    assert sketches.grad.isnan().any()


@pytest.mark.parametrize(
    "name", ["alignment_loss", "supervised_contrastive_loss", "CosineClassifie"]
)
@pytest.mark.parametrize("value", [INF, NAN])
def test_contrastive_losses_are_nan_where_values_are_unseen(values_are_unseen, name, value):
    call = next(f for key, f in CALLS.items() if key.startswith(name))
    sketches, photos = batch(value)
    loss = call(sketches, photos)
    loss.backward()
    assert loss.isnan()
    assert sketches.grad.isnan().any()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("negative", NEGATIVES)
@pytest.mark.parametrize("distance", ["euclidean", "squared_euclidean"])
@pytest.mark.parametrize("value", [1e20, 3e38])
def test_distances_that_overflow_make_the_loss_nan(impl, negative, distance, value):
    """It was 3.786 with finite gradients by the kernels, and NaN by the reference."""
    sketches, photos = batch(value)
    options = {"impl": impl, "negative": negative, "distance": distance, "normalize": False}
    loss = loss_of(sketches, photos, **options)
    loss.backward()
    assert loss.isnan()
    assert sketches.grad.isnan().any()


@pytest.mark.parametrize("negative", NEGATIVES)
def test_cosines_of_huge_rows_are_those_of_any_other(negative):
    huge, photos = batch(1e20)
    small = huge.detach() / 2.0**60
    got = [
        loss_of(x, photos, impl=impl, negative=negative, distance="cosine", normalize=False)
        for x in (huge, small)
        for impl in IMPLS
    ]
    torch.testing.assert_close(torch.stack(got), got[0].detach().expand(4))


@pytest.mark.parametrize("distance", ["euclidean", "squared_euclidean", "cosine"])
@pytest.mark.parametrize("preset", ["triplet", "full", "chen2017", "ramln"])
def test_hinges_of_nan_stay_nan(distance, preset):
    """Through the operator, which looks at nothing, kernel and reference alike."""
    sketches, photos = (x.detach() for x in batch())
    sketches[4], photos[7] = NAN, INF
    mined = zf.mine_quadruplets(*batch(), LABELS, LABELS)
    name = "triplet" if preset == "ramln" else preset
    options = {
        "coefficients": tuple(map(float, reference.PRESETS[name])),
        "margins": reference.MARGINS,
        "cross_modal_share": 0.5 if preset == "ramln" else None,
        "distance": distance,
    }
    fused = quadruplet_hinges(sketches, photos, sketches, mined, **options)
    plain = reference.quadruplet_hinges(sketches, photos, sketches, mined, **options)
    assert fused[4].isnan()
    assert torch.equal(fused.isnan(), plain.isnan())


def test_h5_with_many_overflowing_distances_does_not_crash():
    generator = torch.Generator().manual_seed(1)
    sketches, photos = torch.randn(60, 3, generator=generator), torch.zeros(60, 3)
    sketches[::2] *= 1e30
    labels = torch.arange(60) % 3
    for reduction in ("mean_nonzero", "sum"):
        loss = zf.batch_all_quadruplet_loss(
            sketches, photos, labels, labels, preset="chen2017", reduction=reduction
        )
        assert loss.isnan()


def test_sorting_many_thresholds_with_nan_among_them():
    distances = torch.rand(2, 600, generator=torch.Generator().manual_seed(0))
    distances[:, ::7] = NAN
    labels = torch.zeros(600, dtype=torch.int64)
    labels[500:] = 1
    row = torch.zeros(2, dtype=torch.int64)
    sums, *_ = torch.ops.zsbir.hinge_rows(
        distances, None, row, labels, labels, None, None, 0.1, False
    )
    assert sums.isnan().all()


@pytest.mark.parametrize("value", [NAN, 5.0, 1.0, -0.25, INF])
def test_uniforms_out_of_range_are_an_error(value):
    uniforms = torch.full((12,), 0.5)
    uniforms[3] = value
    options = {"negative": "distance_weighted", "uniforms": uniforms}
    with pytest.raises(
        ValueError, match=re.escape(f"uniforms must be in [0, 1), got {value} in row 3")
    ):
        zf.mine_quadruplets(*batch(), LABELS, LABELS, **options)


@pytest.mark.parametrize("value", [NAN, 5.0, 1.0, -0.25, 1 - 2**-53])
def test_no_uniform_drops_an_anchor(values_are_unseen, value):
    uniforms = torch.full((12,), value, dtype=torch.float64)
    mined = zf.mine_quadruplets(
        *batch(), LABELS, LABELS, negative="distance_weighted", uniforms=uniforms
    )
    assert mined.valid.all()
    assert (LABELS[mined.photo_negative] != LABELS).all()


@pytest.mark.parametrize("value", [1e-320, 1e-40, INF])
def test_temperatures_out_of_range_are_an_error(value):
    sketches, photos = batch()
    scores, tokens = torch.rand(4), torch.rand(4, 2, 3)
    mask, index = torch.ones(4, 2, dtype=torch.bool), torch.arange(4)
    for name, call in {
        "alignment_loss": lambda: alignment_loss(sketches, photos, LABELS, temperature=value),
        "supervised_contrastive_loss": lambda: supervised_contrastive_loss(
            sketches, LABELS, temperature=value
        ),
        "CosineClassifier": lambda: CosineClassifier(width=5, classes=4, temperature=value),
        "alignment_weights": lambda: zf.alignment_weights(scores, scores, temperature=value),
        "token_weighting": lambda: zf.token_weighting(
            tokens, mask, *(tokens,) * 4, index, temperature=value
        ),
    }.items():
        message = f"{name}: temperature must be finite and at least 1e-30, got {value}"
        with pytest.raises(ValueError, match=re.escape(message)):
            call()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_smallest_temperature_gives_finite_losses_and_gradients(dtype):
    sketches, photos = (x.detach().to(dtype).requires_grad_() for x in batch())
    for loss in (
        alignment_loss(sketches, photos, LABELS, temperature=1e-30),
        supervised_contrastive_loss(sketches, LABELS, temperature=1e-30),
        CosineClassifier(width=5, classes=4, temperature=1e-30)(sketches, LABELS),
    ):
        assert loss.isfinite()
        assert loss.dtype == torch.float32


@pytest.mark.parametrize("form", ["softmax", "mean", "sigmoid"])
def test_scores_of_nan_are_no_weights_of_one(values_are_unseen, form):
    scores = torch.tensor([0.5, NAN, 0.25])
    assert zf.alignment_weights(scores, scores, form=form).isnan().all()


@pytest.mark.parametrize("all_pairs", [False, True])
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("value", [NAN, INF])
def test_patches_of_nan_are_no_bad_match(all_pairs, impl, value):
    """A maximum that passes over NaN would score the pair by its other patches."""
    generator = torch.Generator().manual_seed(0)
    sketch, photo = torch.randn(3, 30, 9, generator=generator), torch.rand(3, 40, 9)
    photo[1, 7], sketch[2, 5] = 0, 0
    photo[1, 7, 3] = value  # beside zeros, which would make it a row of zeros
    sketch[2, 5, 3] = value
    scores = zf.pairwise_token_score(sketch, photo, all_pairs=all_pairs, impl=impl)
    bad = torch.tensor([False, True, True])
    if all_pairs:
        bad = torch.tensor([[False, True, False], [False, True, False], [True, True, True]])
    assert torch.equal(scores.isnan(), bad)


@pytest.mark.parametrize("impl", IMPLS)
def test_pooled_rows_of_nan_are_no_rows_of_zeros(impl):
    tokens = torch.rand(2, 3, 20, generator=torch.Generator().manual_seed(0))
    values = torch.zeros(2, 3, 20)
    values[1, 2, 17] = NAN
    mask = torch.ones(2, 3, dtype=torch.bool)
    given = (tokens, mask, tokens, values, tokens, tokens, torch.arange(2))
    assert zf.token_weighting(*given, impl=impl).isnan().tolist() == [False, True]


def test_a_memory_forgets_what_is_not_finite(values_are_unseen):
    memory = zf.CrossBatchMemory(zf.WeightedQuadrupletLoss(), size=20, width=5)
    assert memory(*batch(NAN), LABELS).isnan()
    assert len(memory.sketches) == 12
    assert memory.sketches.features.isfinite().all()
    assert set(memory.sketches.labels.tolist()) == {0, 1, 2, 3}
    assert memory(*batch(seed=1), LABELS).isfinite()


def test_domain_means_leave_out_what_is_not_finite():
    means, other = DomainMeans(5), DomainMeans(5)
    first, second = ([x.detach() for x in batch(seed=seed)] for seed in (0, 1))
    bad = [x.detach() for x in batch(INF)]
    for pair in (bad, first, bad, second):
        means.update(*pair)
    for pair in (first, second):
        other.update(*pair)
    assert int(means.updates) == 2
    assert torch.equal(means.sketch, other.sketch)
    assert torch.equal(means.photo, other.photo)
    assert means.sketch.abs().max() > 0


def test_compiled_losses_are_nan():
    loss = zf.WeightedQuadrupletLoss(gather="off", normalize=False)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    right, wrong = batch(), batch(INF, row=11)
    torch.testing.assert_close(compiled(*right, LABELS), loss(*right, LABELS))
    assert compiled(*wrong, LABELS).isnan()
