"""The batched_map operators: the CPU kernel against the reference, whatever the circumstances."""

from __future__ import annotations

import itertools

import pytest
import torch

from zsbir_fast import _C
from zsbir_fast.ops.batched_map import (
    GalleryClasses,
    batched_map,
    rank_counts,
    ranking_metrics,
    relevant_items,
)
from zsbir_fast.reference import batched_map as reference
from zsbir_fast.reference.definitions import AP_KINDS, NORMALISERS, TIES, Definition

KS = [1, 3, 10, 77, 1000]
LEVELS = ["baseline", "avx2", "avx512"]


def all_definitions():
    for ap, z, ties in itertools.product(AP_KINDS, NORMALISERS, TIES):
        if ties != "expected" or (ap == "standard" and z != "prefix_positive"):
            yield Definition(ap, z, "min_relevant_k" if ties == "index" else "k", ties)


class Case:
    """Scores of Q queries against G items of C classes, and how they are to be evaluated."""

    def __init__(
        self, generator, queries=5, gallery=300, classes=4, levels=40, dtype=torch.float32
    ):
        def labels(low, n):
            return torch.randint(low, classes, (n,), generator=generator, dtype=torch.int32)

        values = torch.randint(-levels, levels, (queries, gallery), generator=generator)
        self.scores = values.to(dtype) / 7
        self.query_class, self.gallery_class = labels(-1, queries), labels(0, gallery)
        self.gallery = GalleryClasses.of(self.gallery_class, classes)
        self.larger_is_closer = True

    def run(self, definition, ks=KS):
        return batched_map(
            self.scores,
            self.query_class,
            self.gallery,
            larger_is_closer=self.larger_is_closer,
            ks=ks,
            definition=definition,
        )

    def expected(self, definition, ks=KS):
        return reference.batched_map(
            self.scores,
            self.query_class,
            self.gallery.of_column,
            self.gallery.index,
            larger_is_closer=self.larger_is_closer,
            ks=ks,
            definition=definition,
        )

    def in_steps(self, definition, ks=KS, parts=1):
        options = {"larger_is_closer": self.larger_is_closer}
        relevant = relevant_items(self.scores, self.query_class, self.gallery, **options)
        counts = None
        for columns in torch.arange(self.scores.shape[1]).chunk(parts):
            shard = GalleryClasses(
                self.gallery.of_column[columns],
                self.gallery.offsets,
                self.gallery.columns,
                columns.int() if self.gallery.index is None else self.gallery.index[columns],
            )
            scores = self.scores[:, columns]
            counts = rank_counts(scores, self.query_class, shard, *relevant, **options, out=counts)
        return ranking_metrics(relevant[0], relevant[1], counts, ks=ks, definition=definition)


def same(a, b):
    return torch.equal(a.nan_to_num(-1), b.nan_to_num(-1))


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "definition", list(all_definitions()), ids=lambda d: "-".join(map(str, d.codes()))
)
def test_kernel_equals_reference(generator, definition, dtype):
    for levels in (3, 1000):
        case = Case(generator, levels=levels, dtype=dtype)
        close(case.run(definition), case.expected(definition))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sorted_by_class", [False, True])
def test_columns_of_nan_take_no_part(generator, dtype, sorted_by_class):
    for levels, share in ((3, 0.3), (1000, 0.3), (40, 0.97)):
        case = Case(generator, queries=4, gallery=150, levels=levels, dtype=dtype)
        if sorted_by_class:
            case.gallery = GalleryClasses.of(case.gallery_class.sort().values, 4)
        left_out = torch.rand(case.scores.shape, generator=generator) < share
        case.scores[left_out] = torch.nan
        for definition in list(all_definitions())[levels % 3 :: 3]:
            found = case.run(definition)
            close(found, case.expected(definition))
            assert same(case.in_steps(definition, parts=2), found)


@pytest.mark.parametrize("gallery", [1, 2, 15, 16, 17, 33, 511, 512, 513, 1025])
def test_every_size_at_every_simd_level(generator, monkeypatch, gallery):
    """The same bits on every path, around the edges of its blocks."""
    cases = [
        Case(generator, gallery=gallery, levels=n, dtype=d)
        for n, d in ((5, torch.float32), (10**6, torch.float32), (10**6, torch.float64))
    ]
    definition = Definition(ties="index")
    expected = [case.expected(definition) for case in cases]
    results = {}
    for level in LEVELS:
        monkeypatch.setenv("ZSBIR_SIMD", level)
        results[level] = [case.run(definition) for case in cases]
        for got, wanted in zip(results[level], expected, strict=True):
            close(got, wanted)
    for level in LEVELS[1:]:
        assert all(map(same, results[level], results["baseline"]))


def test_simd_level_switches(monkeypatch):
    monkeypatch.delenv("ZSBIR_SIMD", raising=False)
    best = LEVELS.index(_C.simd_level())
    for wanted, level in enumerate(LEVELS):
        monkeypatch.setenv("ZSBIR_SIMD", level)
        assert _C.simd_level() == LEVELS[min(wanted, best)]


@pytest.mark.parametrize("ties", TIES)
def test_threads_rows_and_layout_change_no_bit(generator, set_threads, ties):
    case = Case(generator, queries=40, gallery=700, levels=90)
    definition = Definition(ties=ties)
    set_threads(2)
    result = case.run(definition)
    set_threads(1)
    assert same(case.run(definition), result)
    scores, query_class = case.scores, case.query_class
    for chunk in (1, 7, 39):
        blocks = []
        for start in range(0, 40, chunk):
            case.scores, case.query_class = (
                x[start : start + chunk] for x in (scores, query_class)
            )
            blocks.append(case.run(definition))
        assert same(torch.cat(blocks), result)
    case.query_class = query_class
    for layout in (
        scores.t().contiguous().t(),
        torch.stack([scores, scores], dim=2)[:, :, 0],
        torch.cat([scores, scores], dim=1)[:, :700],
    ):
        case.scores = layout
        assert same(case.run(definition), result)
    order = torch.randperm(40, generator=generator)
    case.scores, case.query_class = scores[order], query_class[order]
    assert same(case.run(definition), result[order])


@pytest.mark.parametrize("ties", TIES)
def test_columns_in_any_order_with_their_index(generator, ties):
    case = Case(generator, queries=20, gallery=500, levels=30)
    definition = Definition(ties=ties)
    result = case.run(definition)
    by_class = torch.argsort(case.gallery_class, stable=True)
    for order in (torch.randperm(500, generator=generator), by_class):
        moved = Case(generator)
        moved.scores, moved.query_class = case.scores[:, order], case.query_class
        moved.gallery = GalleryClasses.of(case.gallery_class[order], 4, order.int())
        assert same(moved.run(definition), result)
        assert same(moved.in_steps(definition), result)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("parts", [1, 3, 50])
def test_shards_add_up_to_the_same_bits(generator, ties, parts):
    case = Case(generator, queries=8, gallery=300, levels=25)
    definition = Definition(ties=ties)
    assert same(case.in_steps(definition, parts=parts), case.run(definition))


def test_rank_counts_equal_the_reference(generator):
    case = Case(generator, levels=12)
    relevant = relevant_items(case.scores, case.query_class, case.gallery, larger_is_closer=True)
    arguments = (case.scores, case.query_class, case.gallery_class, None)
    expected = reference.relevant_items(*arguments, larger_is_closer=True)
    assert all(map(torch.equal, relevant, expected))
    counts = rank_counts(
        case.scores, case.query_class, case.gallery, *relevant, larger_is_closer=True
    )
    assert torch.equal(counts, reference.rank_counts(*arguments, *expected, larger_is_closer=True))


def one_class(scores, relevant, dtype=torch.float32):
    case = Case(torch.Generator())
    case.scores = torch.as_tensor(scores, dtype=dtype)
    case.query_class = torch.ones(len(case.scores), dtype=torch.int32)
    case.gallery = GalleryClasses.of(torch.as_tensor(relevant).int(), 2)
    case.larger_is_closer = False
    return case


DEGENERATE = {
    "one item, relevant": ([[0.3]], [1]),
    "one item, not relevant": ([[0.3]], [0]),
    "everything relevant": ([[3.0, 1.0, 2.0]], [1, 1, 1]),
    "everything relevant and tied": ([[1.0, 1.0, 1.0]], [1, 1, 1]),
    "all tied": ([[0.5] * 40], [0, 1, 1, 0] * 10),
    "spread beyond the range": ([[-3e38, 3e38, 0.0, 1e-45, -1e-45, 3e38]], [1, 1, 0, 0, 1, 0]),
    "largest numbers": ([[3.4e38, -3.4e38, 3.4e38, 3.3e38, 0.0]], [1, 0, 0, 1, 1]),
    "denormal spread": ([[n * 1e-45 for n in range(30)]], [1, 0, 0] * 10),
    "denormals among ones": ([[1.0, 1.0 + 2**-23, 1e-45, 0.0, -1e-45]], [1, 0, 1, 0, 1]),
    "one outlier": ([[1e30, *(n * 1e-3 for n in range(60))]], [1, *([1, 0] * 30)]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate(name, dtype, monkeypatch):
    case = one_class(*DEGENERATE[name], dtype=dtype)
    for level in LEVELS:
        monkeypatch.setenv("ZSBIR_SIMD", level)
        for ties in TIES:
            definition = Definition(ties=ties)
            close(case.run(definition), case.expected(definition))
            assert same(case.in_steps(definition), case.run(definition))


@pytest.mark.parametrize("relevant", [32_766, 32_767, 40_000])
def test_more_relevant_items_than_the_table_holds(generator, relevant):
    gallery = relevant + 5_000
    scores = torch.randn(1, gallery, generator=generator)
    case = one_class(scores, torch.randperm(gallery, generator=generator) < relevant)
    definition = Definition(ties="index")
    close(case.run(definition), case.expected(definition))


def test_no_query_no_cut_off_no_class(generator):
    case = Case(generator)
    assert case.run(Definition(), ks=[]).shape == (5, 7)
    case.scores, case.query_class = case.scores[:0], case.query_class[:0]
    assert case.run(Definition()).shape == (0, 27)
    none = GalleryClasses.of(torch.zeros(0, dtype=torch.int32), 0)
    row = batched_map(
        torch.zeros(1, 0),
        torch.tensor([-1], dtype=torch.int32),
        none,
        larger_is_closer=True,
        ks=[1],
        definition=Definition(),
    )
    assert row[0, 0] == 0
    assert bool(row[0, 1:].isnan().all())


def operator_arguments(generator):
    case = Case(generator, queries=3, gallery=20)
    g = case.gallery
    head = (case.scores, case.query_class, g.of_column, torch.arange(20).flip(0).int())
    relevant = relevant_items(case.scores, case.query_class, g, larger_is_closer=True)
    counts = torch.zeros(3, len(relevant[1]), dtype=torch.int32)
    codes = list(Definition().codes())
    return {
        "batched_map": (*head, g.offsets, g.columns, True, [1, 5], codes),
        "rank_counts": (counts, *head, *relevant, True),
        "ranking_metrics": (*relevant[:2], counts, [1, 5], codes),
    }


@pytest.mark.parametrize("op", ["batched_map", "rank_counts", "ranking_metrics"])
def test_opcheck(generator, op):
    torch.library.opcheck(getattr(torch.ops.zsbir, op).default, operator_arguments(generator)[op])


def test_compiles_without_a_break(generator):
    case = Case(generator, queries=3, gallery=50)
    definition = Definition(ties="index")

    def evaluate(scores, query_class):
        case.scores, case.query_class = scores * 2, query_class
        return case.run(definition, ks=[1, 5]).nan_to_num(0).mean(dim=0)

    arguments = (case.scores, case.query_class)
    compiled = torch.compile(evaluate, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*arguments), evaluate(*arguments))


def test_steps_compile_without_a_break(generator):
    case = Case(generator, queries=3, gallery=50)
    relevant = relevant_items(case.scores, case.query_class, case.gallery, larger_is_closer=True)

    def evaluate(scores):
        counts = rank_counts(
            scores, case.query_class, case.gallery, *relevant, larger_is_closer=True
        )
        return ranking_metrics(*relevant[:2], counts, ks=[2], definition=Definition())

    compiled = torch.compile(evaluate, fullgraph=True, backend="aot_eager")
    assert same(compiled(case.scores), evaluate(case.scores))


def spoil(arguments, position, value):
    return (*arguments[:position], value, *arguments[position + 1 :])


ERRORS = [
    (
        "batched_map",
        0,
        lambda t: t.half(),
        TypeError,
        "scores must be float32 or float64, got torch.float16",
    ),
    ("batched_map", 0, lambda t: t[0], ValueError, r"scores must be \[Q, G\], got shape \[20\]"),
    (
        "batched_map",
        1,
        lambda t: t.long(),
        TypeError,
        "query_class must be torch.int32, got torch.int64",
    ),
    ("batched_map", 1, lambda t: t[:2], ValueError, r"query_class must be \[3\], got \[2\]"),
    ("batched_map", 1, lambda t: t + 9, ValueError, r"query_class must be in \[-1, 3\], got"),
    ("batched_map", 2, lambda t: t[:7], ValueError, r"gallery_class must be \[20\], got \[7\]"),
    (
        "batched_map",
        3,
        lambda t: t.long(),
        TypeError,
        "gallery_index must be torch.int32, got torch.int64",
    ),
    ("batched_map", 4, lambda t: t + 1, ValueError, "class_offsets must ascend from 0 to 20, got"),
    (
        "batched_map",
        5,
        lambda t: t + 1,
        ValueError,
        r"class_columns must be in \[0, 19\], got 1 to 20",
    ),
    ("batched_map", 7, lambda _: [3, 0], ValueError, "every k of ks must be at least 1, got 0"),
    ("rank_counts", 0, lambda t: t[:2], ValueError, r"counts must be \[3, "),
    ("rank_counts", 0, lambda t: t.t().contiguous().t(), ValueError, "counts must be contiguous"),
    ("rank_counts", 5, lambda t: t[:-1], ValueError, "offsets must"),
    (
        "rank_counts",
        6,
        lambda t: t.double(),
        TypeError,
        "key must be torch.float32 like scores, got torch.float64",
    ),
    ("rank_counts", 7, lambda t: t[1:], ValueError, r"index must be \["),
    ("ranking_metrics", 0, lambda t: t[:0], ValueError, r"offsets must be \[Q \+ 1\], got \[0\]"),
    (
        "ranking_metrics",
        1,
        lambda t: t.int(),
        TypeError,
        "key must be float32 or float64, got torch.int32",
    ),
    (
        "ranking_metrics",
        2,
        lambda t: t.long(),
        TypeError,
        "counts must be torch.int32, got torch.int64",
    ),
    ("ranking_metrics", 3, lambda _: [-1], ValueError, "every k of ks must be at least 1, got -1"),
]


@pytest.mark.parametrize(("op", "position", "change", "error", "message"), ERRORS)
def test_operators_check_before_they_take_an_address(
    generator, op, position, change, error, message
):
    arguments = operator_arguments(generator)[op]
    spoiled = spoil(arguments, position, change(arguments[position]))
    with pytest.raises(error, match=f"{op}: {message}"):
        getattr(torch.ops.zsbir, op)(*spoiled)


def test_functions_check_what_they_are_given(generator):
    case = Case(generator)
    case.scores = case.scores[:, 1:]
    with pytest.raises(
        ValueError, match=r"batched_map: scores must be \[Q, G\] = \[5, 300\], got \[5, 299\]"
    ):
        case.run(Definition())
    case.scores = torch.zeros(5, 300, device="meta")
    with pytest.raises(
        ValueError, match="batched_map: query_class must be on meta like scores, got cpu"
    ):
        case.run(Definition())
    with pytest.raises(ValueError, match="batched_map: every k of ks must be at least 1, got 0"):
        Case(generator).run(Definition(), ks=[0])


def test_devices_without_a_kernel_say_so_once(monkeypatch, generator):
    from zsbir_fast.ops import _library

    calls = []
    fallback = _library.notice_fallback("some_op", lambda x: calls.append(x))
    there = torch.zeros(1, device="meta")
    with pytest.warns(
        RuntimeWarning, match="some_op: there are no kernels for meta devices; using the"
    ):
        fallback(there)
    fallback(there)
    monkeypatch.setenv("ZSBIR_STRICT", "1")
    with pytest.raises(RuntimeError, match=r"an error because ZSBIR_STRICT=1"):
        fallback(there)
    assert len(calls) == 2
