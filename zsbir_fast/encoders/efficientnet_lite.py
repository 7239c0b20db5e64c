"""EfficientNet-Lite0: timm's network, and the bundled ImageNet weights in eight bits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

WIDTH = 1280
_SCALE, _ZERO = "_scale", "_zero"


def efficientnet_lite0(*, classes: int = 0) -> nn.Module:
    """Build the network with random weights; nothing is fetched.

    Args:
        classes: outputs of its ``classifier``; 0: it has none.

    Returns:
        The ``tf_efficientnet_lite0`` of timm, with TensorFlow's SAME padding.

    Source: Liu, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog, 2020;
    Tan and Le, "EfficientNet", arXiv 1905.11946, without squeeze-and-excitation and with relu6.
    """
    import timm

    network: nn.Module = timm.create_model(
        "tf_efficientnet_lite0", pretrained=False, num_classes=classes
    )
    return network


def dequantised(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the float32 weights behind a state dict that is stored in fewer bits.

    A uint8 tensor ``NAME`` of shape [C, ...] has ``NAME_scale`` and ``NAME_zero``, float32 [C];
    its real values are ``scale * (NAME - zero)``. Float16 becomes float32. The rest stays.

    Args:
        state: name -> tensor.

    Returns:
        The same without scales and zeros.

    Raises:
        ValueError: a scale or zero is missing or has another shape.
    """
    found: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, value in state.items():
        if value.dtype != torch.uint8:
            found[name] = value.float() if value.dtype == torch.float16 else value
            continue
        parts = [state.get(name + suffix) for suffix in (_SCALE, _ZERO)]
        if any(part is None or part.shape != value.shape[:1] for part in parts):
            raise ValueError(
                f"build_encoder: weights must hold {name}{_SCALE} and {name}{_ZERO}, float32 "
                f"[{len(value)}], beside the uint8 tensor {name}"
            )
        shape = (-1, *[1] * (value.ndim - 1))
        scale, zero = (part.float().view(shape) for part in parts if part is not None)
        found[name] = scale * (value.float() - zero)
        used |= {name + _SCALE, name + _ZERO}
    return {name: value for name, value in found.items() if name not in used}
