"""Reference points that a trained model is compared with: chance, and centred features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from zsbir_fast.metrics.evaluate import evaluate_ranking
from zsbir_fast.metrics.result import RetrievalResult


def usual_ks(gallery: int) -> tuple[int, ...]:
    """Return the cut-offs that the field reports, as far as the gallery has so many items.

    Args:
        gallery: number of gallery items G.

    Returns:
        (100, 200), or those of them that are at most G, or (G,) for a smaller gallery.
    """
    return tuple(k for k in (100, 200) if k <= gallery) or (gallery,)


def chance_level(
    query_labels: Tensor, gallery_labels: Tensor, *, ks: Sequence[int] | None = None
) -> RetrievalResult:
    """Expected metrics of a gallery in random order, exact, nothing is simulated.

    All items at one distance, with the expectation over the order of ties, is a random order.

    Args:
        query_labels: int64 [Q].
        gallery_labels: int64 [G].
        ks: cut-offs of mAP@k and Prec@k; None takes ``usual_ks``.

    Returns:
        The expectation under the protocol ``standard``.

    Raises:
        ValueError: no query has a relevant gallery item.
    """
    labels, of_query = torch.unique(query_labels, return_inverse=True)
    per_label = evaluate_ranking(
        torch.zeros(len(labels), len(gallery_labels)),
        labels,
        gallery_labels,
        larger_is_closer=True,
        ks=usual_ks(len(gallery_labels)) if ks is None else tuple(ks),
        ties="expected",
    )
    return replace(per_label, query_labels=query_labels, columns=per_label.columns[of_query])


def remove_domain_mean(features: Tensor, seen: Tensor) -> Tensor:
    """Take away what all images of a modality share, as measured on seen classes.

    Args:
        features: [n, D] of one modality.
        seen: [m, D], features of seen classes in the same modality.

    Returns:
        float32 [n, D]: L2-normalised, minus the mean of the L2-normalised ``seen``,
        L2-normalised again.

    Raises:
        ValueError: widths differ.
    """
    if features.shape[1] != seen.shape[1]:
        raise ValueError(
            f"remove_domain_mean: seen must be [m, {features.shape[1]}] like features, "
            f"got {list(seen.shape)}"
        )
    mean = F.normalize(seen.float(), dim=1).mean(0)
    return F.normalize(F.normalize(features.float(), dim=1) - mean, dim=1)
