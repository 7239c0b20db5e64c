"""MobileNetV2 with folded batch norm, as the bundled ImageNet weights need it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from zsbir_fast._words import shortened
from zsbir_fast.data.npz_files import read_npz
from zsbir_fast.encoders.weight_files import IMAGENET_CLASSES

# (expansion, channels, blocks, stride of the first block): table 2 of arXiv 1801.04381
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
WIDTH = 1280


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: the output has ceil(size / stride) positions.

    The total padding ``(out - 1) * stride + kernel - size`` is split in half and an odd row goes
    *after* the image, so a 3x3 stride-2 layer on an even size pads 0 before and 1 after.
    PyTorch's symmetric padding would shift every such layer by one pixel.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [B, C, H, W] to [B, C', ceil(H / stride), ceil(W / stride)]."""
        (top, bottom), (left, right) = (
            _same_padding(size, kernel, stride)
            for size, kernel, stride in zip(x.shape[2:], self.kernel_size, self.stride, strict=True)
        )
        if (top, left) == (bottom, right):
            return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), groups=self.groups)
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class _Block(nn.Module):
    """Inverted residual: expand 1x1, depthwise 3x3, project 1x1 (linear)."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = SameConv2d(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = SameConv2d(hidden, hidden, 3, stride, groups=hidden)
        self.project = SameConv2d(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """MobileNetV2 1.0 without batch norm.

    Batch norm is folded into the convolutions' weights and biases, so the network behaves the
    same in training and evaluation mode and can be fine-tuned with batches of any size.

    Args:
        classes: outputs of ``classifier``, a linear layer over the mean of the feature map; 0: it
            is None.

    Source: Sandler et al., "MobileNetV2", arXiv 1801.04381, table 2.
    """

    def __init__(self, *, classes: int = 0) -> None:
        super().__init__()
        self.stem = SameConv2d(3, 32, 3, 2)
        blocks, channels = [], 32
        for expansion, outputs, count, stride in _STAGES:
            for index in range(count):
                blocks.append(_Block(channels, outputs, expansion, stride if index == 0 else 1))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.last = SameConv2d(channels, WIDTH, 1)
        self.classifier = nn.Linear(WIDTH, classes) if classes else None

    def forward(self, images: Tensor) -> Tensor:
        """Feature map of normalised images.

        Args:
            images: [B, 3, H, W] float, ``(pixel - 128) / 128`` for pixels 0..255.

        Returns:
            [B, 1280, ceil(H / 32), ceil(W / 32)], not negative (relu6).
        """
        x = F.relu6(self.stem(images))
        x = self.last(self.blocks(x))
        return F.relu6(x)

    def convolutions(self) -> list[SameConv2d]:
        """Every convolution in the order of the forward pass (52 of them)."""
        return [module for module in self.modules() if isinstance(module, SameConv2d)]


def read_uint8_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the bundled uint8 weight file as a float32 state dict of :class:`MobileNetV2`.

    The file holds for each layer ``NAME:w`` (uint8, OIHW), ``NAME:scale``, ``NAME:zero`` and
    ``NAME:b``; the real weight is ``scale * (w - zero)``. Its last layer is the ImageNet
    classifier, whose first class, the background, is left out.

    Args:
        path: the .npz file.

    Returns:
        Names as in ``MobileNetV2(classes=1000).state_dict()``.

    Raises:
        ValueError: the file is damaged or another, or a layer does not fit the network.
    """
    network = MobileNetV2(classes=IMAGENET_CLASSES)
    names = {id(module): name for name, module in network.named_modules()}
    state: dict[str, Tensor] = {}
    expected = "read_uint8_weights: path must be an .npz with a quantised MobileNetV2"
    arrays = read_npz(path, (), expected=expected)
    try:
        layers = _dequantised(arrays)
    except (KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
        raise ValueError(
            f"{expected}, got {path} ({type(error).__name__}: {shortened(error)})"
        ) from error
    modules = [*network.convolutions(), network.classifier]
    if len(layers) != len(modules):
        raise ValueError(
            f"read_uint8_weights: path must hold {len(modules) - 1} convolutions and a "
            f"classifier, got {len(layers)} layers in {path}"
        )
    for (key, weight, bias), module in zip(layers, modules, strict=True):
        assert module is not None
        if weight.shape != module.weight.shape or bias.shape != (len(module.weight),):
            raise ValueError(
                f"read_uint8_weights: path must hold layer {key} of shape "
                f"{tuple(module.weight.shape)}, got {tuple(weight.shape)} in {path}"
            )
        name = names[id(module)]
        state[f"{name}.weight"], state[f"{name}.bias"] = weight, bias
    return state


def _dequantised(arrays: Mapping[str, NDArray[Any]]) -> list[tuple[str, Tensor, Tensor]]:
    """Name, weight and bias of every layer; of the last one, the classifier, as a matrix."""
    found = []
    for layer in json.loads(arrays["layers_json"].tobytes()):
        key = layer["name"]
        whole, zero = (arrays[f"{key}:{part}"].astype(np.float32) for part in ("w", "zero"))
        weight = torch.from_numpy(arrays[f"{key}:scale"] * (whole - zero))
        found.append((key, weight, torch.from_numpy(arrays[f"{key}:b"])))
    if found:
        key, weight, bias = found[-1]
        found[-1] = (key, weight.flatten(1)[1:], bias[1:])
    return found
