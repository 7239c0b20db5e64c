"""How a method explains sketch-photo pairs of seen classes, for pictures and for people."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class PatchAnswers(NamedTuple):
    """Where the words of a pair look.

    Attributes:
        words: B lists of words, one per row of the attention that means something.
        sketch: float [B, L, N_s], share of its attention that a word gives to each patch of the
            sketch; the rows of ``words`` sum to 1.
        photo: float [B, L, N_i], the same for the photo.
    """

    words: list[list[str]]
    sketch: Tensor
    photo: Tensor


class PairExplanation(NamedTuple):
    """How much B sketch-photo pairs count, and why.

    Attributes:
        weights: float [B], 1 on average.
        local: float [B], local score in [-1, 1].
        global_: float [B], global score in [-1, 1].
        answers: which patches answer which word.
    """

    weights: Tensor
    local: Tensor
    global_: Tensor
    answers: PatchAnswers

    def cpu(self) -> PairExplanation:
        """Return a copy on the CPU."""
        answers = self.answers._replace(
            sketch=self.answers.sketch.cpu(), photo=self.answers.photo.cpu()
        )
        return PairExplanation(self.weights.cpu(), self.local.cpu(), self.global_.cpu(), answers)
