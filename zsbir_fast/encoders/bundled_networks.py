"""The encoders that ship with the package."""

from __future__ import annotations

from torch import nn

from zsbir_fast._words import shown
from zsbir_fast.data import bundled
from zsbir_fast.encoders import efficientnet_lite, mobilenet_v2
from zsbir_fast.encoders.encoder import Encoder, FeatureMapEncoder, TimmFeatureMapEncoder
from zsbir_fast.encoders.weight_files import (
    IMAGENET_CLASSES,
    is_weight_file,
    load_weights,
    read_weight_file,
)

BUNDLED = ("mobilenet_v2", "efficientnet_lite0")
"""Names after ``bundled:``."""

_FILES = {
    "mobilenet_v2": "mobilenet_v2_1.0_224_imagenet_uint8.npz",
    "efficientnet_lite0": "tf_efficientnet_lite0_imagenet_uint8.safetensors",
}
_MOBILENET_MEAN = 128 / 255  # (x * 255 - 128) / 128 for pixels x in 0..1


def build_bundled(model: str, weights: str | None, image_size: int | None, head: bool) -> Encoder:
    """Build a bundled encoder.

    Args:
        model: one of ``BUNDLED``.
        weights: None, ``"imagenet"`` or a local file.
        image_size: side of the images in pixels; None: 224.
        head: keep the ImageNet head.

    Returns:
        The encoder.

    Raises:
        ValueError, FileNotFoundError: as :func:`build_encoder`.
    """
    size, classes = image_size or 224, IMAGENET_CLASSES if head else 0
    if model == "mobilenet_v2":
        network: nn.Module = mobilenet_v2.MobileNetV2(classes=classes)
        _load(network, model, weights, head=head)
        pixel = (_MOBILENET_MEAN,) * 3
        return FeatureMapEncoder(
            network,
            channels_last=False,
            width=mobilenet_v2.WIDTH,
            image_size=size,
            mean=pixel,
            std=pixel,
        )
    network = efficientnet_lite.efficientnet_lite0(classes=classes)
    _load(network, model, weights, head=head)
    half = (0.5,) * 3
    return TimmFeatureMapEncoder(
        network,
        own_pooling=True,
        channels_last=False,
        width=efficientnet_lite.WIDTH,
        image_size=size,
        mean=half,
        std=half,
    )


def _load(network: nn.Module, model: str, weights: str | None, *, head: bool) -> None:
    if weights is None:
        return
    if weights == "imagenet":
        weights = str(bundled.path("weights") / _FILES[model])
    elif not is_weight_file(weights):
        raise ValueError(
            "build_encoder: weights must be None, 'random', 'imagenet' or a local file for a "
            f"bundled network, got {shown(weights)}"
        )
    if model == "mobilenet_v2" and weights.endswith(".npz"):
        state = mobilenet_v2.read_uint8_weights(weights)
    else:
        state = read_weight_file(weights)
    if model == "efficientnet_lite0":
        state = efficientnet_lite.dequantised(state)
    load_weights(network, state, source=weights, ignore=() if head else ("classifier.",))
