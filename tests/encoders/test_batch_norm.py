"""Frozen batch norm: as in evaluation while everything else trains, whoever says ``train()``."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import zsbir_fast as zf
from zsbir_fast.encoders.build import build_encoder
from zsbir_fast.methods.identity import ModelIdentity
from zsbir_fast.methods.regularisers import FrozenCopy
from zsbir_fast.methods.saving import export_model, load_model


def norms(module):
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def encoder(**options):
    torch.manual_seed(0)
    made = build_encoder("timm:resnet10t", image_size=32, **options)
    for norm in norms(made):  # as after pre-training; zeros and ones could hide a mistake
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        norm.running_mean.uniform_(-0.1, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
    return made


@pytest.fixture
def images():
    torch.manual_seed(1)
    return torch.randn(4, 3, 32, 32) * 2 + 1


def test_frozen_statistics_are_used_and_kept_while_scale_and_shift_train(images):
    network = encoder()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    expected = copy.deepcopy(network).eval()(images).global_
    features = network.train()(images).global_
    torch.testing.assert_close(features, expected)
    features.square().sum().backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    after = network.state_dict()
    names = dict(network.named_parameters())
    assert sum("running" in name for name in before) == 2 * len(norms(network)) > 0
    for name, value in before.items():
        assert torch.equal(after[name], value) == (name not in names), name


def test_open_batch_norm_uses_the_statistics_of_the_batch(images):
    network = encoder(freeze_batch_norm=False)
    first = norms(network)[0]
    before, running = network.eval()(images).global_, first.running_mean.clone()
    assert not torch.allclose(network.train()(images).global_, before, rtol=0.1)
    assert not torch.equal(first.running_mean, running)
    assert "freeze_batch_norm=False" in repr(network)


def _wrapped(network):
    return nn.Sequential(network)


def _compiled(network):
    return torch.compile(network, backend="eager")


def _copied(network):
    return copy.deepcopy(network)


def _synchronised(network):
    return nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(network))


def _after_a_frozen_copy(network):
    FrozenCopy(network.train())(network, torch.zeros(1, 3, 32, 32))
    return network


@pytest.mark.parametrize(
    "wrap", [_wrapped, _compiled, _copied, _synchronised, _after_a_frozen_copy]
)
@pytest.mark.parametrize("frozen", [True, False])
def test_the_mode_outlives_wrappers(wrap, frozen):
    outer = wrap(encoder(freeze_batch_norm=frozen))
    outer.eval().train()
    inner = [m for m in outer.modules() if m not in norms(outer)]
    assert all(m.training for m in inner)
    assert {m.training for m in norms(outer)} == {not frozen}
    outer.eval()
    assert not any(m.training for m in norms(outer))


def test_in_a_distributed_run_the_statistics_stay(images, tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        network = encoder()
        before = [(n.running_mean.clone(), n.running_var.clone()) for n in norms(network)]
        parallel = DistributedDataParallel(network).train()
        parallel(images).global_.sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    for norm, (mean, var) in zip(norms(network), before, strict=True):
        assert torch.equal(norm.running_mean, mean)
        assert torch.equal(norm.running_var, var)
        assert norm.weight.grad is not None


@pytest.mark.parametrize("frozen", [True, False])
def test_a_stored_model_keeps_its_choice(frozen, tmp_path):
    options = {
        "encoder": zf.EncoderOptions(
            "timm:resnet10t", weights=None, image_size=32, freeze_batch_norm=frozen
        ),
        "weighting": zf.WeightingOptions(kind="pairwise"),
    }
    model = zf.DMWAN(("cat", "dog"), **options)
    identity = ModelIdentity.of("dmwan", options, ("cat", "dog"))
    loaded, _ = load_model(export_model(model, identity, tmp_path / "model"))
    loaded.train()
    assert {m.training for m in norms(loaded)} == {not frozen}


@pytest.mark.parametrize("name", ["freeze_batch_norm", "head"])
def test_switches_of_other_types_are_named(name):
    message = f"^build_encoder: {name} must be True or False, got 1$"
    with pytest.raises(TypeError, match=message):
        build_encoder("bundled:mobilenet_v2", **{name: 1})
