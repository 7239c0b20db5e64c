"""How well a sketch and a photo fit each other: the two readings of DM-WAN's aggregation blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsbir_fast._words import shown
from zsbir_fast.encoders.encoder import Features
from zsbir_fast.methods.dmwan.options import GlobalBlock, Projections
from zsbir_fast.methods.relation import RelationNetwork, TokenReduction
from zsbir_fast.ops._checks import Impl
from zsbir_fast.ops.token_weighting import (
    TokenWeighting,
    pairwise_token_score,
    token_weighting,
)
from zsbir_fast.reference.token_weighting import Beta, safe_cosine, unit_rows, word_weights
from zsbir_fast.report.explanation import PatchAnswers
from zsbir_fast.text.transformer import TextTransformer

if TYPE_CHECKING:
    from zsbir_fast.text.class_text import ClassText

Patches = tuple[Tensor, Tensor, Tensor, Tensor]
"""Keys and values of the sketches, keys and values of the photos."""


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


class _Query(NamedTuple):
    """Projected words [C, L, D] and wholes [C, D] of all classes."""

    words: Tensor
    whole: Tensor


class TextWeighting(nn.Module):
    """The words of the class attend over the patches: equations (1) to (5).

    Args:
        text: tokens, mask and global feature of every seen class.
        patch_width: width of the encoder's tokens and of its global feature.
        width: common width of the projections.
        temperature: of the attention.
        beta: weights of the words.
        sketch_text: the text that sketches meet; default: ``text``, as photos do.
        projections: ``"learned"``, or ``"identity"``: texts and patches are compared as they are.
        global_block: ``"attention"`` of the whole text over the patches, or the encoder's
            ``"global_feature"`` behind a projection of its own.
        text_layers: layers of a transformer over the words.
        text_heads: heads of each.
        impl: ``"fused"``: the kernels. ``"reference"``: plain PyTorch.

    Attributes:
        words: the word behind each token, a list per class.

    Raises:
        ValueError: ``"identity"`` where text and patches differ in width, two texts that differ in
            their number of tokens, or heads that do not divide the width.

    Source: modules, DM-WAN, arXiv 2511.00925; equations, our reading.
    """

    tokens: Tensor
    mask: Tensor
    text_global: Tensor
    sketch_tokens: Tensor
    sketch_global: Tensor

    def __init__(
        self,
        text: ClassText,
        *,
        patch_width: int,
        width: int,
        temperature: float,
        beta: Beta,
        sketch_text: ClassText | None = None,
        projections: Projections = "learned",
        global_block: GlobalBlock = "attention",
        text_layers: int = 0,
        text_heads: int = 4,
        impl: Impl = "fused",
    ) -> None:
        super().__init__()
        self.register_buffer("tokens", _normalised(text.tokens.float()))
        self.register_buffer("mask", text.mask)
        self.register_buffer("text_global", _normalised(text.global_.float()))
        self.two_texts = sketch_text is not None
        if sketch_text is not None:
            _require_same_words(text, sketch_text)
            self.register_buffer("sketch_tokens", _normalised(sketch_text.tokens.float()))
            self.register_buffer("sketch_global", _normalised(sketch_text.global_.float()))
        text_width = text.tokens.shape[2]
        if projections == "identity" and text_width != patch_width:
            raise ValueError(
                "DMWAN: weighting.projections must be 'learned' where text and patches differ in "
                f"width, {text_width} and {patch_width}, got 'identity'"
            )

        def projection(of: int) -> nn.Module:
            if projections == "identity":
                return nn.Identity()
            return nn.Linear(of, width, bias=False)

        self.query = projection(width if text_layers else text_width)
        self.key = projection(patch_width)
        self.value = projection(patch_width)
        self.whole = projection(patch_width) if global_block == "global_feature" else None
        self.transformer = (
            TextTransformer(text_width, width=width, layers=text_layers, heads=text_heads)
            if text_layers
            else None
        )
        self.temperature = temperature
        self.beta = beta
        self.impl: Impl = impl
        self.words = text.words

    def forward(self, sketch: Features, photo: Features, labels: Tensor) -> PairAlignment:
        """Align sketch i with photo i, both of class ``labels[i]``."""
        texts = self._texts()
        patches = self._patches(sketch, photo)
        local = self._block(texts, self.mask, patches, labels)
        if self.whole is None:
            # The global block is the local one with a single word: the whole text.
            alone = [_Query(text.whole[:, None], text.whole) for text in texts]
            block = self._block(alone, torch.ones_like(self.mask[:, :1]), patches, labels)
            global_ = block.scores
            wholes = (block.sketch_pooled[:, 0], block.photo_pooled[:, 0])
        else:
            wholes = (
                self.whole(_normalised(sketch.global_)).float(),
                self.whole(_normalised(photo.global_)).float(),
            )
            global_ = safe_cosine(*wholes)
        pooled = ((_over_words(local.sketch_pooled), _over_words(local.photo_pooled)), wholes)
        # A class without words must not lose its weight in the batch: it is judged as a whole.
        has_words = self.mask.any(1)[labels]
        return PairAlignment(torch.where(has_words, local.scores, global_), global_, pooled)

    @torch.no_grad()
    def explain(self, sketch: Features, photo: Features, labels: Tensor) -> PatchAnswers:
        """Show which patches of sketch i and photo i answer the words of class ``labels[i]``."""
        patches = self._patches(sketch, photo)
        result = self._block(self._texts(), self.mask, patches, labels, return_attention=True)
        assert result.sketch_attention is not None
        assert result.photo_attention is not None
        chosen = [self.words[label] for label in labels.tolist()]
        return PatchAnswers(chosen, result.sketch_attention, result.photo_attention)

    def _texts(self) -> list[_Query]:
        """The text that photos meet, and the one that sketches meet where that is another."""
        texts = [(self.tokens, self.text_global)]
        if self.two_texts:
            texts.append((self.sketch_tokens, self.sketch_global))
        if self.transformer is not None:
            seen = [self.transformer(tokens, self.mask) for tokens, _ in texts]
            texts = [(text.tokens, text.global_) for text in seen]
        return [_Query(self.query(tokens), self.query(whole)) for tokens, whole in texts]

    def _patches(self, sketch: Features, photo: Features) -> Patches:
        sketch_tokens, photo_tokens = _normalised(sketch.tokens), _normalised(photo.tokens)
        return (
            self.key(sketch_tokens),
            self.value(sketch_tokens),
            self.key(photo_tokens),
            self.value(photo_tokens),
        )

    def _block(
        self,
        texts: Sequence[_Query],
        mask: Tensor,
        patches: Patches,
        labels: Tensor,
        *,
        return_attention: bool = False,
    ) -> TokenWeighting:
        """Equations (1) to (3) for one text, or for one of photos and one of sketches."""
        if len(texts) == 1:
            return self._weigh(texts[0], mask, patches, labels, return_attention)
        of_photos, of_sketches = texts
        # The other modality has a single patch of zeros, so that it costs nothing.
        key, value, photo_key, photo_value = (x.new_zeros(len(x), 1, x.shape[2]) for x in patches)
        sketch_alone = (*patches[:2], photo_key, photo_value)
        sketch = self._weigh(of_sketches, mask, sketch_alone, labels, return_attention)
        photo = self._weigh(of_photos, mask, (key, value, *patches[2:]), labels, return_attention)
        weights = torch.stack([word_weights(t.words, mask, t.whole, self.beta) for t in texts])
        cosines = safe_cosine(sketch.sketch_pooled, photo.photo_pooled)
        return TokenWeighting(
            (weights.mean(0)[labels] * cosines).sum(1),
            sketch.sketch_pooled,
            photo.photo_pooled,
            sketch.sketch_attention,
            photo.photo_attention,
        )

    def _weigh(
        self,
        text: _Query,
        mask: Tensor,
        patches: Patches,
        labels: Tensor,
        return_attention: bool,
    ) -> TokenWeighting:
        result = token_weighting(
            text.words,
            mask,
            *patches,
            labels,
            text_global=text.whole,
            temperature=self.temperature,
            beta=self.beta,
            return_pooled=True,
            return_attention=return_attention,
            impl=self.impl,
        )
        return cast("TokenWeighting", result)


class PatchWeighting(nn.Module):
    """Patches against patches, and without parameters but those of ``relation``: reading B.

    Args:
        relation: scores the pairs in place of the best matches.
        text: class text, for the anchor.
        anchor: share of the class anchor in the global score.
        impl: ``"fused"``: the kernels. ``"reference"``: plain PyTorch.

    Source: our reading; the local score is that of FILIP, arXiv 2111.07783, or of ZSE-SBIR, arXiv
    2303.14348.
    """

    text_global: Tensor

    def __init__(
        self,
        *,
        relation: PatchRelation | None = None,
        text: ClassText | None = None,
        anchor: float = 0.0,
        impl: Impl = "fused",
    ) -> None:
        super().__init__()
        self.relation = relation
        self.anchor = anchor
        if anchor:
            assert text is not None
            self.register_buffer("text_global", text.global_.float())
        self.impl: Impl = impl

    def forward(self, sketch: Features, photo: Features, labels: Tensor) -> PairAlignment:
        """Align sketch i with photo i; the labels are those of the anchor."""
        pooled = ((sketch.global_, photo.global_),)
        global_ = safe_cosine(*pooled[0])
        if self.anchor:
            whole = self.text_global[labels]
            fit = (safe_cosine(sketch.global_, whole) + safe_cosine(photo.global_, whole)) / 2
            global_ = (1 - self.anchor) * global_ + self.anchor * fit
        if self.relation is None:
            local = pairwise_token_score(sketch.tokens, photo.tokens, impl=self.impl)
        else:
            local = self.relation(sketch.tokens, photo.tokens)
        return PairAlignment(local, global_, pooled)

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


class PatchRelation(nn.Module):
    """The relation score of ZSE-SBIR: reduced patches, their cosines, and a small network.

    Args:
        width: of the patches.
        tokens: patches of an image; they form a square grid.

    Raises:
        ValueError: they do not.

    Source: ZSE-SBIR, arXiv 2303.14348; as a weight of pairs, our reading.
    """

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.reduction = TokenReduction(width, tokens)
        self.network = RelationNetwork(self.reduction.count)

    def forward(self, sketches: Tensor, photos: Tensor) -> Tensor:
        """Score sketch i [B, N, D] with photo i: [B], in 0..1."""
        scores: Tensor = self.network(self.reduction(sketches), self.reduction(photos))
        return scores

    if TYPE_CHECKING:  # nn.Module would say Any
        __call__ = forward


def _require_same_words(text: ClassText, sketch_text: ClassText) -> None:
    """Word j of a sketch is compared with word j of a photo, so there must be as many."""
    if text.tokens.shape != sketch_text.tokens.shape or not torch.equal(
        text.mask, sketch_text.mask
    ):
        counts, others = text.mask.sum(1).tolist(), sketch_text.mask.sum(1).tolist()
        row = next((i for i, (a, b) in enumerate(zip(counts, others, strict=True)) if a != b), 0)
        raise ValueError(
            "DMWAN: weighting.sketch_prompt must give every class as many tokens as "
            f"weighting.prompt, got {others[row]} and {counts[row]} for {shown(text.classes[row])}"
        )


def _normalised(tokens: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the width, so that any encoder starts with soft attention."""
    return F.layer_norm(tokens, tokens.shape[-1:])


def _over_words(rows: Tensor) -> Tensor:
    """Sum over words [B, L, D] to [B, D]; padding rows are zero, and only the direction counts."""
    return rows.sum(1)
