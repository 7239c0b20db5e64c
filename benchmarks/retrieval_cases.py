"""Sizes, data and the float64 reference of the retrieval benchmarks.

Features are L2-normalised float32 Gaussians around class centres, with unequal class sizes and
difficulties, a shift between sketches and photos, and a random row order. The strength of the
classes is set so that mAP@all is near 0.5: times barely depend on it, but a ranking without
errors would hide wrong ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[Any]
IntArray = NDArray[np.int64]
KS = (100, 200)


@dataclass(frozen=True)
class Case:
    """One problem size: Q sketches against G photos of C classes, features of width D."""

    name: str
    Q: int
    G: int
    C: int
    strength: float
    D: int = 512
    devices: tuple[str, ...] = ("cpu", "cuda")
    checked: int = 10  # the first queries, whose results are compared with float64

    @property
    def title(self) -> str:
        """Name and sizes."""
        return f"{self.name}: Q={self.Q:,} G={self.G:,} C={self.C} D={self.D}"


# The unseen splits of TU-Berlin Ext (2,400 sketches, 27,989 photos, 30 classes, R about 933) and
# QuickDraw Ext (92,291 sketches, 54,151 photos, 30 classes, R about 1,805).
CASES = {
    case.name: case
    for case in (
        Case("quickdraw", Q=2_000, G=54_151, C=30, strength=0.33),
        Case("tuberlin", Q=2_400, G=27_989, C=30, strength=0.33),
        Case("tiny", Q=200, G=2_000, C=10, strength=0.28, checked=50),
        Case("quickdraw_full", Q=92_291, G=54_151, C=30, strength=0.33, devices=("cuda",)),
    )
}
WARM_UP = Case("warm_up", Q=12, G=400, C=4, strength=0.3)  # to load libraries


@dataclass(frozen=True)
class Definition:
    """The definition of a provider's numbers; P@k is hits within k over k or over min(k, R)."""

    ap: Literal["standard", "voc"] = "standard"
    at_k: Literal["min_relevant_k", "prefix_positive", "all_relevant"] = "min_relevant_k"
    precision: Literal["k", "min_relevant_k"] = "k"

    def __str__(self) -> str:
        return f"ap={self.ap} at_k={self.at_k} precision={self.precision}"


ARRAYS = ("queries", "gallery", "query_labels", "gallery_labels", "exact_scores")


@dataclass(frozen=True)
class RetrievalData:
    """Features and labels of a case: queries [Q, D], gallery [G, D] float32, labels int64.

    ``exact_scores`` [checked, G] are the cosines of the first queries in float64.
    """

    case: Case
    queries: FloatArray
    gallery: FloatArray
    query_labels: IntArray
    gallery_labels: IntArray
    exact_scores: FloatArray

    def save(self, folder: Path) -> None:
        """One .npy file for each array."""
        for name in ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, case: Case, folder: Path) -> RetrievalData:
        """The arrays that ``save`` wrote."""
        return cls(case, *(np.load(folder / f"{name}.npy", allow_pickle=False) for name in ARRAYS))


def generate(case: Case, seed: int = 0) -> RetrievalData:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((case.C, case.D), dtype=np.float32)
    share = rng.uniform(0.3, 1.7, case.C)
    strength = (case.strength * rng.uniform(0.7, 1.3, case.C)).astype(np.float32)

    def draw(count: int, probabilities: FloatArray | None) -> tuple[FloatArray, IntArray]:
        labels = rng.choice(case.C, size=count, p=probabilities).astype(np.int64)
        shift = 0.3 * rng.standard_normal(case.D, dtype=np.float32)
        features = rng.standard_normal((count, case.D), dtype=np.float32)
        features += shift
        for label in range(case.C):
            features[labels == label] += strength[label] * centres[label]
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        return features, labels

    queries, query_labels = draw(case.Q, None)
    gallery, gallery_labels = draw(case.G, share / share.sum())
    exact = queries[: case.checked].astype(np.float64) @ gallery.T.astype(np.float64)
    return RetrievalData(case, queries, gallery, query_labels, gallery_labels, exact)


def relevant_ranks(data: RetrievalData) -> list[IntArray]:
    """1-based ranks of the relevant photos of the checked queries, by a full float64 sort."""
    ranks = []
    for scores, label in zip(data.exact_scores, data.query_labels, strict=False):
        order = np.argsort(-scores, kind="stable")
        ranks.append(np.flatnonzero(data.gallery_labels[order] == label).astype(np.int64) + 1)
    return ranks


def reference_metrics(ranks: list[IntArray], definition: Definition) -> dict[str, float]:
    """mAP@all, mAP@k and P@k in float64, straight from the definitions, for queries with R > 0."""
    sums: dict[str, list[float]] = {}
    for found_at in ranks:
        relevant = len(found_at)
        precision = np.arange(1, relevant + 1) / found_at

        def envelope(values: FloatArray) -> FloatArray:
            if definition.ap == "voc":
                return np.maximum.accumulate(values[::-1])[::-1]
            return values

        sums.setdefault("map", []).append(float(envelope(precision).mean()))
        for k in KS:
            head = int((found_at <= k).sum())
            norm = {
                "min_relevant_k": min(relevant, k),
                "prefix_positive": max(head, 1),
                "all_relevant": relevant,
            }[definition.at_k]
            sums.setdefault(f"map@{k}", []).append(float(envelope(precision[:head]).sum()) / norm)
            places = k if definition.precision == "k" else min(k, relevant)
            sums.setdefault(f"p@{k}", []).append(head / places)
    return {name: float(np.mean(values)) for name, values in sums.items()}
