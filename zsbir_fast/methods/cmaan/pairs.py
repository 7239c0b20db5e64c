"""Pairs of images that exchange tokens with a text, with each other, or with nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from zsbir_fast.methods.cmaan.exchange import ExchangeBlock
from zsbir_fast.methods.cmaan.options import ExchangeOptions


class Text(NamedTuple):
    """The tokens of some classes' texts.

    Attributes:
        tokens: [C, L, D].
        mask: bool [C, L], True where there is a token.
    """

    tokens: Tensor
    mask: Tensor

    def of(self, classes: Tensor) -> Text:
        """Give the texts of the classes [B]."""
        return Text(self.tokens[classes], self.mask[classes])


class Exchanged(NamedTuple):
    """Pairs after the exchange.

    Attributes:
        sketches: [B, 1 + N, D], the global token first.
        photos: [B, 1 + N, D].
        sketch_words: tokens of the text that took in the sketch, or None.
        photo_words: those that took in the photo, or None.
    """

    sketches: Tensor
    photos: Tensor
    sketch_words: Text | None
    photo_words: Text | None


class Exchange(nn.Module):
    """Layers of cross-attention; each modality has its own, and so have the words for it.

    Args:
        width: of all tokens.
        options: partner, style and sizes.
        words: whether the text takes in the images, too.
    """

    def __init__(self, width: int, options: ExchangeOptions, *, words: bool) -> None:
        super().__init__()
        self.partner = options.partner
        streams = [] if self.partner == "none" else ["sketch", "photo"]
        if words and self.partner == "text":
            streams += ["sketch_words", "photo_words"]
        self.streams = nn.ModuleDict(
            {
                name: nn.ModuleList(
                    ExchangeBlock(
                        width,
                        heads=options.heads,
                        hidden=options.hidden,
                        dropout=options.dropout,
                        style=options.style,
                    )
                    for _ in range(options.layers)
                )
                for name in streams
            }
        )

    def forward(
        self, sketches: Tensor, photos: Tensor, sketch_text: Text | None, photo_text: Text | None
    ) -> Exchanged:
        """Let pairs exchange.

        Args:
            sketches: [B, 1 + N, D].
            photos: [B, 1 + N, D].
            sketch_text: the text that each sketch meets; for the partner ``"text"``.
            photo_text: the text that each photo meets.
        """
        if self.partner == "image":
            return Exchanged(*self._both("sketch", "photo", sketches, photos), None, None)
        if sketch_text is None or photo_text is None or self.partner == "none":
            return Exchanged(sketches, photos, None, None)
        sketches, sketch_words = self._with_text("sketch", sketches, sketch_text)
        photos, photo_words = self._with_text("photo", photos, photo_text)
        return Exchanged(sketches, photos, sketch_words, photo_words)

    def _with_text(self, modality: str, images: Tensor, text: Text) -> tuple[Tensor, Text]:
        words = f"{modality}_words"
        images, tokens = self._both(modality, words, images, text.tokens, second_mask=text.mask)
        return images, Text(tokens, text.mask)

    def _both(
        self,
        first: str,
        second: str,
        a: Tensor,
        b: Tensor,
        *,
        second_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Pass two sequences through their streams; a layer sees both as they were before it."""
        for number, layer in enumerate(self._layers(first)):
            taken = self._layers(second)[number](b, a) if second in self.streams else b
            a, b = layer(a, b, second_mask), taken
        return a, b

    def _layers(self, stream: str) -> Sequence[nn.Module]:
        return cast("Sequence[nn.Module]", self.streams[stream])


def sequence(tokens: Tensor, global_: Tensor) -> Tensor:
    """Put the global feature [B, D] before the tokens [B, N, D]."""
    return torch.cat([global_[:, None], tokens], dim=1)
