"""Mining and triplet or quadruplet losses: ours against bare distances and users' usual choices.

``python -m benchmarks.bench_quadruplet_mining --quick``   a minute, the main rivals at B = 1,024
``python -m benchmarks.bench_quadruplet_mining --full --out benchmarks/results/quadruplet_mining_cpu
--docs benchmarks/results/quadruplet_mining_cpu.md``   every row, to the records and a page

A step is forward and backward of one loss, from raw float32 features to their gradients. The floor
is the forward and backward pass of the distances alone. Times are milliseconds per step.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import mining_steps as steps
from benchmarks.harness import main
from benchmarks.mining_cases import (
    BATCHES,
    CASES,
    DEFINITIONS,
    SMALL,
    TRIPLET_MARGIN,
    MiningData,
    generate,
    load,
    save,
)
from benchmarks.mining_steps import ALL, BANK, BOTH, HARD, QUADRUPLET, FloorKind, Loss, leaves_of
from benchmarks.records import PER_STEP, Result
from benchmarks.suite import STEPS_FULL, STEPS_QUICK, Provider, Suite, one_step
from benchmarks.targets import (
    Rows,
    at_least,
    at_most,
    fastest,
    marked,
    rows_by_name,
    share_limits,
)

# --- ours ----------------------------------------------------------------------------------------


def _all_triplets(data: MiningData) -> Loss:
    import zsbir_fast as zf

    def loss(features: Tensor) -> Tensor:
        x = F.normalize(features, dim=1)
        return zf.batch_all_triplet_loss(x, data.labels, margin=TRIPLET_MARGIN)

    return loss, (leaves_of(data.sketches),)


def _all_quadruplets(preset: Any, reduction: Any) -> steps.Maker:
    def maker(data: MiningData) -> Loss:
        import zsbir_fast as zf

        def loss(sketches: Tensor, photos: Tensor) -> Tensor:
            s, i = F.normalize(sketches, dim=1), F.normalize(photos, dim=1)
            return zf.batch_all_quadruplet_loss(
                s, i, data.labels, data.labels, preset=preset, reduction=reduction
            )

        return loss, (leaves_of(data.sketches), leaves_of(data.photos))

    return maker


def _mined_triplets(references: Tensor | None, labels: Tensor, impl: Any, data: MiningData) -> Loss:
    """Batch-hard triplets by mining and loss; ``references`` None: the features themselves."""
    import zsbir_fast as zf

    def loss(features: Tensor) -> Tensor:
        x = F.normalize(features, dim=1)
        others = x if references is None else references
        with torch.no_grad():
            mined = zf.mine_quadruplets(
                x, others, data.labels, labels, sketch_negative="none", impl=impl
            )
        return zf.quadruplet_loss(
            x,
            others,
            mined,
            preset="triplet",
            margins=TRIPLET_MARGIN,
            reduction="mean_nonzero",
            impl=impl,
        )

    return loss, (leaves_of(data.sketches),)


def _hard_triplets(data: MiningData) -> Loss:
    return _mined_triplets(None, data.labels, "fused", data)


def _hard_triplets_reference(data: MiningData) -> Loss:
    return _mined_triplets(None, data.labels, "reference", data)


def _hard_bank(data: MiningData) -> Loss:
    return _mined_triplets(data.bank, data.bank_labels, "fused", data)


def _hard_quadruplets(data: MiningData) -> Loss:
    import zsbir_fast as zf

    criterion = zf.WeightedQuadrupletLoss(negative="hardest", preset="domain_balanced")

    def loss(sketches: Tensor, photos: Tensor) -> Tensor:
        value: Tensor = criterion(sketches, photos, data.labels)
        return value

    return loss, (leaves_of(data.sketches), leaves_of(data.photos))


def _ours(
    name: str, title: str, maker: steps.Maker, *, floor: FloorKind = "distances", **options: Any
) -> Provider:
    prepare = steps.step(maker, floor)
    return Provider(name, f"ours: {title}", "ours", prepare, devices=BOTH, **options)


MAKERS = {
    "ours_all_triplet": _all_triplets,
    "ours_hard_triplet": _hard_triplets,
    "ours_hard_quadruplet": _hard_quadruplets,
    "ours_all_quadruplet": _all_quadruplets("domain_balanced", "mean_nonzero"),
    "ours_chen_mean": _all_quadruplets("chen2017", "mean"),
    "ours_chen": _all_quadruplets("chen2017", "mean_nonzero"),
    "ours_bank": _hard_bank,
    "reference_hard": _hard_triplets_reference,
    **steps.MAKERS,
}
CHEN = "all quadruplets, chen2017"
OURS = [
    _ours("ours_all_triplet", "batch-all triplets", _all_triplets, **ALL),
    _ours("ours_hard_triplet", "batch-hard triplets", _hard_triplets, **HARD),
    _ours("ours_hard_quadruplet", "batch-hard quadruplets", _hard_quadruplets, **QUADRUPLET),
    _ours(
        "ours_all_quadruplet",
        "batch-all quadruplets, domain_balanced",
        MAKERS["ours_all_quadruplet"],
        **ALL | {"definition": "all quadruplets"},
    ),
    _ours(
        "ours_chen_mean",
        "batch-all quadruplets, chen2017, mean",
        MAKERS["ours_chen_mean"],
        **ALL | {"definition": f"{CHEN}, mean"},
    ),
    _ours(
        "ours_chen",
        "batch-all quadruplets, chen2017, mean_nonzero",
        MAKERS["ours_chen"],
        **ALL | {"definition": CHEN},
    ),
    _ours("ours_bank", "batch-hard triplets, bank", _hard_bank, **BANK),
]
REFERENCE = [
    Provider(
        f"reference_hard{suffix}",
        f"our PyTorch reference, batch-hard triplets{title}",
        "rival",
        steps.step(_hard_triplets_reference, "distances", compiled=bool(suffix)),
        devices=BOTH,
        quick=False,
        unfit=steps.at_most(1024, "it sums every distance directly, seconds at B=4,096"),
        **HARD,
    )
    for suffix, title in (("", ""), ("_compiled", ", torch.compile"))
]
FLOORS = [
    steps.floor_provider("floor", "floor: normalise + distances", "distances", BATCHES),
    steps.floor_provider(
        "floor_two", "floor: the same, cross-modal and among sketches", "two distances", BATCHES
    ),
    steps.floor_provider(
        "floor_bank", "floor: normalise + distances to the bank", "bank distances", ("bank",)
    ),
]


# --- checks --------------------------------------------------------------------------------------


def small_error(provider: Provider, device: str) -> float:
    """The largest deviation of value and gradient from float64 brute force, at the small size."""
    data = generate(SMALL)
    value, gradients = provider.prepare(data, device).run(1)
    exact = data.to("cpu", torch.float64)
    features = [exact.sketches.requires_grad_(), exact.photos.requires_grad_()]
    expected = DEFINITIONS[provider.definition](exact)
    wanted = torch.autograd.grad(expected, features[: len(gradients)])
    errors = [(a.cpu() - b).abs().max() for a, b in zip(gradients, wanted, strict=True)]
    if value is not None:  # a floor has none
        errors.append((value.cpu() - expected.detach()).abs())
    return float(torch.stack(errors).max())


def _warm_up(provider: Provider, data: MiningData, device: str) -> float:
    return small_error(provider, device)


def _error(provider: Provider, data: MiningData, result: Any) -> float:
    """Relative deviation of the value from float64, where it is known at this size."""
    value, gradients = result
    # A sum is finite only if every entry is, and takes no memory that would count as the row's.
    if not all(bool(gradient.sum().isfinite()) for gradient in gradients):
        return float("nan")
    expected = data.exact.get(provider.definition)
    return abs(float(value) / expected - 1) if expected else 0.0


def _work(provider: Provider, data: MiningData, n: int) -> float:
    """FLOP of the products of ``n`` steps: forward, and one or two products backward."""
    case = data.case
    columns = case.bank or case.B
    products = {"distances": 3, "two distances": 6, "bank distances": 2}
    return 2.0 * n * case.B * columns * case.D * products.get(provider.definition, 0)


def _remarks(names: Sequence[str], device: str) -> list[str]:
    """Which of the losses ``torch.compile`` captures in one graph."""
    import_module("torch._dynamo.config").suppress_errors = False
    data, lines = generate(SMALL).to(device), []
    for name in names:
        if name not in MAKERS or "compiled" in name:
            continue
        title = SUITE.providers[name].title
        loss, leaves = MAKERS[name](data)
        torch.compiler.reset()
        try:
            steps.forward_backward(torch.compile(loss, fullgraph=True, backend="aot_eager"), leaves)
            works, reason = True, ""
        except Exception as problem:
            works, reason = False, f" ({type(problem).__name__})"
        if name.startswith("ours"):
            lines.append(f"{'met' if works else 'MISSED'}: fullgraph capture of {title}{reason}")
        else:
            lines.append(f"fullgraph capture {'works' if works else 'fails'}: {title}{reason}")
    return lines


# --- targets -------------------------------------------------------------------------------------

HARD_PEERS = ("pml_hard", "oml_hard", "torch_hard", "torch_hard_compiled", "pml_multi_similarity")


def _over_floor(rows: Rows, case: str) -> list[str]:
    limits = {
        "ours_all_triplet": ("batch-all triplets / floor", 2.0, ("b1024",)),
        "ours_all_quadruplet": ("batch-all quadruplets, domain_balanced / floor", 3.0, ("b1024",)),
        "ours_chen_mean": ("batch-all quadruplets, chen2017, mean / floor", 5.0, ("b1024",)),
        "ours_chen": ("batch-all quadruplets, chen2017, mean_nonzero / floor", 5.0, ("b1024",)),
        "ours_hard_triplet": ("batch-hard triplets / floor", 1.3, ("b1024", "b4096")),
        "ours_hard_quadruplet": ("batch-hard quadruplets / own floor", 1.3, ("b1024", "b4096")),
    }
    return [
        at_most(what, case, row.over_floor, limit, "x")
        for name, (what, limit, cases) in limits.items()
        if case in cases and (row := rows.get((case, name))) and row.over_floor
    ]


def _memory(rows: Rows, case: str) -> list[str]:
    lines = []
    triplets = rows.get((case, "ours_all_triplet"))
    if triplets and case == "b1024":
        peak = triplets.peak_bytes / 2**20
        lines.append(at_most("peak memory of batch-all triplets", case, peak, 150.0, " MiB"))
    for name, sides in (("ours_hard_triplet", 1), ("ours_hard_quadruplet", 2)):
        if row := rows.get((case, name)):
            # Normalised features, their gradients, those of the inputs, and temporaries.
            bound = 8 * sides * CASES[case].B * CASES[case].D * 4 / 2**20 + 16
            what = f"peak memory of {row.title.removeprefix('ours: ')} (8 n D floats + 16 MiB)"
            lines.append(at_most(what, case, row.peak_bytes / 2**20, bound, " MiB"))
    return lines


def _against_rivals(rows: Rows, case: str) -> list[str]:
    lines = []
    groups = (
        ("ours_all_triplet", ("pml_all",), 25.0, ("b1024",)),
        ("ours_hard_triplet", HARD_PEERS, 1.0, ("b1024", "b4096")),
        ("ours_hard_quadruplet", ("torch_hard_quadruplet",), 1.0, ("b1024", "b4096")),
    )
    for name, rivals, limit, cases in groups:
        ours, best = rows.get((case, name)), fastest(rows, case, rivals)
        if ours and best and case in cases and ours.device == "cpu":
            what = f"{best.title} / {ours.title}"
            lines.append(at_least(what, case, best.p50_us / ours.p50_us, limit))
    ours = rows.get((case, "ours_hard_triplet"))
    references = ("reference_hard", "reference_hard_compiled", "torch_hard", "torch_hard_compiled")
    if ours and ours.device == "cuda" and (best := fastest(rows, case, references)):
        lines.append(at_least(f"{best.title} / ours", case, best.p50_us / ours.p50_us, 3.0))
    return lines


def _finish(result: Result) -> None:
    """Shares of the floor, and the targets for which this run has both sides."""
    rows = rows_by_name(result)
    floors = {
        case: row.p50_us for (case, name), row in rows.items() if name in ("floor", "floor_bank")
    }
    share_limits(result, floors)
    for case in dict.fromkeys(row.case for row in result.rows):
        lines = _over_floor(rows, case) + _memory(rows, case) + _against_rivals(rows, case)
        result.verdicts += marked(result, case, lines)


SUITE = Suite(
    op="quadruplet_mining",
    module="benchmarks.bench_quadruplet_mining",
    cases=dict(CASES),
    quick_cases=("b1024",),
    providers={p.name: p for p in (*FLOORS, *OURS, *REFERENCE, *steps.RIVALS)},
    ours="ours_all_triplet",
    make_data=save,
    load_data=load,
    warm_up=_warm_up,
    items=one_step,
    check_items=one_step,
    error=_error,
    work=_work,
    finish=_finish,
    layout=PER_STEP,
    quick=STEPS_QUICK,
    full=STEPS_FULL,
    remarks=_remarks,
)

if __name__ == "__main__":
    sys.exit(main(SUITE))
