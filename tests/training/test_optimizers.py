"""Several optimizers: whose gradient goes where, and what counts as a step."""

from __future__ import annotations

import itertools

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from zsbir_fast.methods.contract import Losses
from zsbir_fast.training.module import MethodModule


def test_each_optimizer_gets_the_gradient_of_its_own_loss(tmp_path, small_run, monkeypatch):
    """Against a plain loop: backward of each loss by itself, clipping, two steps."""
    seen, all_losses = [], []
    step = MethodModule._step

    def note(self, optimizers):
        losses = all_losses.pop()
        held = [group["params"] for o in optimizers for group in o.param_groups]
        expected = [
            None
            if loss is None
            else torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)
            for loss, params in zip(losses.per_optimizer, held, strict=True)
        ]
        seen.append([(p.grad, e) for ps, es in zip(held, expected, strict=True) if es is not None
                     for p, e in zip(ps, es, strict=True)])  # fmt: skip
        for given, wanted in seen[-1]:
            torch.testing.assert_close(given, wanted)
        step(self, optimizers)

    pass_back = _keeping_the_graph(MethodModule._pass_back, all_losses)
    monkeypatch.setattr(MethodModule, "_pass_back", pass_back)
    monkeypatch.setattr(MethodModule, "_step", note)
    small_run(tmp_path, two=True)
    assert [len(pairs) for pairs in seen] == [4] * 4 + [6] * 8  # the head rests in epoch 0


def _keeping_the_graph(real, all_losses):
    def pass_back(self, losses, optimizers):
        all_losses.append(losses)
        backward = torch.autograd.backward

        def keep(tensors, **options):
            backward(tensors, **{**options, "retain_graph": True})

        torch.autograd.backward = keep
        try:
            real(self, losses, optimizers)
        finally:
            torch.autograd.backward = backward

    return pass_back


def test_an_optimizer_that_rests_leaves_its_parameters_alone(tmp_path, small_run):
    whole, _, _ = small_run(tmp_path / "a", two=True, epochs=1)
    torch.manual_seed(0)
    before, _, _ = small_run(tmp_path / "b", two=True, epochs=1, kill_after=0)
    assert torch.equal(whole["head.weight"], before["head.weight"])
    assert not torch.equal(whole["encoder.0.weight"], before["encoder.0.weight"])


def test_progress_counts_batches_whatever_the_number_of_optimizers(tmp_path, small_run):
    for name, how in (("one", {}), ("two", {"two": True})):
        _, validated, fitted = small_run(tmp_path / name, accumulate=2, **how)
        assert fitted.steps == 12
        assert validated == [4, 8, 12]
        steps = [step for step, _ in small_run.progress]
        assert steps == [step for step in range(12) for _ in range(2)]
        assert [epoch for _, epoch in small_run.progress] == [0] * 8 + [1] * 8 + [2] * 8


def test_the_gradient_is_clipped_per_optimizer(tmp_path, small_run, monkeypatch):
    norms = []
    clip = MethodModule.on_before_optimizer_step

    def note(self, optimizer):
        clip(self, optimizer)
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(float(torch.stack([g.norm() for g in grads]).norm()))

    monkeypatch.setattr(MethodModule, "on_before_optimizer_step", note)
    small_run(tmp_path / "clipped", two=True, gradient_clip=0.25)
    assert len(norms) == 12 + 8
    assert max(norms) == pytest.approx(0.25, rel=1e-4)
    small_run(tmp_path / "free", two=True, gradient_clip=0.0)
    assert max(norms[20:]) > 1


def test_learning_rates_of_all_optimizers_follow_the_schedule(tmp_path, small_run, monkeypatch):
    rates = []
    step = MethodModule._step

    def note(self, optimizers):
        step(self, optimizers)
        rates.append([o.param_groups[0]["lr"] for o in optimizers])

    monkeypatch.setattr(MethodModule, "_step", note)
    small_run(tmp_path, two=True, accumulate=2)
    assert len(rates) == 12
    assert all(a == b for a, b in rates)
    assert [round(r[0], 6) for r in rates[:3]] == [0.003333, 0.006667, 0.01]
    assert all(a[0] > b[0] for a, b in itertools.pairwise(rates[2:]))


@pytest.mark.parametrize(
    ("per_optimizer", "text"),
    [
        ([], "got 0, 0 of them None"),
        ([None], "got 1, 1 of them None"),
        ([torch.zeros(()), None], "got 2, 1 of them None"),
    ],
)
def test_losses_that_do_not_fit(tmp_path, small_run, monkeypatch, per_optimizer, text):
    def losses(self, batch, at):
        return Losses(per_optimizer)

    monkeypatch.setattr(small_run.net, "losses", losses)
    text = f"one loss for each of the 1 optimizers, at least one of them not None, {text}"
    with pytest.raises(ValueError, match=f"training_step: losses must give {text}"):
        small_run(tmp_path)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (torch.ones(()), "must give zsbir_fast.Losses, got a Tensor"),
        (Losses(torch.ones(())), "must give Losses of a list, one for each optimizer, got a Tens"),
        (Losses([1.0]), "must give scalar tensors, got 1.0 as loss 1"),
        (Losses([torch.ones(2)]), r"must give scalar tensors, got tensor\(\[1., 1.\]\) as loss 1"),
        (Losses([torch.ones(()).requires_grad_()], {"x": 1.0}), "got 1.0 as part 'x'"),
        (
            Losses([torch.ones(()).requires_grad_()], {"loss_2": torch.ones(())}),
            "must give parts of other names than losses, got 'loss_2'",
        ),
        (
            Losses([torch.ones(())]),
            "must give losses that depend on a trainable parameter, got loss 1 without a gradient",
        ),
    ],
)
def test_losses_that_are_none(tmp_path, small_run, monkeypatch, given, text):
    monkeypatch.setattr(small_run.net, "losses", lambda self, batch, at: given)
    with pytest.raises((ValueError, TypeError), match=rf"_Net\.losses .*{text}"):
        small_run(tmp_path)


def _adamw(*parts):
    return torch.optim.AdamW([p for part in parts for p in part.parameters()], lr=0.1)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda net: [], "must give at least one optimizer, got none"),
        (lambda net: _adamw(net), "must give a list of torch optimizers, got AdamW"),
        (lambda net: ([_adamw(net)], []), "must give a list of torch optimizers, got"),
        (
            lambda net: [_adamw(net.encoder), _adamw(net.head, net.encoder)],
            "must give every parameter to one optimizer, got encoder.0.weight in optimizers 1 and",
        ),
    ],
)
def test_optimizers_that_are_none(tmp_path, small_run, monkeypatch, make, text):
    monkeypatch.setattr(small_run.net, "optimizers", lambda self, optim: make(self))
    with pytest.raises((ValueError, TypeError), match=rf"_Net\.optimizers {text}"):
        small_run(tmp_path)


def test_a_loss_of_any_batch_of_a_step_counts(tmp_path, small_run, monkeypatch):
    """The second optimizer has a loss in the first of two batches and rests in the second."""
    real = small_run.two_nets.losses

    def losses(self, batch, at):
        first, second = real(self, batch, at).per_optimizer
        return Losses([first, second if len(self.progress) % 2 else None])

    monkeypatch.setattr(small_run.two_nets, "losses", losses)
    moved, _, _ = small_run(tmp_path / "a", two=True, accumulate=2)
    monkeypatch.setattr(small_run.two_nets, "losses", lambda *a: Losses([real(*a).per_optimizer[0],
                                                                         None]))  # fmt: skip
    rested, _, _ = small_run(tmp_path / "b", two=True, accumulate=2)
    assert not torch.equal(moved["head.weight"], rested["head.weight"])


def test_parameters_of_an_optimizer_may_be_frozen_for_a_while(tmp_path, small_run, monkeypatch):
    real = small_run.two_nets.losses

    def losses(self, batch, at):
        self.head.requires_grad_(at.epoch != 1)
        return real(self, batch, at)

    monkeypatch.setattr(small_run.two_nets, "losses", losses)
    _, _, fitted = small_run(tmp_path, two=True)
    assert fitted.steps == 12


def test_float16_with_two_optimizers_is_refused(tmp_path, small_run, monkeypatch):
    monkeypatch.setattr(pl.Trainer, "precision", property(lambda self: "16-mixed"))
    with pytest.raises(ValueError, match=r"run\.precision must be bf16-mixed or full for a method"):
        small_run(tmp_path, two=True)


def test_logs_hold_every_loss_and_are_saved_at_once(tmp_path, small_run, monkeypatch):
    saved = []
    real = CSVLogger.save
    monkeypatch.setattr(CSVLogger, "save", lambda self: (saved.append(1), real(self))[1])
    small_run(tmp_path, two=True, kill_after=6)
    text = next((tmp_path / "logs").rglob("metrics.csv")).read_text()
    assert len(saved) >= 6
    assert "train/loss" in text
    assert "train/loss_2" in text


def test_gradients_of_parameters_that_no_optimizer_holds_do_not_pile_up(
    tmp_path, small_run, monkeypatch
):
    def only_the_encoder(self, optim):
        return [torch.optim.SGD(self.encoder.parameters(), lr=0.1)]

    seen = []
    step = MethodModule._step

    def note(self, optimizers):
        step(self, optimizers)
        seen.append([p.grad for p in self.model.parameters()])

    monkeypatch.setattr(small_run.net, "optimizers", only_the_encoder)
    monkeypatch.setattr(MethodModule, "_step", note)
    small_run(tmp_path)
    assert len(seen) == 12
    assert all(grad is None for grads in seen for grad in grads)
