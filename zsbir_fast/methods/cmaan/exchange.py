"""Cross-attention by which one sequence of tokens takes in another."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsbir_fast._arguments import as_integer, as_share, check_choice

Style = Literal["standard", "zse"]


class UnbiasedLayerNorm(nn.Module):
    """Layer norm that divides by the unbiased standard deviation plus epsilon, as ZSE-SBIR's does.

    Args:
        width: of the tokens.
        eps: added to the standard deviation.
    """

    def __init__(self, width: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [..., D] over its last axis; D of 1 gives NaN, as no deviation is defined."""
        deviation = x.std(-1, keepdim=True)
        return self.weight * (x - x.mean(-1, keepdim=True)) / (deviation + self.eps) + self.bias


class ExchangeBlock(nn.Module):
    """One layer of cross-attention and a feed-forward part, each with a residual and a norm after.

    ``"standard"``: the tokens ask, the others are keys and values. ``"zse"`` is what the code of
    ZSE-SBIR computes: the others are keys alone, the values are the tokens' own, and so both
    sequences must be of one length; its norm divides by the unbiased deviation.

    Args:
        width: of all tokens.
        heads: of the attention; must divide the width.
        hidden: width of the feed-forward part.
        dropout: share of attention weights, and of the outputs of both parts, that is dropped in
            training.
        style: ``"standard"`` or ``"zse"``.

    Raises:
        ValueError: an option is out of range.

    Source: CMAAN, arXiv 2407.00979 (cross-attention exchanges tokens; the equations are our
    reading); ZSE-SBIR, Lin et al., CVPR 2023, and its public code.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int = 8,
        hidden: int = 1024,
        dropout: float = 0.1,
        style: Style = "standard",
    ) -> None:
        super().__init__()
        name = "ExchangeBlock"
        self.heads = as_integer(name, "heads", heads, least=1)
        as_integer(name, "hidden", hidden, least=1)
        self.dropout = as_share(name, "dropout", dropout)
        check_choice(name, "style", style, Style)
        if width % self.heads:
            raise ValueError(f"{name}: heads must divide the width {width}, got {heads}")
        self.style: Style = style
        norm = UnbiasedLayerNorm if style == "zse" else nn.LayerNorm
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.norm_attended, self.norm_fed = norm(width), norm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )
        self.drop = nn.Dropout(dropout)

    def extra_repr(self) -> str:
        """Return the options that are no modules, for ``repr``."""
        return f"heads={self.heads}, style={self.style!r}"

    def forward(self, tokens: Tensor, others: Tensor, mask: Tensor | None = None) -> Tensor:
        """Let tokens take in others.

        Args:
            tokens: [B, N, D].
            others: [B, L, D].
            mask: bool [B, L], True for the others that are there, at least one of each row; None:
                all of them.

        Returns:
            [B, N, D].

        Raises:
            ValueError: with ``"zse"`` the sequences differ in length.
        """
        if self.style == "zse" and tokens.shape[1] != others.shape[1]:
            raise ValueError(
                "ExchangeBlock: style 'zse' must have as many others as tokens, as the values are "
                f"the tokens' own, got {others.shape[1]} and {tokens.shape[1]}"
            )
        values = tokens if self.style == "zse" else others
        query, key, value = (
            linear(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for linear, x in ((self.query, tokens), (self.key, others), (self.value, values))
        )
        found = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if mask is None else mask[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
        )
        attended = self.output(found.transpose(1, 2).flatten(2))
        x = self.norm_attended(tokens + self.drop(attended))
        return self.norm_fed(x + self.drop(self.feed(x)))  # type: ignore[no-any-return]
