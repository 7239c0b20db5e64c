"""Token weighting: ours against the memory floor and against code that users would write.

``python -m benchmarks.bench_token_weighting --quick``   a minute, mixed lengths
``python -m benchmarks.bench_token_weighting --full --out benchmarks/results/token_weighting_cpu
--docs benchmarks/results/token_weighting_cpu.md``   every row, to the records and a page

A step is forward and backward of the scores of B pairs, with gradients to the text and to the keys
and values of both modalities. Times are milliseconds per step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import main
from benchmarks.records import PER_STEP, Result
from benchmarks.suite import STEPS_FULL, STEPS_QUICK, Prepared, Provider, Suite, one_step
from benchmarks.targets import (
    Rows,
    at_least,
    at_most,
    fastest,
    marked,
    rows_by_name,
    share_limits,
)
from benchmarks.token_cases import (
    CASES,
    PAIRWISE,
    TEXT,
    TokenData,
    exact_outputs,
    generate,
    load,
    save,
)
from benchmarks.token_rivals import attention, eager, eager_pairwise

Outputs = Tensor | tuple[Tensor, ...]
Function = Callable[..., Outputs]
BOTH = ("cpu", "cuda")

# --- steps and floors ----------------------------------------------------------------------------


def _backward(data: TokenData, outputs: Outputs) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Scores, and the gradients of the features for the data's incoming gradients."""
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    incoming = (data.incoming, *data.incoming_pooled)[: len(outputs)]
    incoming = tuple(g.to(x.dtype) for g, x in zip(incoming, outputs, strict=True))
    return outputs[0].detach(), torch.autograd.grad(outputs, data.features, incoming)


def _step(function: Function, compiled: bool = False) -> Callable[[TokenData, str], Prepared]:
    """``prepare`` of a provider: ``function`` takes mask, labels and features."""

    def prepare(data: TokenData, device: str) -> Prepared:
        placed = data.to(device)
        call = function
        if compiled:
            import_module("torch._inductor.config").compile_threads = 1  # no pool of processes
            call = torch.compile(function, dynamic=False)

        def run(n: int) -> object:
            return _backward(placed, call(placed.mask, placed.labels, *placed.features))

        if compiled:
            run(1)
        return Prepared(run, floor=_memory_floor(placed))

    return prepare


def _trimmed(core: Function, compiled: bool = False) -> Callable[[TokenData, str], Prepared]:
    """The same after cutting the padding off at the longest text of the batch."""

    def prepare(data: TokenData, device: str) -> Prepared:
        if compiled:
            import_module("torch._inductor.config").compile_threads = 1
        call = torch.compile(core, dynamic=False) if compiled else core

        def function(mask: Tensor, labels: Tensor, text: Tensor, *patches: Tensor) -> Outputs:
            longest = int(mask.sum(1)[labels].max())
            return call(mask[:, :longest], labels, text[:, :longest], *patches)

        prepared = _step(function)(data, device)
        if compiled:
            prepared.run(1)
        return prepared

    return prepare


def _moved_bytes(data: TokenData) -> int:
    """Keys and values (or tokens) read twice, their gradients written once."""
    case = data.case
    return 3 * case.B * case.N * case.D * (2 if case.mode == "pairwise" else 4) * _size(data)


def _size(data: TokenData) -> int:
    return getattr(torch, data.case.dtype).itemsize


def _memory_floor(data: TokenData) -> Callable[[int], object]:
    """One copy that moves ``_moved_bytes``: half of them read, half written."""
    device = data.labels.device
    source = torch.ones(_moved_bytes(data) // 8, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return lambda n: target.copy_(source)


def _copy(data: TokenData, device: str) -> Prepared:
    return Prepared(_memory_floor(data.to(device)))


def _flop(data: TokenData) -> float:
    """FLOP of the products that a step cannot avoid, over the valid words only."""
    case = data.case
    if case.mode == "pairwise":
        return 2.0 * case.B * case.N**2 * case.D  # backward only follows the best patch
    # Two products forward and four backward, for both modalities, 2 FLOP each.
    return 24.0 * data.valid_words() * case.N * case.D


def _products(data: TokenData, device: str) -> Prepared:
    """Those products alone, into buffers that are there, at the mean number of words."""
    case, dtype = data.case, getattr(torch, data.case.dtype)

    def ones(*shape: int) -> Tensor:
        return torch.ones(case.B, *shape, device=device, dtype=dtype)

    keys, grads = ones(case.N, case.D), ones(case.N, case.D)
    words = case.N if case.mode == "pairwise" else round(data.valid_words() / case.B)
    queries, pooled, logits = ones(words, case.D), ones(words, case.D), ones(words, case.N)

    def run(n: int) -> object:
        if case.mode == "pairwise":
            return torch.bmm(queries, keys.mT, out=logits)
        for _ in range(2):
            torch.bmm(queries, keys.mT, out=logits)  # logits, and the attention's gradient
            torch.bmm(queries, keys.mT, out=logits)
            torch.bmm(logits, keys, out=pooled)  # pooled rows, and the text's gradient
            torch.bmm(logits, keys, out=pooled)
            torch.bmm(logits.mT, queries, out=grads)  # the gradients of keys and values
            torch.bmm(logits.mT, queries, out=grads)
        return logits

    return Prepared(run)


# --- ours ----------------------------------------------------------------------------------------


def _ours(mask: Tensor, labels: Tensor, text: Tensor, *patches: Tensor) -> Outputs:
    import zsbir_fast as zf

    return zf.token_weighting(text, mask, *patches, labels)


def _ours_pooled(mask: Tensor, labels: Tensor, text: Tensor, *patches: Tensor) -> Outputs:
    import zsbir_fast as zf

    result: Any = zf.token_weighting(text, mask, *patches, labels, return_pooled=True)
    return result.scores, result.sketch_pooled, result.photo_pooled


def _ours_pairwise(mask: Tensor, labels: Tensor, sketch: Tensor, photo: Tensor) -> Outputs:
    from zsbir_fast.ops.token_weighting import pairwise_token_score

    return pairwise_token_score(sketch, photo)


# --- rows ----------------------------------------------------------------------------------------


def _row(name: str, title: str, kind: Any, prepare: Any, **options: Any) -> Provider:
    options = {"cases": TEXT, "bound": "flop", "definition": "scores"} | options
    return Provider(name, title, kind, prepare, devices=BOTH, **options)


_ON_PATCHES = {"cases": PAIRWISE, "against": "ours_pairwise"}
PROVIDERS = [
    _row(
        "copy",
        "floor: keys and values twice, gradients once (memory)",
        "floor",
        _copy,
        bound="bytes",
        cases=(),
    ),
    _row("products", "floor: the products alone", "floor", _products, cases=()),
    _row("ours", "ours: scores", "ours", _step(_ours)),
    _row(
        "ours_pooled",
        "ours: scores and pooled rows",
        "ours",
        _step(_ours_pooled),
        definition="pooled",
    ),
    _row("eager", "PyTorch", "rival", _step(eager)),
    _row("eager_trimmed", "PyTorch, trimmed", "rival", _trimmed(eager)),
    _row("sdpa", "PyTorch scaled_dot_product_attention", "rival", _step(attention)),
    _row(
        "sdpa_trimmed",
        "PyTorch scaled_dot_product_attention, trimmed",
        "rival",
        _trimmed(attention),
    ),
    _row("compiled", "torch.compile", "rival", _step(eager, compiled=True), quick=False),
    _row(
        "compiled_trimmed",
        "torch.compile, trimmed",
        "rival",
        _trimmed(eager, compiled=True),
        quick=False,
    ),
    _row(
        "ours_pairwise",
        "ours: patches against patches",
        "ours",
        _step(_ours_pairwise),
        **_ON_PATCHES,
    ),
    _row("eager_pairwise", "PyTorch", "rival", _step(eager_pairwise), **_ON_PATCHES),
    _row(
        "compiled_pairwise",
        "torch.compile",
        "rival",
        _step(eager_pairwise, compiled=True),
        quick=False,
        **_ON_PATCHES,
    ),
]


# --- checks --------------------------------------------------------------------------------------


def small_error(provider: Provider, case: Any, device: str) -> float:
    """The largest deviation of scores and gradients from float64, at a small size."""
    data = generate(case.small())
    prepared = provider.prepare(data, device)
    result = prepared.run(1)
    if provider.kind == "floor":
        return 0.0
    exact = data.to("cpu", torch.float64)
    outputs = exact_outputs(exact)
    if provider.definition == "scores":
        outputs = outputs[:1]
    scores, gradients = _backward(exact, outputs)
    pairs = zip((result[0], *result[1]), (scores, *gradients), strict=True)
    return float(max((a.cpu() - b).abs().max() for a, b in pairs))


def _warm_up(provider: Provider, data: TokenData, device: str) -> float:
    return small_error(provider, data.case, device)


def _error(provider: Provider, data: TokenData, result: Any) -> float:
    """The largest deviation of a score from float64."""
    if provider.kind == "floor":
        return 0.0
    scores, gradients = result
    # A sum is finite only if every entry is, and takes no memory that would count as the row's.
    if not all(bool(gradient.sum().isfinite()) for gradient in gradients):
        return float("nan")
    return float((scores.cpu() - data.exact).abs().max())


def _work(provider: Provider, data: TokenData, n: int) -> float:
    return n * (_moved_bytes(data) if provider.bound == "bytes" else _flop(data))


# --- targets -------------------------------------------------------------------------------------

UNTRIMMED, TRIMMED = ("eager", "compiled"), ("eager_trimmed", "compiled_trimmed")
EVERYTHING = (*UNTRIMMED, *TRIMMED, "sdpa", "sdpa_trimmed")


def _verdicts(rows: Rows, case: str) -> list[str]:
    ours, lines = rows.get((case, "ours")), []
    if ours is None:
        return lines
    targets: list[tuple[str, tuple[str, ...], float]] = []
    if ours.device == "cuda" and ours.dtype == "bfloat16":
        targets = [("best of all", EVERYTHING, 2.0)]
    elif case == "mixed":
        targets = [("best untrimmed", UNTRIMMED, 2.5), ("best trimmed", TRIMMED, 1.3)]
    elif case == "all77":
        targets = [("best of all", EVERYTHING, 1.2)]
    for what, names, limit in targets:
        if best := fastest(rows, case, names):
            what = f"{what} ({best.title}) / ours"
            lines.append(at_least(what, case, best.p50_us / ours.p50_us, limit))
    if case == "mixed" and ours.over_floor and ours.device == "cpu":
        lines.append(at_most("ours / the memory floor", case, ours.over_floor, 2.0, "x"))
    c = CASES[case]
    size = 2 if c.dtype == "bfloat16" else 4
    inputs = 4 * c.B * c.N * c.D + c.C * c.L * c.D
    bound = size * (inputs + c.B * c.N * c.D) / 2**20
    what = "peak memory of ours (all gradients and one tensor as large as an input)"
    lines.append(at_most(what, case, ours.peak_bytes / 2**20, bound, " MiB"))
    return lines


def _finish(result: Result) -> None:
    """Share of the tighter floor, and the targets for which this run has both sides."""
    rows = rows_by_name(result)
    limits: dict[str, float] = {}
    for (case, name), row in rows.items():
        if name in ("copy", "products"):
            limits[case] = max(limits.get(case, 0.0), row.p50_us)
    share_limits(result, limits)
    for case in dict.fromkeys(row.case for row in result.rows):
        result.verdicts += marked(result, case, _verdicts(rows, case))


SUITE = Suite(
    op="token_weighting",
    module="benchmarks.bench_token_weighting",
    cases=dict(CASES),
    quick_cases=("mixed",),
    providers={p.name: p for p in PROVIDERS},
    ours="ours",
    make_data=save,
    load_data=load,
    warm_up=_warm_up,
    items=one_step,
    check_items=one_step,
    error=_error,
    work=_work,
    finish=_finish,
    tolerance=lambda data: 1e-4 if data.case.dtype == "float32" else 0.05,
    layout=PER_STEP,
    quick=STEPS_QUICK,
    full=STEPS_FULL,
)

if __name__ == "__main__":
    sys.exit(main(SUITE))
