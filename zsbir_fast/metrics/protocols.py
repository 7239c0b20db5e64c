"""Evaluation protocols by name: the definitions of the field's code bases, each as one object."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from zsbir_fast._arguments import check_choice
from zsbir_fast.reference.definitions import (
    ApKind,
    Definition,
    Normaliser,
    Ties,
)

Precision = Literal["k", "min_relevant_k", "min_gallery_k"]
Average = Literal["query", "class"]
Empty = Literal["skip", "zero", "error"]


@dataclass(frozen=True)
class Protocol:
    """One complete definition of a retrieval result. ``docs/metrics.md`` has every formula.

    Attributes:
        name: how it is called in tables and files.
        ap: ``standard`` average precision, or ``voc`` (precision envelope).
        normaliser: what AP@k is divided by.
        precision: what Prec@k is divided by: ``k``; ``min_relevant_k``, the hits of the first
            min(k, R) items over min(k, R); or ``min_gallery_k``, min(k, G).
        average: mean over queries (``query``, micro) or over the classes' means (``class``, macro).
        ties: the order of items at the same distance.
        empty: queries without a relevant item are left out (``skip``), count as 0 (``zero``), or
            are an ``error``.
    """

    name: str
    ap: ApKind = "standard"
    normaliser: Normaliser = "all_relevant"
    precision: Precision = "k"
    average: Average = "query"
    ties: Ties = "expected"
    empty: Empty = "skip"

    def __post_init__(self) -> None:
        check_choice("Protocol", "precision", self.precision, Precision)
        check_choice("Protocol", "average", self.average, Average)
        check_choice("Protocol", "empty", self.empty, Empty)
        self.definition()

    def definition(self) -> Definition:
        """The part that the kernels need: the definition of one query's metrics.

        The kernels do not know the size of the gallery: to them ``min_gallery_k`` is ``k``, and
        ``RetrievalResult.of`` does the rest.

        Raises:
            ValueError: an unknown choice, or ties without a closed form.
        """
        precision = "k" if self.precision == "min_gallery_k" else self.precision
        return Definition(self.ap, self.normaliser, precision, self.ties)

    def check_relevant(self, caller: str, classes: Tensor) -> None:
        """Raise if queries without a relevant item leave nothing to evaluate, or must not be.

        Args:
            caller: public function, for the message.
            classes: [Q], -1 for queries without a relevant item.

        Raises:
            ValueError: under ``empty="skip"`` if all queries are so, under ``"error"`` if one is.
        """
        empty = classes < 0
        if self.empty == "skip" and bool(empty.all()):
            raise ValueError(
                f"{caller}: query_labels and gallery_labels must share a label, got none in common"
            )
        if self.empty == "error" and bool(empty.any()):
            rows = torch.nonzero(empty)[:, 0]
            raise ValueError(
                f"{caller}: every query must have a relevant gallery item (empty='error'), got "
                f"{len(rows)} of {len(classes)} without; the first rows: {rows[:5].tolist()}"
            )

    def describe(self) -> str:
        """The whole definition in one line, for tables and files."""
        z = {
            "min_relevant_k": "min(R,k)",
            "prefix_positive": "hits in k",
            "all_relevant": "R",
            "at_k": "k",
        }[self.normaliser]
        p = {"k": "k", "min_relevant_k": "min(R,k)", "min_gallery_k": "min(G,k)"}[self.precision]
        return (
            f"{self.name}: {self.ap} AP, AP@k over {z}, Prec@k over {p}, ties {self.ties}, "
            f"mean over {'queries' if self.average == 'query' else 'classes'}, "
            f"empty queries {'skipped' if self.empty == 'skip' else self.empty}"
        )


# The presets by name; docs/metrics.md says whose code each of them follows.
PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol("standard"),
        Protocol(
            "sake",
            ap="voc",
            normaliser="min_relevant_k",
            precision="min_gallery_k",
            average="class",
            ties="index",
        ),
        Protocol(
            "zse", ap="voc", normaliser="min_relevant_k", precision="min_relevant_k", ties="index"
        ),
        Protocol("sem_pcyc", normaliser="prefix_positive", ties="grouped", empty="zero"),
        Protocol("torchmetrics", normaliser="prefix_positive", ties="index", empty="zero"),
        Protocol("eccv18", normaliser="at_k", ties="index", empty="zero"),
    )
}


def get_protocol(
    protocol: str | Protocol, *, ties: Ties | None = None, caller: str = "get_protocol"
) -> Protocol:
    """A preset by name, or the given protocol, with its tie mode replaced if asked.

    Args:
        protocol: name or object.
        ties: tie mode; None keeps the protocol's.
        caller: public function, for the message.

    Raises:
        ValueError: the name is unknown (the message lists the known ones), or the tie mode does
            not go with the rest.
        TypeError: it is neither a name nor a :class:`Protocol`.
    """
    if isinstance(protocol, str):
        check_choice(caller, "protocol", protocol, PROTOCOLS)
        protocol = PROTOCOLS[protocol]
    elif not isinstance(protocol, Protocol):
        raise TypeError(f"{caller}: protocol must be a name or a Protocol, got {protocol!r}")
    if ties is not None and ties != protocol.ties:
        protocol = replace(protocol, name=f"{protocol.name} with {ties} ties", ties=ties)
    return protocol
