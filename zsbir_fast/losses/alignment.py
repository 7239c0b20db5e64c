"""Contrastive losses with several positives: between modalities, and within one set of features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def alignment_loss(
    sketches: Tensor, photos: Tensor, labels: Tensor, *, temperature: float = 0.1
) -> Tensor:
    """InfoNCE between sketch and photo features in both directions.

    All photos of a sketch's class are its positives (classes repeat within a batch): the mean of
    their log-probabilities among all photos of the batch; and the same with the roles exchanged.

    Args:
        sketches: [B, D] float, L2-normalised here.
        photos: [B, D] float.
        labels: [B] int64, class of sketch i and of photo i.
        temperature: divides the cosines.

    Returns:
        Scalar; 0 for an empty batch.

    Raises:
        ValueError: the shapes differ or ``temperature`` is not positive.

    Source: InfoNCE, van den Oord et al., arXiv 1807.03748; several positives as in Khosla et al.,
    arXiv 2004.11362, equation (2). That DM-WAN trains its weighting with it is our reading.
    """
    if sketches.ndim != 2 or sketches.shape != photos.shape:
        raise ValueError(
            "alignment_loss: sketches and photos must both be [B, D], got "
            f"{tuple(sketches.shape)} and {tuple(photos.shape)}"
        )
    _check("alignment_loss", len(sketches), labels, temperature)
    cosines = F.normalize(sketches, dim=1) @ F.normalize(photos, dim=1).T / temperature
    positives = labels[:, None] == labels[None, :]
    candidates = torch.ones_like(positives)
    return (
        _mean_log_loss(cosines, positives, candidates)
        + _mean_log_loss(cosines.T, positives, candidates)
    ) / 2


def supervised_contrastive_loss(
    features: Tensor, labels: Tensor, *, temperature: float = 0.1
) -> Tensor:
    """Supervised contrastive loss of a set of features, whatever their modality.

    Args:
        features: [B, D] float, L2-normalised here.
        labels: [B] int64.
        temperature: divides the cosines.

    Returns:
        Scalar mean over the anchors that have a positive; 0 if there is none.

    Raises:
        ValueError: the shapes do not fit or ``temperature`` is not positive.

    Source: Khosla et al., arXiv 2004.11362, equation (2).
    """
    if features.ndim != 2:
        raise ValueError(
            f"supervised_contrastive_loss: features must be [B, D], got {tuple(features.shape)}"
        )
    _check("supervised_contrastive_loss", len(features), labels, temperature)
    unit = F.normalize(features, dim=1)
    candidates = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
    positives = (labels[:, None] == labels[None, :]) & candidates
    return _mean_log_loss(unit @ unit.T / temperature, positives, candidates)


def _mean_log_loss(logits: Tensor, positives: Tensor, candidates: Tensor) -> Tensor:
    """Minus the mean log-probability of a row's positives, averaged over rows that have some."""
    candidates = candidates | ~candidates.any(1, keepdim=True)  # a lone row: keep it finite
    normaliser = logits.masked_fill(~candidates, -torch.inf).logsumexp(1, keepdim=True)
    counts = positives.sum(1)
    log_probabilities = torch.where(positives, logits - normaliser, 0.0)
    rows = -log_probabilities.sum(1) / counts.clamp_min(1)
    return rows.sum() / (counts > 0).sum().clamp_min(1)


def _check(function: str, count: int, labels: Tensor, temperature: float) -> None:
    if labels.shape != (count,):
        raise ValueError(f"{function}: labels must be [{count}], got {tuple(labels.shape)}")
    if not temperature > 0:
        raise ValueError(f"{function}: temperature must be positive, got {temperature}")
