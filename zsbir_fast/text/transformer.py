"""A small transformer over the words of classes, trained with the method that uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from zsbir_fast._arguments import as_integer, as_share


class ContextualText(NamedTuple):
    """Words of C classes that have seen each other.

    Attributes:
        tokens: [C, L, D], zero where there is no word.
        global_: [C, D], the class as a whole.
    """

    tokens: Tensor
    global_: Tensor


class TextTransformer(nn.Module):
    """Lets the words of a class attend to each other, and sums them up.

    The words are projected to ``width``; a learned summary token joins them; pre-norm layers and
    a last norm follow. There are no positions: the words of a description are a set. Its weights
    start at random and are trained with the method.

    Args:
        text_width: of the words that come in.
        width: of the words that go out.
        layers: at least 1.
        heads: of each layer; they divide ``width``.
        hidden: width of the feed-forward parts; default: four times ``width``.
        dropout: in each layer, in training.

    Raises:
        TypeError: a number is of another type.
        ValueError: one is out of range, or the heads do not divide the width.

    Source: Su et al., CMAAN, arXiv 2407.00979, names a transformer for the tokens of the sentences;
    its form is our reading. Layers: Vaswani et al., arXiv 1706.03762, with the norms in front.
    """

    def __init__(
        self,
        text_width: int,
        *,
        width: int = 256,
        layers: int = 2,
        heads: int = 4,
        hidden: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        name = "TextTransformer"
        for argument, value in (
            ("text_width", text_width),
            ("width", width),
            ("layers", layers),
            ("heads", heads),
        ):
            as_integer(name, argument, value, least=1)
        if width % heads:
            raise ValueError(f"{name}: heads must divide width, got {heads} for {width}")
        hidden = 4 * width if hidden is None else as_integer(name, "hidden", hidden, least=1)
        as_share(name, "dropout", dropout)
        self.project = nn.Linear(text_width, width)
        self.summary = nn.Parameter(0.02 * torch.randn(width))
        layer = nn.TransformerEncoderLayer(
            width, heads, hidden, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False
        )
        # The copies of a layer start with the same weights, which would learn alike.
        for copy in self.layers.layers:
            for parameter in copy.parameters():
                if parameter.ndim > 1:
                    nn.init.xavier_uniform_(parameter)

    def forward(self, tokens: Tensor, mask: Tensor) -> ContextualText:
        """Contextualise the words of every class.

        Args:
            tokens: [C, L, text_width] float.
            mask: [C, L] bool, True where there is a word.

        Returns:
            Words [C, L, width] and wholes [C, width]; a class without words has the summary token
            alone.
        """
        summary = self.summary.expand(len(tokens), 1, -1)
        sequence = torch.cat([summary, self.project(tokens)], 1)
        padding = torch.cat([mask.new_zeros(len(mask), 1), ~mask], 1)
        seen = self.layers(sequence, src_key_padding_mask=padding)
        return ContextualText(seen[:, 1:].masked_fill(~mask[:, :, None], 0), seen[:, 0])

    if TYPE_CHECKING:  # nn.Module would say Any
        __call__ = forward
