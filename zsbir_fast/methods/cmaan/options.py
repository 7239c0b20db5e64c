"""The settings of CMAAN in groups: the exchange, the relation network, the terms of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zsbir_fast._arguments import as_integer, as_share, check_choice
from zsbir_fast.methods.cmaan.exchange import Style

Partner = Literal["text", "image", "none"]
NegativeText = Literal["own", "anchor"]
Side = Literal["post_ca", "pre_ca"]
Match = Literal["patches", "words"]
RankBy = Literal["embedding", "relation"]
Negative = Literal["random", "hardest"]


@dataclass(frozen=True)
class ExchangeOptions:
    """What the tokens of an image take in by cross-attention, in training.

    Attributes:
        partner: ``"text"``: the description of the class, as CMAAN does. ``"image"``: the other
            image of the pair, as its base ZSE-SBIR does. ``"none"``: nothing.
        style: ``"standard"``, or ``"zse"``: the published code's other keys with own values, see
            :class:`zsbir_fast.methods.cmaan.exchange.ExchangeBlock`; with ``"image"`` alone.
        layers: of cross-attention.
        heads: of each.
        hidden: width of each feed-forward part.
        dropout: in each.
        negative_text: whose description a negative photo meets: that of its ``"own"`` class or that
            of the ``"anchor"``.

    Raises:
        ValueError: an option is out of range, or ``"zse"`` without ``"image"``.
    """

    partner: Partner = "text"
    style: Style = "standard"
    layers: int = 1
    heads: int = 8
    hidden: int = 1024
    dropout: float = 0.1
    negative_text: NegativeText = "own"

    def __post_init__(self) -> None:
        """Refuse other choices."""
        name = "CMAAN"
        check_choice(name, "exchange.partner", self.partner, Partner)
        check_choice(name, "exchange.style", self.style, Style)
        check_choice(name, "exchange.negative_text", self.negative_text, NegativeText)
        for option in ("layers", "heads", "hidden"):
            as_integer(name, f"exchange.{option}", getattr(self, option), least=1)
        as_share(name, "exchange.dropout", self.dropout)
        if self.style == "zse" and self.partner != "image":
            raise ValueError(
                f"{name}: exchange.style must be standard where exchange.partner is "
                f"{self.partner!r}, as 'zse' takes values and keys from sequences of one length; "
                "got 'zse'"
            )


@dataclass(frozen=True)
class RelationOptions:
    """What the relation network compares.

    Attributes:
        match: ``"patches"`` of sketch and photo, or the ``"words"`` that took in the sketch and
            those that took in the photo (with the partner ``"text"``).
        side: tokens after the exchange (``"post_ca"``) or before it (``"pre_ca"``), which is what
            there is at retrieval.
        width: of the reduced tokens.
        largest_grid: side of the grid of reduced patches at most.
        dropout: in the network.
        raw_view: the published code's view of tokens as channels, for its weights alone.

    Raises:
        ValueError: an option is out of range, or words before the exchange.
    """

    match: Match = "patches"
    side: Side = "post_ca"
    width: int = 512
    largest_grid: int = 7
    dropout: float = 0.1
    raw_view: bool = False

    def __post_init__(self) -> None:
        """Refuse other choices."""
        name = "CMAAN"
        check_choice(name, "relation.match", self.match, Match)
        check_choice(name, "relation.side", self.side, Side)
        for option in ("width", "largest_grid"):
            as_integer(name, f"relation.{option}", getattr(self, option), least=1)
        as_share(name, "relation.dropout", self.dropout)
        if self.match == "words" and self.side == "pre_ca":
            raise ValueError(
                f"{name}: relation.side must be post_ca where relation.match is 'words', which are "
                "those of one text before the exchange; got 'pre_ca'"
            )


@dataclass(frozen=True)
class CorrespondenceOptions:
    """The terms of the loss and their factors. A factor of 0 leaves a term out.

    Attributes:
        tri: factor of the triplet loss (the global correspondence).
        rn: factor of the relation network's loss (the local one).
        cls: ours; factor of a cosine classification of the seen classes.
        tri_on: global features after the exchange (``"post_ca"``) or before it (``"pre_ca"``),
            which is what retrieval compares.
        margin: of the triplets.
        normalize: L2-normalise the features of the triplets.
        negative: the photo of another class in the batch: a ``"random"`` one, as the published
            base draws them, or the ``"hardest"``, nearest to the sketch.
        cls_temperature: of the classification.

    Raises:
        ValueError: a choice that there is not, a negative number, or all factors 0.
    """

    tri: float = 2.0
    rn: float = 4.0
    cls: float = 0.0
    tri_on: Side = "post_ca"
    margin: float = 1.0
    normalize: bool = False
    negative: Negative = "random"
    cls_temperature: float = 0.05

    def __post_init__(self) -> None:
        """Refuse other choices."""
        name = "CMAAN"
        check_choice(name, "loss.tri_on", self.tri_on, Side)
        check_choice(name, "loss.negative", self.negative, Negative)
        for option in ("tri", "rn", "cls", "margin"):
            if not getattr(self, option) >= 0:
                raise ValueError(
                    f"{name}: loss.{option} must not be negative, got {getattr(self, option)}"
                )
        if not self.tri + self.rn + self.cls > 0:
            raise ValueError(f"{name}: loss.tri, loss.rn and loss.cls must not all be 0")
