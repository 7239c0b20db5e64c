"""The Lightning module: one training step of a method, with any number of optimizers.

Lightning's automatic optimization knows one loss and one optimizer. Here the loop is in the
module's own hands: it asks the method for its losses, passes their gradients back, and every
``accumulate`` batches clips, steps and schedules all optimizers. ``docs/training_loop.md``
follows a batch through it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from zsbir_fast._words import shown
from zsbir_fast.losses.cross_batch_memory import FeatureBank
from zsbir_fast.methods.contract import Losses, Method, Progress
from zsbir_fast.methods.identity import ModelIdentity
from zsbir_fast.methods.settings import OptimConfig
from zsbir_fast.training.run_config import RunConfig
from zsbir_fast.training.schedule import lr_factor


class MethodModule(pl.LightningModule):
    """Trains a method with the optimizers that it asks for.

    Args:
        model: the method.
        optim: optimizer settings.
        run: length of the run and of an epoch, in optimizer steps.
        identity: method, arguments and classes of ``model``, stored in every checkpoint.
        course: settings to store in every checkpoint, see ``course_of``; plain values.

    Attributes:
        steps: optimizer steps done; one step moves all optimizers.
        latest: losses of the newest batch and their parts, by the names of the logs.
    """

    model: Method

    def __init__(
        self,
        model: Method,
        optim: OptimConfig,
        run: RunConfig,
        identity: ModelIdentity,
        *,
        course: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.optim = optim
        self.run = run
        self.identity = identity
        self.course = dict(course or {})
        self.steps = 0
        self.latest: dict[str, Tensor] = {}
        self._due: set[int] = set()  # optimizers that got a gradient since the last step
        # The memory is the same on every process: DistributedDataParallel, which reads this name,
        # need not send it around before every step.
        self._ddp_params_and_buffers_to_ignore = [
            f"{path}.{name}"
            for path, part in self.named_modules()
            if isinstance(part, FeatureBank)
            for name, _ in part.named_buffers()
        ]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the method's optimizers; Lightning calls this.

        Raises:
            TypeError: the method gave something else than a list of torch optimizers.
            ValueError: it gave none, a parameter is in two of them, or there are several in
                float16, whose gradients need one common scale.
        """
        optimizers = _checked_optimizers(self.model, self.model.optimizers(self.optim))
        if len(optimizers) > 1 and self.trainer.precision == "16-mixed":
            # The scale of the losses moves with every optimizer's step, not with every batch.
            raise ValueError(
                "configure_optimizers: run.precision must be bf16-mixed or full for a method with "
                f"{len(optimizers)} optimizers, got 16-mixed"
            )
        for group in _groups(optimizers):
            group["initial_lr"] = group["lr"]
        return optimizers

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Train on one batch; Lightning calls this.

        Raises:
            TypeError: the method gave something else than ``Losses`` of scalar tensors.
            ValueError: it gave another number of losses than optimizers, none at all, or one that
                has no gradient.
        """
        done = Progress(
            step=self.steps,
            epoch=self.steps // self.run.steps_per_epoch,
            total_steps=self.run.total_steps,
            epochs=self.run.epochs,
        )
        losses = self.model.losses(batch, done)
        optimizers = self._optimizers()
        _check_losses(self.model, losses, optimizers)
        last = (batch_idx + 1) % self.optim.accumulate == 0
        alone = len(optimizers) == 1
        with contextlib.nullcontext() if alone and last else self._without_exchange():
            self._pass_back(losses, optimizers)
        self._note(losses)
        if last:
            if not alone:
                self._exchange(optimizers)
            self._step(optimizers)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the gradient of one optimizer; Lightning calls this once it is unscaled."""
        if self.optim.gradient_clip:
            held = _parameters(optimizer)
            torch.nn.utils.clip_grad_norm_(held, self.optim.gradient_clip)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say in the checkpoint which model and run it belongs to; Lightning calls this."""
        checkpoint["zsbir"] = self.identity.to_dict()
        checkpoint["course"] = self.course
        checkpoint["steps"] = self.steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another model, and make room for more steps.

        Lightning calls this. The whole run is one of its epochs, which ended with the last batch
        of a shorter run: without the correction it would not go on.
        """
        self.identity.require_same(checkpoint.get("zsbir"))
        self.steps = checkpoint["steps"]
        if self.steps < self.run.total_steps:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            progress["is_last_batch"] = False

    def _pass_back(self, losses: Losses, optimizers: Sequence[Optimizer]) -> None:
        """Add the gradient of each loss to the parameters of its optimizer, and to no others."""
        given = [place for place, loss in enumerate(losses.per_optimizer) if loss is not None]
        self._due.update(given)
        pairs = [
            (cast(Tensor, losses.per_optimizer[place]) / self.optim.accumulate, optimizers[place])
            for place in given
        ]
        if len(optimizers) == 1:
            self.manual_backward(pairs[0][0])
            return
        for place, (loss, optimizer) in enumerate(pairs, start=1):
            held = [p for p in _parameters(optimizer) if p.requires_grad]
            if held:  # all of them may be frozen for a while
                torch.autograd.backward(loss, inputs=held, retain_graph=place < len(pairs))

    def _exchange(self, optimizers: Sequence[Optimizer]) -> None:
        """Average the gradients of several optimizers over all processes.

        DistributedDataParallel averages those of one pass that reaches every parameter. Here each
        pass reaches the parameters of one optimizer, and an optimizer may rest, on some processes
        perhaps: it moves where any process has a loss for it, and the others count as zeros.
        """
        world_size = self.trainer.world_size
        if world_size == 1:
            return
        due = torch.tensor([place in self._due for place in range(len(optimizers))])
        shared = due.to(self.device, torch.int32)
        torch.distributed.all_reduce(shared)
        self._due = {place for place, count in enumerate(shared.tolist()) if count}
        held = [p for place in sorted(self._due) for p in _parameters(optimizers[place])]
        held = [p for p in held if p.requires_grad]
        if held:
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in held]
            # One message for all; reshape, for gradients in channels-last order have no flat view.
            whole = torch.cat([gradient.reshape(-1) for gradient in gradients])
            torch.distributed.all_reduce(whole)
            averages = torch.split(whole / world_size, [part.numel() for part in gradients])
            for parameter, gradient, average in zip(held, gradients, averages, strict=True):
                parameter.grad = gradient.copy_(average.view_as(gradient))

    def _step(self, optimizers: Sequence[Optimizer]) -> None:
        # Not by torch's schedulers, which warn where an optimizer rests in the first steps.
        factor = lr_factor(self.steps, self.optim, self.run.total_steps)
        for group in _groups(optimizers):
            group["lr"] = group["initial_lr"] * factor
        for place, optimizer in enumerate(optimizers):
            if place in self._due:
                optimizer.step()
        self.model.zero_grad()  # of parameters that no optimizer holds, too
        self._due.clear()
        self.steps += 1

    def _note(self, losses: Losses) -> None:
        named = {
            "loss" if place == 0 else f"loss_{place + 1}": loss
            for place, loss in enumerate(losses.per_optimizer)
            if loss is not None
        }
        self.latest = {
            f"train/{name}": value.detach() for name, value in {**named, **losses.parts}.items()
        }

    def _optimizers(self) -> list[Any]:
        found = self.optimizers()
        return found if isinstance(found, list) else [found]

    def _without_exchange(self) -> Any:
        """Keep DistributedDataParallel from exchanging the gradients of this batch."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ParallelStrategy):
            return strategy.block_backward_sync()
        return contextlib.nullcontext()


def _checked_optimizers(model: Method, given: object) -> list[Optimizer]:
    caller = f"{type(model).__name__}.optimizers"
    if not isinstance(given, (list, tuple)) or not all(isinstance(o, Optimizer) for o in given):
        raise TypeError(f"{caller} must give a list of torch optimizers, got {shown(given)}")
    if not given:
        raise ValueError(f"{caller} must give at least one optimizer, got none")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    owners: dict[int, int] = {}
    for place, optimizer in enumerate(given, start=1):
        for parameter in _parameters(optimizer):
            owner = owners.setdefault(id(parameter), place)
            if owner != place:
                name = names.get(id(parameter), f"one of shape {list(parameter.shape)}")
                raise ValueError(
                    f"{caller} must give every parameter to one optimizer, got {name} in "
                    f"optimizers {owner} and {place}"
                )
    return list(given)


def _check_losses(model: Method, losses: object, optimizers: Sequence[Optimizer]) -> None:
    caller = f"{type(model).__name__}.losses"
    if not isinstance(losses, Losses):
        raise TypeError(f"{caller} must give zsbir_fast.Losses, got a {type(losses).__name__}")
    given = losses.per_optimizer
    if not isinstance(given, (list, tuple)):
        raise TypeError(
            f"{caller} must give Losses of a list, one for each optimizer, got a "
            f"{type(given).__name__}"
        )
    if len(given) != len(optimizers) or all(loss is None for loss in given):
        raise ValueError(
            f"training_step: losses must give one loss for each of the {len(optimizers)} "
            f"optimizers, at least one of them not None, got {len(given)}, "
            f"{sum(loss is None for loss in given)} of them None"
        )
    for part in losses.parts:
        if re.fullmatch(r"loss(_\d+)?", part):
            raise ValueError(f"{caller} must give parts of other names than losses, got {part!r}")
    named = {f"loss {place}": loss for place, loss in enumerate(given, start=1) if loss is not None}
    for name, value in {**named, **{f"part {k!r}": v for k, v in losses.parts.items()}}.items():
        if not (isinstance(value, Tensor) and value.ndim == 0):
            raise TypeError(f"{caller} must give scalar tensors, got {shown(value)} as {name}")
        if name in named and not value.requires_grad:
            raise ValueError(
                f"{caller} must give losses that depend on a trainable parameter, got {name} "
                "without a gradient"
            )


def _groups(optimizers: Sequence[Optimizer]) -> list[dict[str, Any]]:
    return [group for optimizer in optimizers for group in optimizer.param_groups]


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
