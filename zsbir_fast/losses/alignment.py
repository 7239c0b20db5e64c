"""Contrastive losses with several positives: between modalities, and within one set of features."""

from __future__ import annotations

import torch
from torch import Tensor

from zsbir_fast._arguments import as_temperature
from zsbir_fast._types import Integers
from zsbir_fast.ops._checks import as_labels, check_feature_shapes, unit_length
from zsbir_fast.reference.token_weighting import accumulation_dtype


def alignment_loss(
    sketches: Tensor, photos: Tensor, labels: Integers, *, temperature: float = 0.1
) -> Tensor:
    """InfoNCE between sketch and photo features in both directions.

    All photos of a sketch's class are its positives (classes repeat within a batch). The loss takes
    the mean of their log-probabilities among all photos of the batch, and the same with the roles
    exchanged.

    Args:
        sketches: [B, D] float, L2-normalised here.
        photos: [B, D] float.
        labels: [B] integers, class of sketch i and of photo i: a tensor, an array or a list.
        temperature: divides the cosines; at least 1e-30.

    Returns:
        Scalar; 0 for an empty batch. float16 and bfloat16 are compared in float32, also under
        autocast.

    Raises:
        ValueError: the shapes differ, ``temperature`` is out of range, or a feature is not finite
            (on CUDA and in compiled code, which look at no values, the loss is NaN then).
        TypeError: labels are not integers, or features no dense floating-point tensors.

    Source: InfoNCE, van den Oord et al., arXiv 1807.03748; several positives as in Khosla et al.,
    arXiv 2004.11362, equation (2). That DM-WAN trains its weighting with it is our reading.
    """
    name = "alignment_loss"
    check_feature_shapes(name, sketches=sketches, photos=photos)
    if sketches.shape != photos.shape:
        raise ValueError(
            f"{name}: sketches and photos must both be [B, D], got "
            f"{list(sketches.shape)} and {list(photos.shape)}"
        )
    labels = as_labels(name, "labels", labels, len(sketches), "sketches", sketches)
    temperature = as_temperature(name, temperature)
    cosines = _cosines(name, sketches=sketches, photos=photos) / temperature
    positives = labels[:, None] == labels[None, :]
    candidates = torch.ones_like(positives)
    return (
        _mean_log_loss(cosines, positives, candidates)
        + _mean_log_loss(cosines.T, positives, candidates)
    ) / 2


def supervised_contrastive_loss(
    features: Tensor, labels: Integers, *, temperature: float = 0.1
) -> Tensor:
    """Supervised contrastive loss of a set of features of any modality.

    Args:
        features: [B, D] float, L2-normalised here.
        labels: [B] integers: a tensor, an array or a list.
        temperature: divides the cosines; at least 1e-30.

    Returns:
        Scalar mean over the anchors that have a positive; 0 if there is none.

    Raises:
        ValueError: the shapes do not fit, ``temperature`` is out of range, or a feature is not
            finite, as for :func:`alignment_loss`.
        TypeError: as for :func:`alignment_loss`.

    Source: Khosla et al., arXiv 2004.11362, equation (2).
    """
    name = "supervised_contrastive_loss"
    check_feature_shapes(name, features=features)
    labels = as_labels(name, "labels", labels, len(features), "features", features)
    temperature = as_temperature(name, temperature)
    candidates = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
    positives = (labels[:, None] == labels[None, :]) & candidates
    cosines = _cosines(name, features=features)
    return _mean_log_loss(cosines / temperature, positives, candidates)


def _cosines(function: str, **features: Tensor) -> Tensor:
    """Cosines of all rows of the first with all of the last, in float32 at least."""
    unit = [
        unit_length(function, name, x.to(accumulation_dtype(x.dtype)))
        for name, x in features.items()
    ]
    with torch.autocast(unit[0].device.type, enabled=False):
        return unit[0] @ unit[-1].T


def _mean_log_loss(logits: Tensor, positives: Tensor, candidates: Tensor) -> Tensor:
    """Minus the mean log-probability of a row's positives, averaged over rows that have some."""
    candidates = candidates | ~candidates.any(1, keepdim=True)  # a lone row: keep it finite
    normaliser = logits.masked_fill(~candidates, -torch.inf).logsumexp(1, keepdim=True)
    counts = positives.sum(1)
    log_probabilities = torch.where(positives, logits - normaliser, 0.0)
    rows = -log_probabilities.sum(1) / counts.clamp_min(1)
    return rows.sum() / (counts > 0).sum().clamp_min(1)
