"""Squeeze-and-excitation blocks that know whether an image is a sketch or a photo."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

# The first layers of timm's blocks, by their names in the block.
_FIRST, _SECOND = ("fc1", "conv_reduce"), ("fc2", "conv_expand")


class ModalityCondition(nn.Module):
    """Conditional squeeze and excitation: one network that treats sketches and photos apart.

    A tag, 1 for a photo and 0 for a sketch, joins the vector that a block squeezes out of its map.
    To the layer that takes this vector it is one more input, that is, a learned vector which is
    added for photos alone. The vectors start at zero: the network starts as it was pre-trained.

    Args:
        network: a network with squeeze-and-excitation blocks; hooks are put on their first layers.

    Raises:
        ValueError: the network has no such blocks.

    Source: CSE-ResNet50 of Lu et al., "Learning Large Euclidean Margin for Sketch-based Image
    Retrieval", arXiv 1812.04275, as SAKE and ClusterRetri use it. That the tag joins the first
    layer, and the start at zero, are our reading.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        layers = list(_first_layers(network))
        if not layers:
            raise ValueError(
                "ModalityCondition: network must have squeeze-and-excitation blocks, such as "
                f"timm:seresnet50 has, got a {type(network).__name__} without"
            )
        self.vectors = nn.ParameterList(
            nn.Parameter(torch.zeros(layer.out_channels)) for layer in layers
        )
        self._is_photo: Tensor | None = None
        for index, layer in enumerate(layers):
            layer.register_forward_hook(partial(self._add, index))

    def extra_repr(self) -> str:
        """Return the number of blocks, for ``repr``."""
        return f"{len(self.vectors)} blocks"

    @contextmanager
    def told(self, is_photo: Tensor) -> Iterator[None]:
        """Tell the blocks what the images are; without it all are sketches to them.

        Args:
            is_photo: bool [B], for the images that go through the network meanwhile.
        """
        self._is_photo = is_photo
        try:
            yield
        finally:
            self._is_photo = None

    def _add(self, index: int, layer: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        del layer, inputs
        if self._is_photo is None:
            return None
        tag = self._is_photo.to(output.dtype)[:, None, None, None]
        told: Tensor = output + tag * self.vectors[index][:, None, None]
        return told


def _first_layers(network: nn.Module) -> Iterator[nn.Conv2d]:
    for block in network.modules():
        children = dict(block.named_children())
        if not {"gate", "sigmoid"} & children.keys():
            continue  # blocks of transformers have layers of these names, too, but no gate
        for first, second in zip(_FIRST, _SECOND, strict=True):
            layer = children.get(first)
            if isinstance(layer, nn.Conv2d) and isinstance(children.get(second), nn.Conv2d):
                yield layer
