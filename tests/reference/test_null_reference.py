"""The specification of null against loops."""

from __future__ import annotations

import pytest
import torch

from zsbir_fast.reference.null import null


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_element_stays(generator: torch.Generator, dtype: torch.dtype) -> None:
    rows = torch.randn(3, 4, generator=generator, dtype=dtype)
    found = null(rows)
    assert found is not rows
    for b in range(3):
        for d in range(4):
            assert found[b, d] == rows[b, d]
