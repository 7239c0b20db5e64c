"""Helpers against overfitting on few seen classes; ours, used by several methods."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsbir_fast._arguments import as_share
from zsbir_fast.encoders.encoder import Encoder, Features


class FrozenCopy(nn.Module):
    """The encoder as it was when this was made; not trained, and not stored in checkpoints.

    Args:
        encoder: the encoder, before any training.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        # Buffers move with the module; non-persistent ones stay out of checkpoints.
        self.names = dict(enumerate(encoder.state_dict()))
        for index, name in self.names.items():
            value = encoder.state_dict()[name].detach().clone()
            self.register_buffer(f"tensor_{index}", value, persistent=False)

    @torch.no_grad()
    def forward(self, encoder: Encoder, images: Tensor) -> Features:
        """Features [B, N, D] and [B, D] of ``images`` as the copied encoder would give them.

        Args:
            encoder: the encoder in training, whose code is run with the copied weights in
                evaluation mode.
            images: [B, 3, H, W] float, normalised.
        """
        state = {name: self.get_buffer(f"tensor_{index}") for index, name in self.names.items()}
        training = encoder.training
        encoder.eval()
        features: Features = torch.func.functional_call(encoder, state, (images,))
        encoder.train(training)
        return features


class DomainMeans(nn.Module):
    """Running mean embedding of each modality over the training batches.

    Args:
        width: embedding width D.
        momentum: share of the old mean in each update, 0 to below 1; the start is bias-corrected.

    Raises:
        ValueError: ``momentum`` is out of range.
    """

    sketch: Tensor
    photo: Tensor
    updates: Tensor

    def __init__(self, width: int, *, momentum: float = 0.95) -> None:
        super().__init__()
        self.momentum = as_share("DomainMeans", "momentum", momentum)
        if self.momentum == 1:
            raise ValueError(f"DomainMeans: momentum must be below 1, got {momentum}")
        self.register_buffer("sketch", torch.zeros(width))
        self.register_buffer("photo", torch.zeros(width))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, sketches: Tensor, photos: Tensor) -> None:
        """Take in a batch of features [B, D] of each modality; they are L2-normalised here.

        A batch with a feature that is not finite is left out: it would stay in the means for ever.
        """
        batch = torch.stack(
            [F.normalize(x.to(self.sketch.dtype), dim=1).mean(0) for x in (sketches, photos)]
        )
        finite = torch.isfinite(batch).all()
        self.updates += finite
        # The clamp is for updates == 0, where the share is not used.
        updates = self.updates.clamp_min(1).to(self.sketch.dtype)
        share = (1 - self.momentum) / (1 - self.momentum**updates)
        for mean, of_batch in zip((self.sketch, self.photo), batch, strict=True):
            mean.copy_(torch.where(finite, mean.lerp(of_batch, share), mean))

    def centre(self, embeddings: Tensor, modality: Literal["sketch", "photo"]) -> Tensor:
        """Subtract the modality's mean from [B, D] unit rows and normalise again."""
        mean = self.sketch if modality == "sketch" else self.photo
        return F.normalize(embeddings - mean, dim=1)
