# NOTE TO THE DATA ENGINEER: stop-gap by the lead, to keep others going; overwrite with yours.
"""Class names as text tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from zsbir_fast.data import bundled


class ClassText:
    """Tokens of class names from the bundled GloVe vectors."""

    def __init__(self, classes: Sequence[str], *, source: str = "glove") -> None:
        vectors: dict[str, torch.Tensor] = {}
        for file in sorted(bundled.path("class_vectors").glob("*.npz")):
            with np.load(file, allow_pickle=False) as stored:
                for name, vector in zip(stored["names"], stored["vectors"], strict=True):
                    vectors[str(name)] = torch.from_numpy(vector.astype(np.float32))
        rows = []
        for name in classes:
            vector = vectors.get(name)
            if vector is None:
                seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
                vector = torch.randn(300, generator=torch.Generator().manual_seed(seed))
            rows.append(torch.nn.functional.normalize(vector, dim=0))
        self.tokens = torch.stack(rows)[:, None]
        self.mask = torch.ones(len(rows), 1, dtype=torch.bool)
        self.global_ = self.tokens[:, 0]
        self.words = [[name] for name in classes]
