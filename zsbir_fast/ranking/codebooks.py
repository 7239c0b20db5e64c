"""Codebooks of a gallery: clusters of its photos, in each of M blocks of the features.

Sources: Wu et al., "Distribution aligned feature clustering for zero-shot sketch-based image
retrieval", arXiv 2301.06685 (k-means); Liu et al., "Symmetrical bidirectional knowledge alignment
for zero-shot sketch-based image retrieval", arXiv 2312.10320 (Gaussian mixtures); the starts and
the numbers of rounds are those of their public code. Codes over blocks of the features: Jegou et
al., "Product quantization for nearest neighbor search", TPAMI 2011.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zsbir_fast.metrics.checks import row_blocks
from zsbir_fast.metrics.scores import GallerySide

Model = Literal["kmeans", "gmm"]
Covariance = Literal["full", "diag", "spherical"]
Inside = Literal["tie", "distance"]

_KMEANS_ROUNDS = 20
_MIXTURE_ROUNDS = 100
_MIXTURE_TOLERANCE = 1e-3
_REGULARISATION = 1e-6


@dataclass(frozen=True)
class Codebooks:
    """The clusters of a gallery.

    Attributes:
        codewords: float32 [M, K, D / M], the centre of every cluster in every block.
        codes: int32 [M, G], the cluster of every photo in every block.
    """

    codewords: Tensor
    codes: Tensor

    def to(self, device: torch.device) -> Codebooks:
        """Return the codebooks on a device."""
        return Codebooks(self.codewords.to(device), self.codes.to(device))

    def distances(self, photos: Tensor) -> Tensor:
        """Measure how far photos are from the centres of their clusters.

        Args:
            photos: float32 [G, D], those that were clustered.

        Returns:
            float32 [M, G].
        """
        blocks = torch.split(photos, self.codewords.shape[2], dim=1)
        return torch.stack(
            [
                torch.linalg.vector_norm(block - words[codes.long()], dim=1)
                for block, words, codes in zip(blocks, self.codewords, self.codes, strict=True)
            ]
        )


def fit_codebooks(
    function: str,
    photos: Tensor,
    *,
    model: Model,
    clusters: int,
    blocks: int,
    covariance: Covariance,
    seed: int,
    starts: int = 1,
    regularisation: float = _REGULARISATION,
) -> Codebooks:
    """Cluster every block of the features of a gallery.

    Args:
        function: named in errors.
        photos: float32 [G, D], finite.
        model: k-means, or a mixture of Gaussians.
        clusters: K, at most G.
        blocks: M, a divisor of D.
        covariance: that of the mixture.
        seed: of the starts, one stream of numbers for all blocks, as in the published code.
        starts: starts of a block, of which the best is kept: that with the least sum of squared
            distances, or with the largest likelihood.
        regularisation: added to the diagonal of every covariance.

    Returns:
        The codebooks. A code is the nearest codeword, also for mixtures.

    Raises:
        ValueError: fewer than ``clusters`` photos differ in a block, or a covariance is singular.
    """
    stream = np.random.RandomState(seed)
    codewords, codes = [], []
    for block in torch.split(photos, photos.shape[1] // blocks, dim=1):
        rows = np.array(block.cpu().numpy(), dtype=np.float64, order="C")
        if model == "kmeans":
            centres = _kmeans(function, rows, clusters, starts, stream)
        else:
            centres = _mixture(function, rows, clusters, covariance, regularisation, starts, stream)
        codewords.append(torch.from_numpy(centres.astype(np.float32)).to(photos.device))
        codes.append(nearest_codewords(block, codewords[-1]))
    return Codebooks(torch.stack(codewords), torch.stack(codes))


def nearest_codewords(block: Tensor, codewords: Tensor) -> Tensor:
    """Find the codeword nearest to every photo; of equals the first.

    Args:
        block: float32 [G, d].
        codewords: float32 [K, d].

    Returns:
        int32 [G].
    """
    side = GallerySide.of(codewords, "euclidean", torch.float32)
    found = [
        side.scores(rows, rows.new_empty(len(rows), len(codewords))).argmin(1)
        for _, rows in row_blocks(block)
    ]
    return torch.cat(found).to(torch.int32)


def _kmeans(
    function: str, rows: NDArray[Any], clusters: int, starts: int, stream: np.random.RandomState
) -> NDArray[Any]:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    best: Any = None
    # The sums of several threads come in any order: with one thread the bits are the same.
    with threadpool_limits(1, user_api="openmp"), _no_empty_cluster(function, clusters):
        for _ in range(starts):
            start = rows[stream.choice(len(rows), size=clusters, replace=False)]
            means = KMeans(clusters, init=start, n_init=1, max_iter=_KMEANS_ROUNDS, tol=0)
            means.fit(rows)
            if best is None or means.inertia_ < best.inertia_:
                best = means
    return np.asarray(best.cluster_centers_)


def _mixture(
    function: str,
    rows: NDArray[Any],
    clusters: int,
    covariance: Covariance,
    regularisation: float,
    starts: int,
    stream: np.random.RandomState,
) -> NDArray[Any]:
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    if len(rows) < 2:
        raise ValueError(f"{function}: gallery must have at least 2 photos for model='gmm', got 1")
    mixture = GaussianMixture(
        clusters,
        covariance_type=covariance,
        reg_covar=regularisation,
        tol=_MIXTURE_TOLERANCE,
        max_iter=_MIXTURE_ROUNDS,
        n_init=starts,
        random_state=stream,
    )
    with threadpool_limits(1, user_api="openmp"), _no_empty_cluster(function, clusters):
        try:
            mixture.fit(rows)
        except ValueError as error:
            raise ValueError(
                f"{function}: covariance must be one that {len(rows)} photos in {clusters} "
                f"clusters determine ('diag' and 'spherical' need fewer), got {covariance!r}, "
                f"which is singular for features of width {rows.shape[1]}"
            ) from error
    return np.asarray(mixture.means_)


@contextmanager
def _no_empty_cluster(function: str, clusters: int) -> Iterator[None]:
    """Make an error of the warning that clusters are empty; rounds may end before convergence."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("error", "Number of distinct clusters", ConvergenceWarning)
        try:
            yield
        except ConvergenceWarning as warning:
            filled = re.findall(r"\d+", str(warning))[0]
            raise ValueError(
                f"{function}: clusters must be few enough that none is empty, got {clusters}, of "
                f"which {filled} have photos (equal photos are in one cluster)"
            ) from warning
