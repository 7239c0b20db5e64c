"""The choices that define a ranking metric, by name; the order is that of ``batched_map.h``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from zsbir_fast._arguments import check_choice

ApKind = Literal["standard", "voc"]
Normaliser = Literal["min_relevant_k", "prefix_positive", "all_relevant", "at_k"]
PrecisionDenominator = Literal["k", "min_relevant_k"]
Ties = Literal["index", "optimistic", "pessimistic", "grouped", "expected"]

AP_KINDS: tuple[ApKind, ...] = get_args(ApKind)
NORMALISERS: tuple[Normaliser, ...] = get_args(Normaliser)
PRECISION_DENOMINATORS: tuple[PrecisionDenominator, ...] = get_args(PrecisionDenominator)
TIES: tuple[Ties, ...] = get_args(Ties)

# Columns of a row of per-query metrics: seven fixed ones, then four for every cut-off k.
FIXED_COLUMNS = (
    "relevant",
    "ap",
    "ap_worst",
    "ap_best",
    "reciprocal_rank",
    "ap_at_r",
    "r_precision",
)
COLUMNS_AT_K = ("ap_at", "precision_at", "recall_at", "hit_at")


@dataclass(frozen=True)
class Definition:
    """What AP@k, Prec@k and a tie mean. The formulas are in ``docs/metrics.md``.

    Attributes:
        ap: ``standard``, or ``voc`` (each precision replaced by the largest at or after it).
        normaliser: what AP@k is divided by: ``min_relevant_k`` min(R, k), ``prefix_positive`` the
            hits within k, ``all_relevant`` R, ``at_k`` k. AP@all is always divided by R.
        precision: what Prec@k is divided by: ``k``, or ``min_relevant_k``: the hits of the first
            min(k, R) items over min(k, R).
        ties: the order of items at the same distance: ``index`` (lowest gallery index first),
            ``optimistic`` (relevant first), ``pessimistic`` (relevant last), ``grouped`` (one
            threshold per distance, as scikit-learn), ``expected`` (mean over all orders).
    """

    ap: ApKind = "standard"
    normaliser: Normaliser = "all_relevant"
    precision: PrecisionDenominator = "k"
    ties: Ties = "expected"

    def __post_init__(self) -> None:
        check_choice("Definition", "ap", self.ap, AP_KINDS)
        check_choice("Definition", "normaliser", self.normaliser, NORMALISERS)
        check_choice("Definition", "precision", self.precision, PRECISION_DENOMINATORS)
        check_choice("Definition", "ties", self.ties, TIES)
        if self.ties == "expected" and (self.ap == "voc" or self.normaliser == "prefix_positive"):
            what = "ap='voc'" if self.ap == "voc" else "normaliser='prefix_positive'"
            raise ValueError(
                f"Definition: ties='expected' has no closed form with {what}; "
                "choose index, optimistic, pessimistic or grouped"
            )

    def codes(self) -> tuple[int, int, int, int]:
        """The four choices as the numbers that the kernels take."""
        return (
            AP_KINDS.index(self.ap),
            NORMALISERS.index(self.normaliser),
            PRECISION_DENOMINATORS.index(self.precision),
            TIES.index(self.ties),
        )

    @staticmethod
    def from_codes(codes: Sequence[int]) -> Definition:
        """The inverse of :meth:`codes`."""
        ap, normaliser, precision, ties = codes
        return Definition(
            AP_KINDS[ap], NORMALISERS[normaliser], PRECISION_DENOMINATORS[precision], TIES[ties]
        )
