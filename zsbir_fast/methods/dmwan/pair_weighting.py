"""How well a sketch and a photo fit each other: the two readings of DM-WAN's aggregation blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsbir_fast.encoders.encoder import Features
from zsbir_fast.ops._checks import Impl
from zsbir_fast.ops.token_weighting import (
    TokenWeighting,
    pairwise_token_score,
    token_weighting,
)
from zsbir_fast.reference.token_weighting import Beta, safe_cosine, unit_rows
from zsbir_fast.report.explanation import PatchAnswers

if TYPE_CHECKING:
    from zsbir_fast.text.class_text import ClassText


class PairAlignment(NamedTuple):
    """Scores of B pairs and the features they compare.

    Attributes:
        local: [B] local score in [-1, 1].
        global_: [B] global score in [-1, 1].
        pooled: pairs (sketch features, photo features), [B, D] each, for the alignment loss.
    """

    local: Tensor
    global_: Tensor
    pooled: tuple[tuple[Tensor, Tensor], ...]


class TextWeighting(nn.Module):
    """The words of the class attend over the patches: equations (1) to (5).

    Args:
        text: tokens, mask and global feature of every seen class.
        patch_width: width of the encoder's tokens.
        width: common width of the projections.
        temperature: of the attention.
        beta: weights of the words.
        impl: ``"fused"``: the kernels. ``"reference"``: plain PyTorch.

    Attributes:
        words: the word behind each token, a list per class.

    Source: modules, DM-WAN, arXiv 2511.00925; equations, our reading.
    """

    tokens: Tensor
    mask: Tensor
    text_global: Tensor

    def __init__(
        self,
        text: ClassText,
        *,
        patch_width: int,
        width: int,
        temperature: float,
        beta: Beta,
        impl: Impl = "fused",
    ) -> None:
        super().__init__()
        self.register_buffer("tokens", _normalised(text.tokens.float()))
        self.register_buffer("mask", text.mask)
        self.register_buffer("text_global", _normalised(text.global_.float()))
        self.query = nn.Linear(text.tokens.shape[2], width, bias=False)
        self.key = nn.Linear(patch_width, width, bias=False)
        self.value = nn.Linear(patch_width, width, bias=False)
        self.temperature = temperature
        self.beta = beta
        self.impl: Impl = impl
        self.words = text.words

    def forward(self, sketch: Features, photo: Features, labels: Tensor) -> PairAlignment:
        """Align sketch i with photo i, both of class ``labels[i]``."""
        words, whole = self.query(self.tokens), self.query(self.text_global)
        patches = self._patches(sketch, photo)
        local = self._block(words, self.mask, whole, patches, labels)
        # The global block is the local one with a single word: the whole text.
        everywhere = torch.ones_like(self.mask[:, :1])
        global_ = self._block(whole[:, None], everywhere, whole, patches, labels)
        pooled = (
            (_over_words(local.sketch_pooled), _over_words(local.photo_pooled)),
            (global_.sketch_pooled[:, 0], global_.photo_pooled[:, 0]),
        )
        # A class without words must not lose its weight in the batch: it is judged as a whole.
        has_words = self.mask.any(1)[labels]
        return PairAlignment(
            torch.where(has_words, local.scores, global_.scores), global_.scores, pooled
        )

    @torch.no_grad()
    def explain(self, sketch: Features, photo: Features, labels: Tensor) -> PatchAnswers:
        """Show which patches of sketch i and photo i answer the words of class ``labels[i]``."""
        words, whole = self.query(self.tokens), self.query(self.text_global)
        patches = self._patches(sketch, photo)
        result = self._block(words, self.mask, whole, patches, labels, return_attention=True)
        assert result.sketch_attention is not None
        assert result.photo_attention is not None
        chosen = [self.words[label] for label in labels.tolist()]
        return PatchAnswers(chosen, result.sketch_attention, result.photo_attention)

    def _patches(self, sketch: Features, photo: Features) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sketch_tokens, photo_tokens = _normalised(sketch.tokens), _normalised(photo.tokens)
        return (
            self.key(sketch_tokens),
            self.value(sketch_tokens),
            self.key(photo_tokens),
            self.value(photo_tokens),
        )

    def _block(
        self,
        text: Tensor,
        mask: Tensor,
        whole: Tensor,
        patches: tuple[Tensor, Tensor, Tensor, Tensor],
        labels: Tensor,
        *,
        return_attention: bool = False,
    ) -> TokenWeighting:
        result = token_weighting(
            text,
            mask,
            *patches,
            labels,
            text_global=whole,
            temperature=self.temperature,
            beta=self.beta,
            return_pooled=True,
            return_attention=return_attention,
            impl=self.impl,
        )
        return cast("TokenWeighting", result)


class PatchWeighting(nn.Module):
    """Patches against patches, without text and without parameters: the second reading.

    Args:
        impl: ``"fused"``: the kernels. ``"reference"``: plain PyTorch.

    Source: our reading; the local score is that of FILIP, arXiv 2111.07783.
    """

    def __init__(self, *, impl: Impl = "fused") -> None:
        super().__init__()
        self.impl: Impl = impl

    def forward(self, sketch: Features, photo: Features, labels: Tensor) -> PairAlignment:
        """Align sketch i with photo i; the labels are not used."""
        del labels
        local = pairwise_token_score(sketch.tokens, photo.tokens, impl=self.impl)
        pooled = ((sketch.global_, photo.global_),)
        return PairAlignment(local, safe_cosine(*pooled[0]), pooled)

    @torch.no_grad()
    def explain(self, sketch: Features, photo: Features, labels: Tensor) -> PatchAnswers:
        """Show which patches of photo i the patches of sketch i match best, and how well.

        The one row of the sketch is each patch's cosine with its best match, negative ones as 0,
        over their sum; that of the photo the share of sketch patches that match a patch best.
        """
        cosines = unit_rows(sketch.tokens.float()) @ unit_rows(photo.tokens.float()).mT
        values, best = cosines.max(2)
        values = values.clamp_min(0)
        chosen = F.one_hot(best, cosines.shape[2]).float().mean(1)
        fit = values / values.sum(1, keepdim=True).clamp_min(1e-12)
        return PatchAnswers([["best match"]] * len(labels), fit[:, None], chosen[:, None])


def _normalised(tokens: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the width, so that any encoder starts with soft attention."""
    return F.layer_norm(tokens, tokens.shape[-1:])


def _over_words(rows: Tensor) -> Tensor:
    """Sum over words [B, L, D] to [B, D]; padding rows are zero, and only the direction counts."""
    return rows.sum(1)
