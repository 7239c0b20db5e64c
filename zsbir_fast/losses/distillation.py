"""Losses by which one network imitates another, and by which features take a common form."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zsbir_fast.ops._checks import check_feature_shapes
from zsbir_fast.reference.token_weighting import accumulation_dtype


def soft_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    prior: Tensor | None = None,
    rows: Tensor | None = None,
) -> Tensor:
    """Cross-entropy with the softmax of other logits as targets: knowledge distillation.

    Gradients flow to ``targets``, too; detach them for a teacher that stays as it is.

    Args:
        logits: [B, K] float, of the network that imitates.
        targets: [B, K] float, logits of the network that is imitated.
        prior: [B, K] float, added to ``targets``: what is known of the row's class beforehand.
        rows: bool [B], the rows that count; None: all do.

    Returns:
        Scalar: minus the mean over those rows of sum_k softmax(targets + prior)_k times
        log softmax(logits)_k; 0 without such rows. float16 and bfloat16 are computed in float32.

    Raises:
        ValueError: shapes differ.
        TypeError: logits are no dense floating-point tensors, or ``rows`` is not bool.

    Source: Liu et al., ICCV 2019 (SAKE), as in its public code, and with it equation (2) of
    ClusterRetri and equations (2) and (3) of SBKA as docs/methods.md numbers them.
    """
    name = "soft_cross_entropy"
    check_feature_shapes(name, logits=logits, targets=targets)
    for argument, other in (("targets", targets), ("prior", prior)):
        if other is not None and other.shape != logits.shape:
            raise ValueError(
                f"{name}: {argument} must be {list(logits.shape)} like logits, got "
                f"{list(other.shape)}"
            )
    if rows is not None and rows.dtype != torch.bool:
        raise TypeError(f"{name}: rows must be bool, got {rows.dtype}")
    if rows is not None and rows.shape != logits.shape[:1]:
        raise ValueError(
            f"{name}: rows must be [{len(logits)}] like logits, got {list(rows.shape)}"
        )
    dtype = accumulation_dtype(logits.dtype)
    wanted = targets.to(dtype) if prior is None else targets.to(dtype) + prior.to(dtype)
    each = -(wanted.softmax(1) * F.log_softmax(logits.to(dtype), 1)).sum(1)
    if rows is None:
        return each.sum() / max(1, len(each))
    return torch.where(rows, each, 0).sum() / rows.sum().clamp_min(1)


def noise_alignment_loss(features: Tensor, noise: Tensor) -> Tensor:
    """Draw features of both modalities to a common distribution, by noise as the target.

    Args:
        features: [B, D] float, as the network gives them, not normalised.
        noise: [B, D] float, standard normal numbers drawn anew for every step.

    Returns:
        Scalar: the mean over the rows of KL(softmax(noise) || softmax(features)), softmax over D;
        0 without rows. float16 and bfloat16 are computed in float32. The gradient of a row of
        features is (softmax(features) - softmax(noise)) / B.

    Raises:
        ValueError: shapes differ.
        TypeError: an argument is no dense floating-point tensor.

    Source: the alignment with a common Gaussian of Wu et al., arXiv 2301.06685, and of Liu et al.,
    arXiv 2312.10320, as in their public code.
    """
    name = "noise_alignment_loss"
    check_feature_shapes(name, features=features, noise=noise)
    if noise.shape != features.shape:
        raise ValueError(
            f"{name}: noise must be {list(features.shape)} like features, got {list(noise.shape)}"
        )
    dtype = accumulation_dtype(features.dtype)
    own, target = (F.log_softmax(x.to(dtype), 1) for x in (features, noise))
    divergence = (target.exp() * (target - own)).sum()
    return divergence / max(1, len(features))
