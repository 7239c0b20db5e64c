"""One call for sketches and photos, whatever the encoders behind it share."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zsbir_fast.data.image_spec import ImageSpec, Modality, check_modality
from zsbir_fast.encoders.encoder import Encoder, Features
from zsbir_fast.encoders.lora import merge_lora


class ModalityEncoder(nn.Module):
    """Encodes sketches and photos: by one encoder, by one with parts for each, or by two.

    Methods call this and need not know which. :meth:`EncoderOptions.build_for_modalities` makes it.
    An encoder that is shared as a whole keeps the names that its parameters have as an
    :class:`Encoder`: what was stored of one loads into the other.

    Args:
        encoder: the encoder, tuned; its layers become those of this module.
        shared: False: sketches get a copy of it. Parameters begin with ``sketch.`` and ``photo.``.
        per_modality: photos get a copy of those parameters that are trained, ``photo_parts``; the
            encoder's own are those of sketches. Frozen parameters, and buffers, are shared.
        tuned: what of it is trained, in words.

    Attributes:
        tells_apart: whether sketches and photos are treated differently at all.
        tuned: what is trained, in words.

    Raises:
        ValueError: both, parts of their own and two encoders.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        shared: bool = True,
        per_modality: bool = False,
        tuned: str = "all of the encoder",
    ) -> None:
        super().__init__()
        if per_modality and not shared:
            raise ValueError("ModalityEncoder: shared must be True with per_modality, got False")
        self.tells_apart = per_modality or not shared
        self.tuned = tuned
        # Not registered as modules: their layers are, under the names that they always had.
        self._encoders = {"sketch": encoder, "photo": encoder}
        if shared:
            for name, child in encoder.named_children():
                self.add_module(name, child)
        else:
            self._encoders["sketch"] = copy.deepcopy(encoder)
            for name, each in self._encoders.items():
                self.add_module(name, each)
            self.tuned += ", two encoders"
        self._own: tuple[str, ...] = ()
        if per_modality:
            trained = {n: p for n, p in encoder.named_parameters() if p.requires_grad}
            self._own = tuple(trained)
            self.photo_parts = nn.ParameterList(p.detach().clone() for p in trained.values())
            self.tuned += ", one set for sketches and one for photos"

    def extra_repr(self) -> str:
        """Return the encoder's own text and what is trained, for ``repr``."""
        return f"{self.of_photos.extra_repr()}\ntrained: {self.tuned}"

    @property
    def of_photos(self) -> Encoder:
        """The encoder behind photos; where parts alone are apart, the body with those of sketches.

        Its parameters are parameters of this module.
        """
        return self._encoders["photo"]

    @property
    def width(self) -> int:
        """Feature width D, of tokens and global feature alike."""
        return self.of_photos.width

    @property
    def image_size(self) -> int:
        """Height and width of the square images that the weights expect, in pixels."""
        return self.of_photos.image_size

    @property
    def spec(self) -> ImageSpec:
        """Size and normalisation of the input, as the image transforms take them."""
        return self.of_photos.spec

    @property
    def head(self) -> nn.Module | None:
        """The layer with the ImageNet classes, behind photos; see :attr:`Encoder.head`."""
        return self.of_photos.head

    def takes(self, size: int) -> bool:
        """Whether images of another size pass through, see :meth:`Encoder.takes`."""
        return self.of_photos.takes(size)

    def train(self, mode: bool = True) -> ModalityEncoder:
        """Set training or evaluation mode; frozen batch norm stays in evaluation mode.

        Args:
            mode: training or not.

        Returns:
            This module.
        """
        super().train(mode)
        for encoder in self._encoders.values():
            encoder.train(mode)
        return self

    def forward(self, images: Tensor, modality: Modality | None = None) -> Features:
        """Encode images of one modality.

        Args:
            images: [B, 3, H, W] float, normalised as :attr:`spec` says.
            modality: ``"sketch"`` or ``"photo"``; None where both are treated alike.

        Returns:
            Tokens [B, N, D] and global features [B, D].

        Raises:
            ValueError: another modality, or none where they are treated differently.
        """
        if modality is None and not self.tells_apart:
            return self.of_photos(images)
        encoder = self._encoders[check_modality("ModalityEncoder", modality)]  # type: ignore[arg-type]
        if modality == "photo" and self._own:
            features: Features = torch.func.functional_call(encoder, self._photo_state(), (images,))
            return features
        return encoder(images)

    def both(self, sketches: Tensor, photos: Tensor) -> tuple[Features, Features]:
        """Encode sketches and photos, in one pass where they are treated alike.

        Args:
            sketches: [S, 3, H, W] float, normalised.
            photos: [P, 3, H, W] float, normalised, of the same height and width.

        Returns:
            Features of the sketches, and of the photos.
        """
        if self.tells_apart:
            return self(sketches, "sketch"), self(photos, "photo")
        features = self.of_photos(torch.cat([sketches, photos]))
        counts = [len(sketches), len(photos)]
        of_sketches, of_photos = zip(*(torch.split(part, counts) for part in features), strict=True)
        return Features(*of_sketches), Features(*of_photos)

    def mixed(self, images: Tensor, is_photo: Tensor) -> Features:
        """Encode a batch that holds both, in one pass where they are treated alike.

        Args:
            images: [B, 3, H, W] float, normalised; B at least 1.
            is_photo: bool [B].

        Returns:
            Features in the order of the images.
        """
        if not self.tells_apart:
            return self.of_photos(images)
        rows = {"sketch": (~is_photo).nonzero()[:, 0], "photo": is_photo.nonzero()[:, 0]}
        found = [
            self(images[held], "photo" if modality == "photo" else "sketch")
            for modality, held in rows.items()
            if len(held)
        ]
        back = torch.cat(list(rows.values())).argsort()
        return Features(*(torch.cat(parts)[back] for parts in zip(*found, strict=True)))

    def logits(self, global_: Tensor) -> Tensor:
        """Scores [B, 1000] of the ImageNet classes of photos, see :meth:`Encoder.logits`.

        Args:
            global_: [B, D] global features of photos.

        Raises:
            RuntimeError: the encoder was built without its head.
        """
        if not self._own:
            return self.of_photos.logits(global_)
        state = {f"encoder.{name}": value for name, value in self._photo_state().items()}
        scores: Tensor = torch.func.functional_call(EncoderHead(self.of_photos), state, (global_,))
        return scores

    def plain(self, modality: Modality) -> Encoder:
        """Give an encoder of one modality that needs nothing beside it, for use elsewhere.

        Low-rank additions are merged into the weights of their layers; the rest keeps its form.

        Args:
            modality: ``"sketch"`` or ``"photo"``.

        Returns:
            A copy with the same embeddings to rounding. Its layers and their names are those of
            the encoder before it was tuned, with ``prompts`` where there are any.

        Raises:
            ValueError: another modality, or an encoder with a :class:`ModalityCondition`, which
                has to be told the modality of each image.
        """
        if "condition" in self._modules:
            raise ValueError(
                "ModalityEncoder.plain: encoder must treat all images alike, got one with a "
                "ModalityCondition"
            )
        encoder = copy.deepcopy(self._encoders[check_modality("ModalityEncoder.plain", modality)])
        if modality == "photo" and self._own:
            encoder.load_state_dict(self._photo_state(), strict=False)
        return merge_lora(encoder)

    def _photo_state(self) -> dict[str, Tensor]:
        return dict(zip(self._own, self.photo_parts, strict=True))

    if TYPE_CHECKING:  # nn.Module would say Any
        __call__ = forward


class EncoderHead(nn.Module):
    """The head of an encoder as a module, whose weights can be exchanged for a call.

    Args:
        encoder: the encoder, built with its head.
    """

    def __init__(self, encoder: Encoder | ModalityEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, features: Tensor) -> Tensor:
        """Give the scores [B, K] for global features [B, D]."""
        return self.encoder.logits(features)
