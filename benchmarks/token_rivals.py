"""Token weighting as users would write it in PyTorch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def _score(mask: Tensor, sketch: Tensor, photo: Tensor) -> Tensor:
    """Mean cosine of the pooled rows over the valid words."""
    cosines = F.cosine_similarity(sketch, photo, dim=2) * mask
    return cosines.sum(1) / mask.sum(1).clamp_min(1)


def eager(
    mask: Tensor,
    labels: Tensor,
    text: Tensor,
    sketch_keys: Tensor,
    sketch_values: Tensor,
    photo_keys: Tensor,
    photo_values: Tensor,
) -> Tensor:
    """As a user would first write it: gather the text, two products each, cosine, masked mean."""
    queries, valid = text[labels], mask[labels]

    def pool(keys: Tensor, values: Tensor) -> Tensor:
        logits = torch.bmm(queries, keys.mT) / math.sqrt(queries.shape[2])
        return torch.bmm(logits.softmax(2) * valid[:, :, None], values)

    sketch, photo = pool(sketch_keys, sketch_values), pool(photo_keys, photo_values)
    return _score(valid, sketch, photo)


def attention(
    mask: Tensor,
    labels: Tensor,
    text: Tensor,
    sketch_keys: Tensor,
    sketch_values: Tensor,
    photo_keys: Tensor,
    photo_values: Tensor,
) -> Tensor:
    """The same with PyTorch's fused attention, one head."""
    queries, valid = text[labels][:, None], mask[labels]

    def pool(keys: Tensor, values: Tensor) -> Tensor:
        one_head = (queries, keys[:, None], values[:, None])
        return F.scaled_dot_product_attention(*one_head)[:, 0]

    sketch, photo = pool(sketch_keys, sketch_values), pool(photo_keys, photo_values)
    return _score(valid, sketch, photo)


def eager_pairwise(mask: Tensor, labels: Tensor, sketch: Tensor, photo: Tensor) -> Tensor:
    """FILIP's score in three lines; stores the cosines of all patches."""
    cosines = torch.bmm(F.normalize(sketch, dim=2), F.normalize(photo, dim=2).mT)
    return cosines.amax(2).mean(1)
