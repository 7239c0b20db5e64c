"""Classification of the seen classes by cosine, without a bias."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CosineClassifier(nn.Module):
    """Cross-entropy of cosines between features and one learned direction per class.

    Args:
        width: feature width D.
        classes: number of seen classes C.
        temperature: divides the cosines.

    Raises:
        ValueError: ``temperature`` is not positive.

    Source: normalised softmax, Wang et al., arXiv 1704.06369.
    """

    def __init__(self, width: int, classes: int, *, temperature: float = 0.05) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"CosineClassifier: temperature must be positive, got {temperature}")
        self.temperature = temperature
        self.weight = nn.Parameter(torch.randn(classes, width) / width**0.5)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy.

        Args:
            features: [B, D] float, L2-normalised here.
            labels: [B] int64 in [0, C).

        Returns:
            Scalar.
        """
        logits = F.normalize(features, dim=1) @ F.normalize(self.weight, dim=1).T
        return F.cross_entropy(logits / self.temperature, labels)
