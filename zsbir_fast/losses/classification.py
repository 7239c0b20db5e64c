"""Classification of the seen classes by cosine, without a bias."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsbir_fast._arguments import as_integer, as_temperature
from zsbir_fast._types import Integers
from zsbir_fast._words import options_of
from zsbir_fast.ops._checks import (
    as_labels,
    check_feature_shape,
    check_labels_of_classes,
    unit_length,
)
from zsbir_fast.reference.token_weighting import accumulation_dtype

_NAME = "CosineClassifier"


class CosineClassifier(nn.Module):
    """Cross-entropy of cosines between features and one learned direction per class.

    Args:
        width: feature width D.
        classes: number of seen classes C.
        temperature: divides the cosines; at least 1e-30.

    Raises:
        ValueError: a number is out of range.

    Source: normalised softmax, Wang et al., arXiv 1704.06369.
    """

    def __init__(self, *, width: int, classes: int, temperature: float = 0.05) -> None:
        super().__init__()
        width = as_integer(_NAME, "width", width, least=1)
        classes = as_integer(_NAME, "classes", classes, least=1)
        self.width = width
        self.classes = classes
        self.temperature = as_temperature(_NAME, temperature)
        self.weight = nn.Parameter(torch.randn(classes, width) / width**0.5)

    def extra_repr(self) -> str:
        """Return the options, for ``repr``."""
        return options_of(self)

    def forward(self, features: Tensor, labels: Integers) -> Tensor:
        """Mean cross-entropy.

        Args:
            features: [B, D] float, L2-normalised here.
            labels: [B] integers in [0, C): a tensor, an array or a list. On CUDA and in compiled
                code their range is not looked at.

        Returns:
            Scalar. float16 and bfloat16 are compared in float32, also under autocast.

        Raises:
            ValueError: shapes do not fit, a label is out of range, or a feature is not finite (on
                CUDA and in compiled code, which look at no values, the loss is NaN then).
            TypeError: labels are not integers, or features no dense floating-point tensor.
        """
        classes, width = self.weight.shape
        check_feature_shape(_NAME, "features", features, width)
        labels = as_labels(_NAME, "labels", labels, len(features), "features", features)
        check_labels_of_classes(_NAME, "labels", labels, classes)
        dtype = torch.promote_types(accumulation_dtype(features.dtype), self.weight.dtype)
        unit = unit_length(_NAME, "features", features.to(dtype))
        with torch.autocast(features.device.type, enabled=False):
            logits = unit @ F.normalize(self.weight.to(dtype), dim=1).T
        return F.cross_entropy(logits / self.temperature, labels)

    if TYPE_CHECKING:  # nn.Module would say Any
        __call__ = forward
