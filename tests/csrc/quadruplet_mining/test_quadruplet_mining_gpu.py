"""quadruplet_mining on a GPU through the operators: equal to the CPU, never waiting, in a graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import zsbir_fast as zf
from zsbir_fast.ops.quadruplet_mining.pair_distances import kernel_rows, pair_distances
from zsbir_fast.ops.quadruplet_mining.select_pairs import select_pairs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DISTANCES = ("euclidean", "squared_euclidean", "cosine")
# float32 rows of length 1 differ between devices by rounding; everything else is equal in all bits.
EXACT = [
    ("euclidean", torch.float32),
    ("euclidean", torch.float64),
    ("squared_euclidean", torch.float32),
    ("squared_euclidean", torch.float64),
    ("cosine", torch.float64),
]
MARGINS = (0.5, 0.3, 0.7, 0.4, 0.25)
COEFFICIENTS = [
    (1, 0, 0, 0, 0),
    (1, 1, 0, 0, 0),  # domain_balanced
    (1, 0, 1, 0, 0),  # cross_symmetric
    (1, 1, 1, 1, 0),  # full
    (0, 1, 1, 0, 0),
    (0, 0, 0, 0, 1),
    (1, 0, 0, 0, 1),  # chen2017
    (1, 0, 0, 1, 1),
    (1, 1, 1, 1, 1),
]


class Batch(NamedTuple):
    sketches: Tensor
    photos: Tensor
    sketch_labels: Tensor
    photo_labels: Tensor

    def to(self, device: str) -> Batch:
        return Batch(*(x.to(device) for x in self))


def batch(
    sketches: int = 130,
    photos: int = 170,
    *,
    width: int = 24,
    classes: int = 5,
    ties: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Batch:
    """On the CPU; ``ties``: features in steps of 1/2, so that many distances are equal."""
    g = torch.Generator().manual_seed(1000 * sketches + photos)
    counts = (sketches, photos)
    if ties:
        rows = [torch.randint(-1, 2, (n, width), generator=g).to(dtype) / 2 for n in counts]
    else:
        rows = [torch.randn(n, width, generator=g, dtype=dtype) for n in counts]
    labels = [torch.randint(classes, (n,), generator=g) for n in counts]
    return Batch(*rows, *labels)


@contextmanager
def never_waiting() -> Iterator[None]:
    """An error if torch makes the CPU wait for the GPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def with_gradients(loss_of: Callable[..., Tensor], *rows: Tensor) -> tuple[Tensor, ...]:
    rows = tuple(x.detach().requires_grad_() for x in rows)
    loss = loss_of(*rows)
    return loss.detach(), *torch.autograd.grad(loss.sum(), rows)


def assert_equal(found: Sequence[Tensor], expected: Sequence[Tensor], what: object = "") -> None:
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert torch.equal(a.cpu(), b.cpu()), f"{what}: {i}"


def assert_close(found: Sequence[Tensor], expected: Sequence[Tensor], what: object = "") -> None:
    tolerance = 1e-9 if expected[0].dtype == torch.float64 else 1e-4
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        b = b.cpu()
        largest = float(b.abs().max()) if b.numel() else 0.0
        torch.testing.assert_close(
            a.cpu(),
            b,
            rtol=tolerance,
            atol=tolerance * largest + 1e-12,
            msg=lambda text, i=i: f"{what}: {i}: {text}",
        )


# --- distances and choices: equal in all bits -----------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    ("sketches", "photos", "width"), [(1, 1, 1), (130, 170, 24), (65, 257, 515), (3, 0, 4)]
)
def test_distances_are_equal(
    sketches: int, photos: int, width: int, distance: Any, dtype: torch.dtype
) -> None:
    given = batch(sketches, photos, width=width, dtype=dtype)
    a, b = (kernel_rows(x, distance) for x in given[:2])
    cuda_a, cuda_b = a.cuda(), b.cuda()
    with never_waiting():
        found = pair_distances(cuda_a, cuda_b, distance), pair_distances(cuda_a, None, distance)
    assert_equal(found, (pair_distances(a, b, distance), pair_distances(a, None, distance)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("ties", [False, True])
def test_choices_and_their_distances_are_equal(
    distance: Any, dtype: torch.dtype, ties: bool
) -> None:
    given = batch(ties=ties, dtype=dtype)
    rows = Batch(*(kernel_rows(x, distance) for x in given[:2]), *given[2:])
    filters: list[dict[str, Any]] = [
        {},
        {"same_limit": 60},
        {"forbidden": (given.sketch_labels + 1) % 5},
        {"low": torch.full((130,), 0.9, dtype=dtype), "high": torch.full((130,), 6.0, dtype=dtype)},
    ]
    for options in filters:
        moved = {k: v.cuda() if isinstance(v, Tensor) else v for k, v in options.items()}
        expected = select_pairs(*rows, distance=distance, **options)
        found = select_pairs(*rows.to("cuda"), distance=distance, **moved)
        for a, b in zip(found, expected, strict=True):
            assert_equal(a, b, options)


@pytest.mark.parametrize(("distance", "dtype"), EXACT)
@pytest.mark.parametrize("ties", [False, True])
def test_mined_rows_are_equal(distance: str, dtype: torch.dtype, ties: bool) -> None:
    if ties and distance == "cosine":
        pytest.skip("rows of length 1 in other directions are as near only by rounding")
    given = batch(ties=ties, dtype=dtype)
    cuda = given.to("cuda")
    paired = torch.randint(-1, 170, (130,), generator=torch.Generator().manual_seed(0))
    for positive, negative, sketch_negative, distinct, limit in product(
        ("hardest", "easiest", "semihard", "paired"),
        ("hardest", "semihard"),
        ("anchor", "positive", "none"),
        (False, True),
        (None, 100),
    ):
        options: dict[str, Any] = {
            "positive": positive,
            "negative": negative,
            "sketch_negative": sketch_negative,
            "distance": distance,
            "margin": 0.5,
            "distinct_negatives": distinct,
            "positive_photos": limit,
        }
        moved = paired.cuda()
        with never_waiting():
            found = zf.mine_quadruplets(*cuda, **options, paired=moved)
        assert_equal(found, zf.mine_quadruplets(*given, **options, paired=paired), options)


def test_distance_weighted_negatives_are_equal() -> None:
    given = batch(dtype=torch.float64)
    uniforms = torch.rand(130, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    options: dict[str, Any] = {"negative": "distance_weighted", "distance": "cosine"}
    cuda, moved = given.to("cuda"), uniforms.cuda()
    with never_waiting():
        found = zf.mine_quadruplets(*cuda, **options, uniforms=moved)
    assert_equal(found, zf.mine_quadruplets(*given, **options, uniforms=uniforms))


@pytest.mark.parametrize("ties", [False, True])
def test_a_bank_of_many_rows(ties: bool) -> None:
    given = batch(70, 65_536, width=16, classes=40, ties=ties)
    bank = batch(1, 65_535, width=16, classes=40, ties=ties)
    options: dict[str, Any] = {"negative": "semihard", "distinct_negatives": True}
    expected = zf.mine_quadruplets(
        *given,
        sketch_references=bank.photos,
        sketch_reference_labels=bank.photo_labels,
        positive_photos=300,
        **options,
    )
    found = zf.mine_quadruplets(
        *given.to("cuda"),
        sketch_references=bank.photos.cuda(),
        sketch_reference_labels=bank.photo_labels.cuda(),
        positive_photos=300,
        **options,
    )
    assert_equal(found, expected)


def test_a_paired_row_that_does_not_exist_counts_as_none() -> None:
    given = batch(4, 6, classes=1).to("cuda")
    paired = torch.tensor([0, 6, -2, 5], device="cuda")
    for impl in ("fused", "reference"):
        mined = zf.mine_quadruplets(*given, positive="paired", paired=paired, impl=impl)
        assert mined.positive.tolist() == [0, -1, -1, 5]


# --- losses and gradients -------------------------------------------------------------------------


@pytest.mark.parametrize(("distance", "dtype"), [*EXACT, ("cosine", torch.float32)])
@pytest.mark.parametrize("preset", ["triplet", "domain_balanced", "full", "chen2017", "ramln"])
def test_losses_of_mined_quadruplets(preset: str, distance: str, dtype: torch.dtype) -> None:
    given = batch(dtype=dtype)
    cuda = given.to("cuda")
    mined = zf.mine_quadruplets(*given, distance=distance)
    mined_cuda = zf.Quadruplets(*(x.cuda() for x in mined))
    weights = torch.linspace(-0.5, 1.5, 130, dtype=dtype)
    for reduction in ("mean", "mean_nonzero", "sum", "none"):
        options: dict[str, Any] = {"preset": preset, "distance": distance, "reduction": reduction}

        def loss(
            s: Tensor, p: Tensor, w: Tensor, mined: Any, options: Any = options
        ) -> Tensor:  # bound now, not at the end of the loop
            return zf.quadruplet_loss(s, p, mined, weights=w, margins=0.5, **options)

        moved = weights.cuda()
        with never_waiting():
            found = with_gradients(
                lambda s, p, w, loss=loss: loss(s, p, w, mined_cuda), *cuda[:2], moved
            )
        expected = with_gradients(
            lambda s, p, w, loss=loss: loss(s, p, w, mined), *given[:2], weights
        )
        assert_close(found, expected, options)


@pytest.mark.parametrize(("distance", "dtype"), EXACT)
@pytest.mark.parametrize("ties", [False, True])
def test_all_triplets(distance: str, dtype: torch.dtype, ties: bool) -> None:
    if ties and distance == "cosine":
        pytest.skip("rows of length 1 in other directions are as near only by rounding")
    given = batch(ties=ties, dtype=dtype)
    cuda = given.to("cuda")
    for reduction, itself in product(("mean", "mean_nonzero", "sum", "none"), (False, True)):

        def loss_of(
            b: Batch, itself: bool = itself, reduction: Any = reduction
        ) -> Callable[..., Tensor]:
            options: dict[str, Any] = {"margin": 0.3, "distance": distance, "reduction": reduction}
            if itself:
                return lambda s: zf.batch_all_triplet_loss(s, b.sketch_labels, **options)
            return lambda s, p: zf.batch_all_triplet_loss(
                s, b.sketch_labels, p, b.photo_labels, **options
            )

        used = 1 if itself else 2
        with never_waiting():
            found = with_gradients(loss_of(cuda), *cuda[:used])
        assert_close(found, with_gradients(loss_of(given), *given[:used]), (reduction, itself))


def quadruplet_loss_of(b: Batch, **options: Any) -> Callable[..., Tensor]:
    return lambda s, p: zf.batch_all_quadruplet_loss(
        s, p, b.sketch_labels, b.photo_labels, **options
    )


@pytest.mark.parametrize(("distance", "dtype"), EXACT)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("coefficients", COEFFICIENTS)
def test_all_quadruplets(
    coefficients: tuple[int, ...], distance: str, dtype: torch.dtype, ties: bool
) -> None:
    if ties and distance == "cosine":
        pytest.skip("rows of length 1 in other directions are as near only by rounding")
    given = batch(61, 75, ties=ties, dtype=dtype)
    cuda = given.to("cuda")
    no_closed_form = coefficients[4] and (coefficients[1] or coefficients[2])
    for reduction in ("mean", "sum") if no_closed_form else ("mean", "mean_nonzero"):
        options: dict[str, Any] = {
            "coefficients": coefficients,
            "margins": MARGINS,
            "distance": distance,
            "reduction": reduction,
        }
        with never_waiting():
            found = with_gradients(quadruplet_loss_of(cuda, **options), *cuda[:2])
        expected = with_gradients(quadruplet_loss_of(given, **options), *given[:2])
        assert_close(found, expected, reduction)


@pytest.mark.parametrize(
    ("sketches", "photos", "classes"),
    [(1, 1, 1), (1, 1, 2), (1, 40, 3), (40, 1, 3), (5, 0, 2), (0, 5, 2), (0, 0, 1), (9, 9, 1)],
)
def test_few_or_no_rows(sketches: int, photos: int, classes: int) -> None:
    given = batch(sketches, photos, classes=classes)
    cuda = given.to("cuda")
    mined, found = zf.mine_quadruplets(*given), zf.mine_quadruplets(*cuda)
    assert_equal(found, mined)
    assert_close(
        with_gradients(lambda s, p: zf.quadruplet_loss(s, p, found), *cuda[:2]),
        with_gradients(lambda s, p: zf.quadruplet_loss(s, p, mined), *given[:2]),
    )
    for preset in ("full", "chen2017"):
        assert_close(
            with_gradients(quadruplet_loss_of(cuda, preset=preset), *cuda[:2]),
            with_gradients(quadruplet_loss_of(given, preset=preset), *given[:2]),
            preset,
        )
    assert_close(
        with_gradients(lambda s: zf.batch_all_triplet_loss(s, cuda.sketch_labels), cuda.sketches),
        with_gradients(lambda s: zf.batch_all_triplet_loss(s, given.sketch_labels), given.sketches),
    )


@pytest.mark.parametrize("ties", [False, True])
def test_more_thresholds_of_a_row_than_fit_at_a_time(ties: bool) -> None:
    given = batch(40, 1540, ties=ties)
    given.sketch_labels[:] = torch.arange(40) % 2
    given.photo_labels[:] = (torch.arange(1540) >= 1500).long()  # 1,500 thresholds, then 40
    cuda = given.to("cuda")
    for preset, reduction in product(("full", "chen2017"), ("mean", "mean_nonzero")):
        options: dict[str, Any] = {"preset": preset, "reduction": reduction}
        found = with_gradients(quadruplet_loss_of(cuda, **options), *cuda[:2])
        expected = with_gradients(quadruplet_loss_of(given, **options), *given[:2])
        assert_close(found, expected, options)
    found = with_gradients(lambda p: zf.batch_all_triplet_loss(p, cuda.photo_labels), cuda.photos)
    expected = with_gradients(
        lambda p: zf.batch_all_triplet_loss(p, given.photo_labels), given.photos
    )
    assert_close(found, expected)


# --- runs, streams, graphs, devices ---------------------------------------------------------------


def all_losses(b: Batch) -> dict[str, Callable[..., Tensor]]:
    """Losses of sketches and photos, the mining included."""

    def mined(s: Tensor, p: Tensor) -> Tensor:
        quadruplets = zf.mine_quadruplets(
            s, p, b.sketch_labels, b.photo_labels, positive="semihard", negative="semihard"
        )
        return zf.quadruplet_loss(s, p, quadruplets, preset="full")

    return {
        "mined": mined,
        "triplets": lambda s, p: zf.batch_all_triplet_loss(
            s, b.sketch_labels, p, b.photo_labels, margin=0.5
        ),
        "full": quadruplet_loss_of(b, preset="full"),
        "chen2017": quadruplet_loss_of(b, preset="chen2017"),
        "chen2017, all": quadruplet_loss_of(b, preset="chen2017", reduction="mean"),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_runs_are_equal(dtype: torch.dtype) -> None:
    given = batch(700, 650, width=96, classes=30, dtype=dtype).to("cuda")
    for name, loss_of in all_losses(given).items():
        first = with_gradients(loss_of, *given[:2])
        for _ in range(3):
            assert_equal(with_gradients(loss_of, *given[:2]), first, name)


def test_work_is_queued_on_the_current_stream() -> None:
    given = batch().to("cuda")
    static = [torch.zeros_like(x) for x in given[:2]]
    losses = all_losses(given)
    expected = {name: with_gradients(loss_of, *given[:2]) for name, loss_of in losses.items()}
    side = torch.cuda.Stream()
    for name, loss_of in losses.items():
        for x in static:
            x.zero_()
        torch.cuda.synchronize()
        with torch.cuda.stream(side):
            torch.cuda._sleep(50_000_000)  # cycles; what does not wait for it sees zeros
            for x, value in zip(static, given[:2], strict=True):
                x.copy_(value)
            found = with_gradients(loss_of, *static)
        side.synchronize()
        assert_close(found, expected[name], name)


@pytest.mark.parametrize("name", ["mined", "triplets", "full", "chen2017", "chen2017, all"])
def test_a_cuda_graph_of_loss_and_gradients(name: str) -> None:
    given, other = batch().to("cuda"), batch(130, 170, ties=True).to("cuda")
    static = [x.clone() for x in other[:2]]
    loss_of = all_losses(given)[name]
    expected = with_gradients(loss_of, *given[:2])
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            with_gradients(loss_of, *static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # fails if anything is queued on another stream, or waits
        found = with_gradients(loss_of, *static)
    for _ in range(2):
        for x, value in zip(static, given[:2], strict=True):
            x.copy_(value)
        graph.replay()
        assert_close(found, expected, name)


@pytest.mark.filterwarnings("default")  # what the compiler says of itself
@pytest.mark.parametrize(
    ("name", "backend"),
    [("mined", "inductor"), ("triplets", "aot_eager"), ("full", "aot_eager")],
)
def test_compiled_without_graph_breaks(name: str, backend: str) -> None:
    given = batch().to("cuda")
    loss_of = all_losses(given)[name]
    compiled = torch.compile(loss_of, fullgraph=True, backend=backend)
    assert_close(with_gradients(compiled, *given[:2]), with_gradients(loss_of, *given[:2]))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_another_device_than_the_current_one() -> None:
    given = batch()
    second = given.to("cuda:1")
    assert torch.cuda.current_device() == 0
    expected = all_losses(given)
    for name, loss_of in all_losses(second).items():
        found = with_gradients(loss_of, *second[:2])
        assert all(x.device == torch.device("cuda:1") for x in found)
        assert_close(found, with_gradients(expected[name], *given[:2]), name)
    assert_equal(zf.mine_quadruplets(*second), zf.mine_quadruplets(*given))
