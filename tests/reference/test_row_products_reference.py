"""The specification of row_products against plain loops."""

from __future__ import annotations

import pytest
import torch

from zsbir_fast.reference.row_products import row_products, row_squares


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_score_is_a_chain(generator, dtype):
    left = torch.randn(3, 7, generator=generator, dtype=dtype)
    right = torch.randn(4, 7, generator=generator, dtype=dtype)
    scale, offset = right[:, 0].contiguous(), right[:, 1].contiguous()
    found = row_products(left, right, scale, offset)
    for q in range(3):
        for g in range(4):
            total = torch.zeros((), dtype=dtype)
            for d in range(7):
                total = total + left[q, d] * right[g, d]
            assert found[q, g] == total * scale[g] + offset[g]
    assert torch.equal(row_products(left, right), row_products(left, right, torch.ones(4), None))


def test_squares(generator):
    rows = torch.randn(5, 40, generator=generator)
    expected = [sum(float(x) ** 2 for x in row) for row in rows]
    assert row_squares(rows).tolist() == pytest.approx(expected, rel=1e-12)
    assert row_squares(rows).dtype == torch.float64
    assert row_squares(rows[:, :0]).tolist() == [0] * 5
