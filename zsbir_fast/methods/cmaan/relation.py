"""The relation network: how well two images fit each other, from the cosines of their tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zsbir_fast._arguments import as_integer, as_share
from zsbir_fast.encoders.encoder import Encoder
from zsbir_fast.reference.token_weighting import unit_rows

_BLOCK_BYTES = 32 << 20
"""Cosines of the pairs that are scored at once."""


class TokenReduction(nn.Module):
    """Makes few tokens of many: a convolution over their grid, without overlap.

    Args:
        width: of the tokens.
        tokens: N, a square number.
        reduced: width of the new tokens.
        largest_grid: side of the new grid at most; the convolution's side is the quotient, 2 for
            the 14 x 14 patches of ViT-B/16.
        raw_view: read the tokens as if they were channels by rows by columns, as the code of
            ZSE-SBIR does, which mixes positions and channels. For its published weights alone.

    Attributes:
        count: tokens that come out.

    Raises:
        ValueError: the tokens form no square grid, or an option is out of range.

    Source: ZSE-SBIR, Lin et al., CVPR 2023, and its public code.
    """

    def __init__(
        self,
        width: int,
        tokens: int,
        *,
        reduced: int = 512,
        largest_grid: int = 7,
        raw_view: bool = False,
    ) -> None:
        super().__init__()
        name = "TokenReduction"
        as_integer(name, "reduced", reduced, least=1)
        as_integer(name, "largest_grid", largest_grid, least=1)
        side = math.isqrt(tokens)
        if side * side != tokens:
            raise ValueError(f"{name}: tokens must be a square number, got {tokens}")
        step = math.ceil(side / largest_grid)
        self.side = side
        self.raw_view = raw_view
        self.count = (side // step) ** 2
        self.convolution = nn.Conv2d(width, reduced, step, step)

    def extra_repr(self) -> str:
        """Return the number of tokens, for ``repr``."""
        return f"{self.side**2} tokens to {self.count}, raw_view={self.raw_view}"

    def forward(self, tokens: Tensor) -> Tensor:
        """Reduce tokens [B, N, D] to [B, count, reduced]."""
        batch, _, width = tokens.shape
        channels_first = tokens if self.raw_view else tokens.mT
        grid = channels_first.reshape(batch, width, self.side, self.side)
        return self.convolution(grid).flatten(2).mT  # type: ignore[no-any-return]


class RelationNetwork(nn.Module):
    """Scores pairs of images from 0 to 1.

    Args:
        tokens: of each image, n; the layers have n², 7 n, n and 1 numbers, which for n = 49 are
            those of ZSE-SBIR.
        dropout: after each hidden layer, in training.

    Raises:
        ValueError: an option is out of range.

    Source: ZSE-SBIR, Lin et al., CVPR 2023, and its public code. That CMAAN (arXiv 2407.00979) has
    the same is our reading.
    """

    def __init__(self, tokens: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        as_share("RelationNetwork", "dropout", dropout)
        self.tokens = tokens
        self.layers = nn.Sequential(
            nn.Linear(tokens * tokens, 7 * tokens),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(7 * tokens, tokens),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(tokens, 1),
        )

    def forward(self, sketches: Tensor, photos: Tensor) -> Tensor:
        """Score pairs.

        Args:
            sketches: [B, n, D] tokens; a zero vector has the cosine 0 with everything.
            photos: [B, n, D].

        Returns:
            [B], in 0..1.
        """
        cosines = unit_rows(sketches) @ unit_rows(photos).mT
        return torch.sigmoid(self.layers(cosines.flatten(1)).squeeze(1))

    def scores(self, sketches: Tensor, photos: Tensor) -> Tensor:
        """Score all pairs of two sets, in blocks of 32 MiB of cosines.

        Args:
            sketches: [Q, n, D].
            photos: [G, n, D].

        Returns:
            [Q, G], in 0..1.
        """
        found = sketches.new_empty(len(sketches), len(photos))
        unit = unit_rows(photos)
        size = max(1, _BLOCK_BYTES // (4 * self.tokens**2))
        for row, sketch in enumerate(unit_rows(sketches)):
            for start in range(0, len(photos), size):
                block = unit[start : start + size]
                cosines = torch.einsum("nd,gmd->gnm", sketch, block).flatten(1)
                found[row, start : start + size] = self.layers(cosines).squeeze(1).sigmoid()
        return found


def token_count(encoder: Encoder) -> int:
    """Count the tokens that an encoder makes of an image, with a pass of zeros.

    Args:
        encoder: the encoder.
    """
    training = encoder.training
    encoder.eval()
    image = next(encoder.parameters()).new_zeros(1, 3, encoder.image_size, encoder.image_size)
    with torch.no_grad():
        tokens, _ = encoder(image)
    encoder.train(training)
    return tokens.shape[1]
