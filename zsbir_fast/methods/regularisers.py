"""Helpers that several methods share: a frozen copy, noise, embeddings; centring is ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsbir_fast._arguments import as_number, as_share
from zsbir_fast._words import shown
from zsbir_fast.data.image_spec import Modality, check_modality
from zsbir_fast.encoders.encoder import Encoder, Features
from zsbir_fast.encoders.modality_encoder import EncoderHead
from zsbir_fast.encoders.tuning import untuned_state


class FrozenCopy(nn.Module):
    """The encoder as it was when this was made; not trained, and not stored in checkpoints.

    The copy has no prompts: it is the network as it was before it was tuned.

    Args:
        encoder: the encoder, before any training.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        # Buffers move with the module; non-persistent ones stay out of checkpoints.
        state = untuned_state(encoder)
        self.names = dict(enumerate(state))
        for index, name in self.names.items():
            value = state[name].detach().clone()
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

    def logits(
        self, encoder: Encoder, features: Tensor, *, head: nn.Module | None = None
    ) -> Tensor:
        """ImageNet logits [B, K] as the copied encoder would give them, without gradient.

        Args:
            encoder: the encoder in training, built with its head.
            features: [B, D] global features of the copied encoder.
            head: replaces the copied head, a layer of the same form; gradients reach it.
        """
        state = {
            f"encoder.{name}": self.get_buffer(f"tensor_{index}")
            for index, name in self.names.items()
        }
        if head is not None:
            place = next(name for name, part in encoder.named_modules() if part is encoder.head)
            state |= {f"encoder.{place}.{name}": value for name, value in head.named_parameters()}
        found: Tensor = torch.func.functional_call(EncoderHead(encoder), state, (features,))
        return found


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


class UnitEmbedding(nn.Module):
    """Features as embeddings: of length 1, mirrored and centred where it is asked for.

    Args:
        width: feature width D.
        centre: subtract the modality's mean embedding of the seen classes (a running mean over the
            training batches) and normalise again.
        mirror: sum the embeddings of an image and of its mirror image, which doubles the time.
        mirror_scale: the mirror image is made larger by this factor.

    Raises:
        ValueError: ``mirror_scale`` is not in 0.25..4.
    """

    def __init__(
        self, width: int, *, centre: bool, mirror: bool, mirror_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.mirror = mirror
        self.mirror_scale = as_number("UnitEmbedding", "mirror_scale", mirror_scale)
        if not 0.25 <= self.mirror_scale <= 4:
            raise ValueError(
                f"UnitEmbedding: mirror_scale must be in 0.25..4, got {shown(mirror_scale)}"
            )
        self.means = DomainMeans(width) if centre else None

    def extra_repr(self) -> str:
        """Return the options, for ``repr``."""
        scale = f", mirror_scale={self.mirror_scale:g}" if self.mirror_scale != 1 else ""
        return f"centre={self.means is not None}, mirror={self.mirror}{scale}"

    def forward(
        self, features: Callable[[Tensor], Tensor], images: Tensor, modality: Modality
    ) -> Tensor:
        """Embed images.

        Args:
            features: images [B, 3, H, W] -> features [B, D].
            images: [B, 3, H, W] float, normalised.
            modality: that of all images; matters with ``centre`` only.

        Returns:
            float32 [B, D], L2-normalised.

        Raises:
            ValueError: another modality.
        """
        check_modality("embed", modality)
        embeddings = F.normalize(features(images).float(), dim=1)
        if self.mirror:
            mirrored = F.normalize(features(self._mirror_image(images)).float(), dim=1)
            embeddings = F.normalize(embeddings + mirrored, dim=1)
        return embeddings if self.means is None else self.means.centre(embeddings, modality)

    if TYPE_CHECKING:  # nn.Module would say Any
        __call__ = forward

    def require_scale(self, method: str, encoder: Encoder) -> None:
        """Refuse a mirror image of another size where the encoder takes one size alone.

        Args:
            method: named in the error.
            encoder: what embeds the images.

        Raises:
            ValueError: it takes images of one size alone.
        """
        size = round(encoder.image_size * self.mirror_scale)
        if self.mirror_scale != 1 and not encoder.takes(size):
            raise ValueError(
                f"{method}: mirror_scale must be 1 for an encoder that takes images of "
                f"{encoder.image_size} pixels alone, got {self.mirror_scale}"
            )

    def _mirror_image(self, images: Tensor) -> Tensor:
        mirrored = images.flip(3)
        if self.mirror_scale == 1:
            return mirrored
        size = [max(1, round(side * self.mirror_scale)) for side in images.shape[2:]]
        return F.interpolate(mirrored, size, mode="bilinear", align_corners=False, antialias=True)

    def learn(self, sketches: Tensor, photos: Tensor) -> None:
        """Take in training features, [n, D] and [m, D], if embeddings are centred."""
        if self.means is not None:
            self.means.update(sketches, photos)


class StepNoise:
    """Standard normal numbers that follow from the step alone.

    They are the same on all processes, and after a resume as they would have been: the seed is
    drawn when this is made, from the global random numbers, which a run seeds alike on all
    processes before it builds its model.
    """

    def __init__(self) -> None:
        self.seed = int(torch.randint(1 << 40, ()))
        self._last = (-1, 0)

    def draw(self, step: int, like: Tensor) -> Tensor:
        """Draw numbers of the shape, type and device of ``like``.

        Args:
            step: optimizer steps done; a further draw of the same step gives other numbers.
            like: [B, D].
        """
        last, draws = self._last
        self._last = (step, draws + 1 if step == last else 0)
        generator = torch.Generator().manual_seed(hash((self.seed, *self._last)) % (1 << 63))
        return torch.randn(like.shape, generator=generator).to(like)
