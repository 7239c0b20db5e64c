"""The settings of an image encoder, as every method that has one takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zsbir_fast.encoders.encoder import Encoder


@dataclass(frozen=True)
class EncoderOptions:
    """Which image encoder, and the weights that it starts from.

    Attributes:
        name: encoder name, see :func:`zsbir_fast.build_encoder`.
        weights: a tag of the model zoo, a local file, or ``random``.
        image_size: side of the images in pixels; default: the size that the encoder expects.
        freeze_batch_norm: keep the running statistics of batch norm as they are, in training, too.
    """

    name: str = "bundled:mobilenet_v2"
    weights: str | None = "imagenet"
    image_size: int | None = None
    freeze_batch_norm: bool = True

    def build(self, *, head: bool = False) -> Encoder:
        """Build it.

        Args:
            head: keep the layer with the ImageNet classes, see :attr:`Encoder.head`.

        Raises:
            ValueError, TypeError, FileNotFoundError, RuntimeError: as
                :func:`zsbir_fast.build_encoder`.
        """
        from zsbir_fast.encoders.build import build_encoder

        return build_encoder(
            self.name,
            weights=self.weights,
            image_size=self.image_size,
            freeze_batch_norm=self.freeze_batch_norm,
            head=head,
        )

    @property
    def is_pretrained(self) -> bool:
        """Whether it starts from weights, not from random numbers."""
        return self.weights not in (None, "random")
