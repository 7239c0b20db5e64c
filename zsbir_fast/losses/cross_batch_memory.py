"""Cross-batch memory: negatives from past batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from zsbir_fast._arguments import as_integer, check_choice
from zsbir_fast._types import Integers
from zsbir_fast._words import options_of
from zsbir_fast.losses.batches import Bank, JoinedBatch, Labels
from zsbir_fast.losses.weighted_quadruplet import WeightedQuadrupletLoss
from zsbir_fast.ops._checks import (
    as_labels,
    check_feature_shape,
    check_finite,
    kind_of,
    unseen,
)

LARGEST = 65_536
_NAME = "CrossBatchMemory"


class FeatureBank(nn.Module):
    """Ring buffer of past features with their labels; part of the state dict, without gradient.

    Args:
        size: rows it holds; then the oldest ones are overwritten.
        width: feature width D.
    """

    _features: Tensor
    _labels: Tensor

    def __init__(self, *, size: int, width: int) -> None:
        super().__init__()
        size = as_integer("FeatureBank", "size", size, least=1)
        width = as_integer("FeatureBank", "width", width, least=1)
        self.size = size
        self.width = width
        self.register_buffer("_features", torch.zeros(size, width))
        self.register_buffer("_labels", torch.full((size,), -1))
        self._written = 0  # on the host, so that no step waits for a GPU

    def extra_repr(self) -> str:
        """Return the sizes, for ``repr``."""
        return f"{options_of(self)}, filled={len(self)}"

    def __len__(self) -> int:
        """Return how many rows are filled."""
        return min(self._written, self.size)

    @property
    def features(self) -> Tensor:
        """Float32 [M, D], M up to ``size``; after the first round in no particular order."""
        return self._features[: len(self)]

    @property
    def labels(self) -> Tensor:
        """Int64 [M]."""
        return self._labels[: len(self)]

    @torch.no_grad()
    def add(self, features: Tensor, labels: Integers) -> None:
        """Write rows over the oldest ones; of more rows than ``size`` the last ones stay.

        A row that is not finite would make every loss NaN until it is overwritten: on the CPU it is
        an error, and where values are not looked at another row of the batch is written instead.

        Args:
            features: [B, D] float.
            labels: [B] integers.

        Raises:
            ValueError: features are not [B, D] of this width, labels not [B], or a feature is not
                finite.
            TypeError: features are no dense floating-point tensor, or labels are not integers.
        """
        name, width = "FeatureBank", self._features.shape[1]
        check_feature_shape(name, "features", features, width)
        labels = as_labels(name, "labels", labels, len(features), "features", features)
        check_finite(name, "features", features)
        if len(features) and unseen(features):
            features, labels = _with_finite_rows(features.detach(), labels)
        skipped = max(0, len(features) - self.size)
        start = self._written + skipped
        rows = torch.arange(start, self._written + len(features), device=features.device)
        self._features[rows % self.size] = features[skipped:].detach().to(self._features.dtype)
        self._labels[rows % self.size] = labels[skipped:]
        self._written += len(features)

    def get_extra_state(self) -> Tensor:
        """Return how many rows were ever written; torch stores it in the state dict."""
        return torch.tensor(self._written)

    def set_extra_state(self, state: Tensor) -> None:
        """Take up the position; torch calls this."""
        self._written = int(state)


def _with_finite_rows(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that are not finite replaced by the first one that is; by zeros where there is none."""
    finite = torch.isfinite(features).all(1)
    rows = torch.arange(len(features), device=features.device)
    source = torch.where(finite, rows, finite.int().argmax())
    return features[source].masked_fill(~finite.any(), 0), labels[source]


class CrossBatchMemory(nn.Module):
    """A quadruplet loss whose negatives come from past batches, too.

    Keeps up to ``size`` past features of each modality. They carry no gradient. The batch is
    compared with itself and the memory, then (in training mode) written over the memory's oldest
    rows. In a distributed run the joined batch is written, so that the memory is the same on all
    processes. It is part of the state dict: a resumed run goes on exactly.

    Args:
        loss: the loss; its ``negative`` must not be ``"all"``.
        size: past features of each modality, 1 to 65,536.
        width: feature width D.
        past_positives: past features may be positives, too, not only negatives; not with
            ``positive="paired"``.
        warm_up: number of first batches that are remembered, but compared with themselves alone:
            early features drift too fast to be worth comparing with.

    Raises:
        ValueError: a number is out of range, or the options do not go together.

    Attributes:
        sketches: bank of past sketches with ``features`` [M, D], L2-normalised if the loss does
            that, and ``labels`` [M].
        photos: bank of past photos.

    Source: Wang et al., "Cross-Batch Memory for Embedding Learning", arXiv 1912.06798; one bank
    per modality is our reading. There the current batch is part of the memory; here it is compared
    with directly, so that its own rows carry gradient.
    """

    def __init__(
        self,
        loss: WeightedQuadrupletLoss,
        *,
        size: int,
        width: int,
        past_positives: bool = False,
        warm_up: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(loss, WeightedQuadrupletLoss):
            raise TypeError(f"{_NAME}: loss must be a WeightedQuadrupletLoss, got {kind_of(loss)}")
        size = as_integer(_NAME, "size", size, least=1, most=LARGEST)
        width = as_integer(_NAME, "width", width, least=1)
        warm_up = as_integer(_NAME, "warm_up", warm_up, least=0)
        if loss.negative == "all":
            raise ValueError(f"{_NAME}: loss must mine its negatives, got one with negative='all'")
        if past_positives and loss.positive == "paired":
            raise ValueError(f"{_NAME}: past_positives must be False for a loss of given pairs")
        self.loss = loss
        self.size = size
        self.width = width
        self.past_positives = past_positives
        self.warm_up = warm_up
        self.sketches = FeatureBank(size=size, width=width)
        self.photos = FeatureBank(size=size, width=width)
        self._batches = 0

    def extra_repr(self) -> str:
        """Return the options, for ``repr``."""
        return options_of(self)

    def forward(
        self, sketches: Tensor, photos: Tensor, labels: Labels, weights: Tensor | None = None
    ) -> Tensor:
        """Compute the loss of a batch against itself and the memory, and remember the batch.

        Args:
            sketches: [B_s, D] float.
            photos: [B_i, D] float.
            labels: [B] integers, or a pair of [B_s] and [B_i].
            weights: [B_s] float, factor of each sketch anchor.

        Returns:
            Scalar, or [B_s] with the loss's ``reduction="none"``.

        Raises:
            ValueError: as :class:`zsbir_fast.WeightedQuadrupletLoss`, or features of another width.
        """
        batch = self.loss.join(sketches, photos, labels, weights, width=self.width)
        loss = self.loss.joined_loss(batch, bank=self.bank())
        self.remember(batch)
        return loss[batch.own] if self.loss.reduction == "none" else loss

    if TYPE_CHECKING:  # nn.Module would say Any
        __call__ = forward

    def bank(self) -> Bank | None:
        """Return the remembered features, or None while warming up or empty."""
        if self._batches < self.warm_up or not len(self.photos) or not len(self.sketches):
            return None
        return Bank(
            self.sketches.features,
            self.sketches.labels,
            self.photos.features,
            self.photos.labels,
            self.past_positives,
        )

    def remember(self, batch: JoinedBatch) -> None:
        """Write a batch over the oldest rows; does nothing in evaluation mode.

        Args:
            batch: from the loss's ``join``; the same on all processes.
        """
        if not self.training:
            return
        # The rows are kept ready, so that no step has to normalise a large memory again.
        self.sketches.add(self.loss.prepare(batch.sketches.detach()), batch.sketch_labels)
        self.photos.add(self.loss.prepare(batch.photos.detach()), batch.photo_labels)
        self._batches += 1

    def references(
        self, features: Tensor, labels: Integers, modality: Literal["sketch", "photo"] = "photo"
    ) -> tuple[Tensor, Tensor]:
        """Put the batch and the memory of a modality together, for other losses.

        E.g. ``batch_all_triplet_loss(sketches, labels, *memory.references(photos, labels))``. If
        the memory's loss normalises features, these are normalised: normalise the anchors, too.

        Args:
            features: [B, D] float, the batch; they come first.
            labels: [B] integers.
            modality: ``"sketch"`` or ``"photo"``.

        Returns:
            Features [B + M, D] and labels [B + M]; M is 0 while warming up.

        Raises:
            ValueError: another modality, shapes do not fit, or a feature is not finite.
            TypeError: features are no dense floating-point tensor, or labels are not integers.
        """
        name = f"{_NAME}.references"
        check_choice(name, "modality", modality, Literal["sketch", "photo"])
        check_feature_shape(name, "features", features)
        labels = as_labels(name, "labels", labels, len(features), "features", features)
        features, bank = self.loss.prepare(features), self.bank()
        if bank is None:
            return features, labels
        past = bank[:2] if modality == "sketch" else bank[2:4]
        return torch.cat([features, past[0].to(features.dtype)]), torch.cat([labels, past[1]])

    def get_extra_state(self) -> Tensor:
        """Return how many batches were remembered; torch stores it in the state dict."""
        return torch.tensor(self._batches)

    def set_extra_state(self, state: Tensor) -> None:
        """Take up the position in the warm-up; torch calls this."""
        self._batches = int(state)
