"""How many clusters a gallery has, asked of the gallery alone."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zsbir_fast._arguments import as_integer
from zsbir_fast.ranking.reranker import check_embeddings, unit_rows

_SAMPLE = 2000
_STARTS = 3
_PATIENCE = 5


def choose_clusters(gallery: Tensor, *, most: int = 256, seed: int = 123) -> int:
    """Choose the number of clusters K without labels.

    k-means is run with a growing K, and K is taken where the Bayesian information criterion of
    Gaussians of one spherical variance is best (Pelleg and Moore, "X-means", ICML 2000). Up to 14
    every K is tried, beyond it steps of about 12 %. The search ends when five values in a row were
    worse than the best. That criterion asks for more clusters the more photos there are, so that
    at most 2,000 photos, drawn at random, are looked at. Grid, end and sample are our reading.

    Args:
        gallery: float [G, D]; rows are L2-normalised first.
        most: the largest K to try; it is at most half the number of photos looked at.
        seed: of the sample and of the starts.

    Returns:
        K; 1 for fewer than four photos.

    Raises:
        TypeError: an option is no integer.
        ValueError: the gallery is not finite or empty, or an option is out of range.
    """
    function = "choose_clusters"
    most = as_integer(function, "most", most, least=1)
    seed = as_integer(function, "seed", seed, least=0, most=2**32 - 1)
    check_embeddings(function, "gallery", gallery)
    stream = np.random.RandomState(seed)
    sample = np.sort(stream.permutation(len(gallery))[:_SAMPLE])
    unit = unit_rows(gallery.cpu()[torch.from_numpy(sample)]).numpy()
    best, chosen, worse = -math.inf, 1, 0
    for clusters in _grid(min(most, len(unit) // 2)):
        value = _criterion(unit, clusters, stream)
        if value > best:
            best, chosen, worse = value, clusters, 0
        else:
            worse += 1
        if worse == _PATIENCE or best == math.inf:
            break
    return chosen


def _grid(most: int) -> list[int]:
    """Numbers of clusters, each the last plus 1 or, where that is more, plus an eighth of it."""
    grid, value = [], 1
    while value <= most:
        grid.append(value)
        value += max(1, value // 8)
    return grid


def _criterion(rows: NDArray[Any], clusters: int, stream: np.random.RandomState) -> float:
    """Log-likelihood less half the number of parameters times the log of the number of photos."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    count, width = rows.shape
    # With one thread the bits are the same on every machine with the same libraries.
    with threadpool_limits(1, user_api="openmp"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal photos
        means = KMeans(clusters, n_init=_STARTS, random_state=stream).fit(rows)
    sizes = np.bincount(means.labels_, minlength=clusters)
    variance = float(means.inertia_) / (width * (count - clusters))
    if variance < np.finfo(np.float32).eps ** 2:  # nothing is left to explain
        return math.inf
    filled = sizes[sizes > 0]
    likelihood = float((filled * np.log(filled / count)).sum())
    likelihood -= count * width / 2 * math.log(2 * math.pi * variance)
    likelihood -= width * (count - clusters) / 2
    return float(likelihood - clusters * (width + 1) / 2 * math.log(count))
