"""A whole DM-WAN training step: the kernels against the PyTorch reference.

``python -m benchmarks.bench_training_step --quick``   under a minute, the bundled encoder
``python -m benchmarks.bench_training_step --full --out benchmarks/results/training_step_cpu
--docs benchmarks/results/training_step_cpu.md``   every row, to the records and a page

A step is forward, backward, gradient clipping and AdamW on synthetic images. The floor is the same
for the encoder alone, with the mean of its features as the loss. Times are milliseconds per step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib import import_module, resources
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.harness import main
from benchmarks.records import PER_STEP, Result, significant
from benchmarks.suite import STEPS_FULL, STEPS_QUICK, Prepared, Provider, Suite, one_step
from benchmarks.targets import marked, rows_by_name, share_limits

BOTH = ("cpu", "cuda")
CONFIG = "dmwan-qd_caltech.yaml"


@dataclass(frozen=True)
class Case:
    """A model and its batch: P classes with K sketches and K photos each."""

    name: str
    encoder: str
    pixels: int
    P: int
    K: int
    shipped: bool = False  # the other arguments: of the shipped config, or the defaults
    dtype: Literal["float32", "bfloat16"] = "float32"
    devices: tuple[str, ...] = BOTH

    @property
    def title(self) -> str:
        """Model and sizes."""
        arguments = CONFIG if self.shipped else "default arguments"
        pairs = f"{self.P * self.K} sketches and as many photos of {self.pixels} pixels"
        return f"{self.name}: {self.encoder}, {pairs}, {self.P} classes, {self.dtype}, {arguments}"


CASES = {
    case.name: case
    for case in (
        Case("mobilenet", "bundled:mobilenet_v2", 128, P=12, K=2, shipped=True),
        Case("vit_small", "timm:vit_small_patch16_224", 224, P=4, K=2),
        Case(
            "vit_base",
            "timm:vit_base_patch16_224",
            224,
            P=16,
            K=4,
            dtype="bfloat16",
            devices=("cuda",),
        ),
    )
}


# --- the step ------------------------------------------------------------------------------------


def build(case: Case, impl: str) -> Any:
    """The model of a case, with the same random weights for every ``impl``."""
    import zsbir_fast as zf
    from zsbir_fast.methods.arguments import typed_arguments

    arguments: dict[str, Any] = {"encoder": {"name": case.encoder, "weights": None}}
    if case.shipped:
        config = resources.files("zsbir_fast.runs") / "configs" / CONFIG
        arguments = import_module("yaml").safe_load(config.read_text())["model"]
    arguments["encoder"] |= {"name": case.encoder, "image_size": case.pixels}
    arguments["impl"] = impl
    torch.manual_seed(0)
    classes = zf.load_benchmark().seen[: case.P]
    return zf.DMWAN(classes, **typed_arguments("dmwan", zf.DMWAN, arguments))


def _batch(case: Case, device: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(case.P * case.K) // case.K
    shape = (len(labels), 3, case.pixels, case.pixels)
    images = (torch.randn(shape, generator=generator).to(device) for _ in range(2))
    return dict(zip(("sketches", "photos"), images, strict=True), labels=labels.to(device))


def _loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    from zsbir_fast.methods.contract import Progress

    (loss,) = model.losses(batch, Progress(step=0, epoch=0, total_steps=1, epochs=1)).per_optimizer
    value: Tensor = loss
    return value


def _stepper(
    model: nn.Module, encoder: nn.Module, case: Case, device: str, loss: Callable[[], Tensor]
) -> Callable[[int], Tensor]:
    from zsbir_fast.methods.optimizers import adamw
    from zsbir_fast.methods.settings import OptimConfig

    optimizer = adamw(model, OptimConfig(), backbone=encoder)

    def step(n: int) -> Tensor:
        with _precision(case, device):
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value.detach()

    step(1)  # makes the optimizer's state, which is no part of a step's memory
    return step


def _precision(case: Case, device: str) -> AbstractContextManager[Any]:
    return torch.autocast(device, torch.bfloat16, enabled=case.dtype == "bfloat16")


def _encoder_step(model: Any, case: Case, device: str) -> Callable[[int], Tensor]:
    batch = _batch(case, device)
    images = torch.cat([batch["sketches"], batch["photos"]])

    def loss() -> Tensor:
        features = model.encoder(images)
        mean: Tensor = features.global_.float().mean() + features.tokens.float().mean()
        return mean

    return _stepper(model.encoder, model.encoder, case, device, loss)


def _whole(impl: str) -> Callable[[Case, str], Prepared]:
    def prepare(case: Case, device: str) -> Prepared:
        model, batch = build(case, impl).to(device).train(), _batch(case, device)
        step = _stepper(model, model.encoder, case, device, lambda: _loss(model, batch))
        return Prepared(step, floor=_encoder_step(model, case, device))

    return prepare


def _encoder_alone(case: Case, device: str) -> Prepared:
    return Prepared(_encoder_step(build(case, "fused").to(device).train(), case, device))


PROVIDERS = [
    Provider("encoder", "floor: the encoder alone", "floor", _encoder_alone, devices=BOTH),
    Provider("fused", "ours: the whole step", "ours", _whole("fused"), devices=BOTH),
    Provider(
        "reference",
        "the same with the PyTorch reference",
        "rival",
        _whole("reference"),
        devices=BOTH,
    ),
]


# --- checks --------------------------------------------------------------------------------------


def small_error(provider: Provider, case: Case, device: str) -> float:
    """Deviation of loss and gradients from the reference on a small batch, relative."""
    if provider.name != "fused":
        return 0.0
    small = replace(case, P=2, K=2)
    batch, found = _batch(small, device), []
    for impl in ("fused", "reference"):
        model = build(small, impl).to(device).train()
        with _precision(case, device):
            loss = _loss(model, batch)
        loss.backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((loss.detach(), torch.cat(gradients)))
    (loss, gradient), (expected, wanted) = found
    return float(
        max((loss - expected).abs() / expected.abs(), (gradient - wanted).norm() / wanted.norm())
    )


def _error(provider: Provider, case: Case, result: Tensor) -> float:
    return 0.0 if bool(result.isfinite()) else float("nan")


def _finish(result: Result) -> None:
    """The share of the encoder's time, and the kernels' saving in the rest of the step."""
    rows = rows_by_name(result)
    share_limits(result, {case: r.p50_us for (case, name), r in rows.items() if name == "encoder"})
    for case in dict.fromkeys(row.case for row in result.rows):
        ours, reference = rows.get((case, "fused")), rows.get((case, "reference"))
        if ours and reference:
            ratio = significant(reference.p50_us / ours.p50_us)
            memory = f"{ours.peak_bytes / 2**20:,.0f} MiB, not {reference.peak_bytes / 2**20:,.0f}"
            line = f"whole step, {case}: reference / ours {ratio}x, peak memory {memory}"
            result.verdicts += marked(result, case, [line])


def _nothing(case: Case, folder: Path) -> None:
    """The inputs are made from the case alone."""


SUITE = Suite(
    op="training_step",
    module="benchmarks.bench_training_step",
    cases=dict(CASES),
    quick_cases=("mobilenet",),
    providers={p.name: p for p in PROVIDERS},
    ours="fused",
    make_data=_nothing,
    load_data=lambda case, folder: case,
    warm_up=small_error,
    items=one_step,
    check_items=one_step,
    error=_error,
    work=lambda provider, case, n: 0.0,
    finish=_finish,
    tolerance=lambda case: 1e-3 if case.dtype == "float32" else 0.05,
    layout=PER_STEP,
    quick=replace(STEPS_QUICK, total_s=2.0, timeout_s=45.0, run_s=100.0),
    full=replace(STEPS_FULL, total_s=15.0, timeout_s=240.0),
)

if __name__ == "__main__":
    sys.exit(main(SUITE))
