"""Squeeze-and-excitation blocks that know the modality."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers import SqueezeExcite
from timm.layers.squeeze_excite import SEModule
from torch import nn

from zsbir_fast.encoders.build import build_encoder
from zsbir_fast.encoders.modality_condition import ModalityCondition

IS_PHOTO = torch.tensor([True, False, True])


@pytest.mark.parametrize("kind", [SEModule, SqueezeExcite])
def test_the_tag_is_one_more_input_of_the_first_layer(kind):
    torch.manual_seed(0)
    block = kind(8, rd_channels=4)
    network = nn.Sequential(nn.Conv2d(3, 8, 1), block)
    condition = ModalityCondition(network)
    nn.init.normal_(condition.vectors[0])
    images = torch.randn(3, 3, 5, 5)
    with condition.told(IS_PHOTO):
        found = network(images)
    maps = network[0](images)
    first, second = (
        (block.fc1, block.fc2) if kind is SEModule else (block.conv_reduce, block.conv_expand)
    )
    widened = torch.cat([first.weight[:, :, 0, 0], condition.vectors[0][:, None]], dim=1)
    squeezed = torch.cat([maps.mean((2, 3)), IS_PHOTO[:, None].float()], dim=1)
    hidden = torch.relu(squeezed @ widened.T + first.bias)
    excited = torch.sigmoid(hidden @ second.weight[:, :, 0, 0].T + second.bias)
    torch.testing.assert_close(found, maps * excited[:, :, None, None])


def test_a_network_starts_as_it_was_and_learns_for_photos_alone():
    torch.manual_seed(0)
    encoder = build_encoder("timm:seresnet18", image_size=64).eval()
    for norm in encoder.modules():  # some scales start at 0 and hide their block
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)
    images = torch.randn(3, 3, 64, 64)
    before = encoder(images).global_
    encoder.condition = ModalityCondition(encoder)
    assert len(encoder.condition.vectors) == 8
    with encoder.condition.told(IS_PHOTO):
        torch.testing.assert_close(encoder(images).global_, before)
        encoder(images).global_.square().sum().backward()
    assert all(vector.grad.abs().max() > 0 for vector in encoder.condition.vectors)
    with torch.no_grad():
        for vector in encoder.condition.vectors:
            vector += 1
    with encoder.condition.told(IS_PHOTO):
        after = encoder(images).global_
    changed = (after - before).abs().amax(1) > 1e-4
    assert changed.tolist() == IS_PHOTO.tolist()
    torch.testing.assert_close(encoder(images).global_, before)  # told nothing
    twin = copy.deepcopy(encoder)
    with torch.no_grad():
        for vector in encoder.condition.vectors:
            vector.zero_()
    with twin.condition.told(IS_PHOTO):
        torch.testing.assert_close(twin(images).global_, after)


@pytest.mark.parametrize("name", ["timm:test_resnet", "timm:test_vit", "bundled:mobilenet_v2"])
def test_a_network_without_such_blocks_is_refused(name):
    with pytest.raises(ValueError, match=r"network must have squeeze-and-excitation blocks"):
        ModalityCondition(build_encoder(name, image_size=32))
