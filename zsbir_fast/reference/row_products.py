"""Products of all rows of two matrices as scores, by their definition: one chain over the width.

Every step is elementwise, so that the bits of a score depend on its two rows and on nothing else.
The kernels add by fused multiply-adds, which round once where this rounds twice.
"""

from __future__ import annotations

import torch
from torch import Tensor


def row_products(
    left: Tensor, right: Tensor, scale: Tensor | None = None, offset: Tensor | None = None
) -> Tensor:
    """``left @ right.T * scale + offset``.

    Args:
        left: floating, [Q, D].
        right: [G, D].
        scale: [G]; None: 1.
        offset: [G]; None: 0.

    Returns:
        [Q, G].
    """
    out = left.new_zeros(left.shape[0], right.shape[0])
    for x, y in zip(left.unbind(1), right.unbind(1), strict=True):
        out += x[:, None] * y[None, :]
    if scale is not None:
        out *= scale
    if offset is not None:
        out += offset
    return out


def row_squares(rows: Tensor) -> Tensor:
    """Sums of squares of every row, float64 [G].

    Sixteen chains, one for each remainder of the feature's number, are added in a tree.
    """
    lanes = torch.zeros(len(rows), 16, dtype=torch.float64, device=rows.device)
    for first in range(0, rows.shape[1], 16):
        chunk = rows[:, first : first + 16].double()
        lanes[:, : chunk.shape[1]] += chunk * chunk
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]
