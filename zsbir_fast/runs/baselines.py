"""The baselines of a trained model: chance, and its encoder before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from zsbir_fast.data.benchmarks import Benchmark
from zsbir_fast.data.images import ImageSet
from zsbir_fast.encoders.encoder import Encoder
from zsbir_fast.metrics.evaluate import evaluate_ranking, evaluate_retrieval
from zsbir_fast.metrics.result import RetrievalResult
from zsbir_fast.retrieval.embed import embed_with

_MOST_FOR_A_MEAN = 10_000
"""Seen images of a modality that are enough for its mean."""


def baseline_results(
    encoder: Encoder | None,
    benchmark: Benchmark,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    workers: int = 0,
    progress: bool = False,
) -> dict[str, RetrievalResult]:
    """Evaluate the start of training on the unseen classes of a benchmark.

    Args:
        encoder: the pre-trained encoder; None: chance alone.
        benchmark: the images. Of each modality up to 10,000 seen ones, evenly spread, say what
            all of it has in common.
        device: where the encoder is moved to and runs.
        batch_size: images per forward pass.
        workers: processes that load images.
        progress: show progress.

    Returns:
        ``"chance"``, the exact expectation of a random order; ``"raw"``, features as they are; and
        ``"centred"``, features without the mean of their modality over the seen classes.
    """
    sketches, photos = benchmark.test_sketches, benchmark.test_photos
    labels = (sketches.labels, photos.labels)
    results = {"chance": chance_level(*labels)}
    if encoder is None:
        return results
    network = encoder.eval().to(device)

    def features(images: ImageSet, what: str) -> Tensor:
        return embed_with(
            lambda batch, _: network(batch).global_,
            images,
            spec=network.spec,
            batch_size=batch_size,
            workers=workers,
            device=device,
            progress=f"untrained features of {what}" if progress else None,
        )

    queries, gallery = features(sketches, "unseen sketches"), features(photos, "unseen photos")
    centred = (
        remove_domain_mean(queries, features(_some(benchmark.train_sketches), "seen sketches")),
        remove_domain_mean(gallery, features(_some(benchmark.train_photos), "seen photos")),
    )
    ks = usual_ks(len(gallery))
    results["raw"] = evaluate_retrieval(queries, gallery, *labels, ks=ks)
    results["centred"] = evaluate_retrieval(*centred, *labels, ks=ks)
    return results


def _some(images: ImageSet) -> ImageSet:
    step = -(-len(images) // _MOST_FOR_A_MEAN)
    return images if step == 1 else images.subset(torch.arange(0, len(images), step))


def usual_ks(gallery: int) -> tuple[int, ...]:
    """Return those cut-offs that the field reports and the gallery is large enough for.

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
    """Subtract the mean feature of a modality, as measured on seen classes.

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
