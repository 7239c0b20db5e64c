"""CMAAN: sketches, photos and descriptions align through cross-attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zsbir_fast._arguments import check_choice
from zsbir_fast.data.image_spec import ImageSpec, Modality, check_modality
from zsbir_fast.encoders.encoder import Encoder
from zsbir_fast.encoders.options import EncoderOptions
from zsbir_fast.losses.classification import CosineClassifier
from zsbir_fast.losses.gathering import share_rows
from zsbir_fast.methods.cmaan.class_tokens import ClassTextOptions, ClassTokens, stored_text
from zsbir_fast.methods.cmaan.options import (
    CorrespondenceOptions,
    ExchangeOptions,
    RankBy,
    RelationOptions,
)
from zsbir_fast.methods.cmaan.pairs import Exchange, Exchanged, Text, sequence
from zsbir_fast.methods.cmaan.terms import (
    Joined,
    Triplets,
    choose_negatives,
    relation_rows,
    triplet_rows,
)
from zsbir_fast.methods.cmaan.zse import add_patch_pyramid
from zsbir_fast.methods.contract import Losses, Method, Progress
from zsbir_fast.methods.regularisers import StepNoise, UnitEmbedding
from zsbir_fast.methods.relation import RelationNetwork, TokenReduction, token_count
from zsbir_fast.ranking.ranker import EmbeddingRanker, Ranker, ScoreRanker

if TYPE_CHECKING:
    from zsbir_fast.text.class_text import ClassText

_PAIRS = 64
"""Pairs that exchange at once in ranking; 37 MiB of tokens of each modality for ViT-B/16."""


class CMAAN(Method):
    """Two image encoders and a text transformer whose tokens meet in cross-attention.

    In training the tokens of every sketch and of every photo take in the description of its class.
    A triplet loss compares the global tokens after that, and a relation network the patch tokens.
    At retrieval there is no text: images are ranked by the encoders' global features, or by the
    relation network.

    The public abstract of the paper fixes these modules; the equations are our reading, on the
    published code of its base, ZSE-SBIR, which is ``exchange.partner="image"`` with
    ``exchange.style="zse"``. The arguments marked "ours" are additions. See ``docs/methods.md``.

    Args:
        classes: names of the seen classes; labels index them.
        encoder: two image encoders, or one for both modalities; their tokens must form a square
            grid.
        text: the descriptions, and the transformer that reads them.
        exchange: what images take in by cross-attention.
        relation: what the relation network compares.
        loss: the terms of the loss.
        patch_pyramid: the patch embedding is that of ZSE-SBIR's code, the mean of the encoder's and
            of four convolutions; for its published weights alone, see
            :func:`zsbir_fast.load_zse_sbir`.
        rank_by: ``"embedding"``: cosine of the global features. ``"relation"``: the relation
            network's score of every pair; slower, and embeddings hold all patch tokens.
        centre: ours; at inference subtract the modality's mean embedding of the seen classes and
            normalise again.
        mirror: ours; at inference sum the embeddings of an image and of its mirror image, which
            doubles the time.
        mirror_scale: ours; the mirror image is made larger by this factor.
        class_text: class text that was made before, for the same classes; replaces the source
            that ``text`` names.

    Attributes:
        classes: names of the seen classes.

    Raises:
        ValueError: an option is out of range, the encoder's tokens form no square grid, options
            exclude each other, or text of another number of classes.

    Source: Su et al., "Cross-Modal Attention Alignment Network with Auxiliary Text Description for
    Zero-shot Sketch-based Image Retrieval", arXiv 2407.00979; Lin et al., "Zero-Shot Everything
    Sketch-Based Image Retrieval, and in Explainable Style", CVPR 2023, arXiv 2303.14348.
    """

    data_arguments = ("class_text",)
    free_arguments = ("rank_by",)

    def __init__(
        self,
        classes: Sequence[str],
        *,
        encoder: EncoderOptions = EncoderOptions(shared=False),
        text: ClassTextOptions = ClassTextOptions(),
        exchange: ExchangeOptions = ExchangeOptions(),
        relation: RelationOptions = RelationOptions(),
        loss: CorrespondenceOptions = CorrespondenceOptions(),
        patch_pyramid: bool = False,
        rank_by: RankBy = "embedding",
        centre: bool = False,
        mirror: bool = False,
        mirror_scale: float = 1.0,
        class_text: ClassText | None = None,
    ) -> None:
        super().__init__()
        _check(exchange, relation, loss, rank_by)
        self.classes = tuple(classes)
        self.exchange_options, self.relation_options, self.loss = exchange, relation, loss
        self.rank_by = rank_by
        self.encoder = encoder.build_for_modalities()
        if patch_pyramid:
            add_patch_pyramid(self.encoder.of_photos)
        width = self.encoder.width
        self.text = (
            ClassTokens(self.classes, text, width, class_text)
            if exchange.partner == "text"
            else None
        )
        of_words = relation.match == "words" and loss.rn > 0
        self.exchange = Exchange(width, exchange, words=of_words)
        self.reduction = None
        if not of_words:
            self.reduction = TokenReduction(
                width,
                token_count(self.encoder.of_photos),
                reduced=relation.width,
                largest_grid=relation.largest_grid,
                raw_view=relation.raw_view,
            )
        if self.reduction is not None:
            compared = self.reduction.count
        else:
            assert self.text is not None  # words are those of a text, as _check made sure
            compared = self.text.length
        self.relation = RelationNetwork(compared, dropout=relation.dropout)
        self.classifier = (
            CosineClassifier(
                width=width, classes=len(self.classes), temperature=loss.cls_temperature
            )
            if loss.cls
            else None
        )
        self.embedding = UnitEmbedding(
            width, centre=centre, mirror=mirror, mirror_scale=mirror_scale
        )
        self.embedding.require_scale("CMAAN", self.encoder.of_photos)
        self._noise = StepNoise()

    def extra_repr(self) -> str:
        """Return the options, for ``repr``; the encoder says its own."""
        groups = (self.exchange_options, self.relation_options, self.loss)
        return "\n".join([f"{len(self.classes)} classes", *map(repr, groups)])

    def image_spec(self) -> ImageSpec:
        """Give the size and the normalisation that the encoder expects."""
        return self.encoder.spec

    def backbone(self) -> nn.Module:
        """Name the image encoders."""
        return self.encoder

    def notes(self) -> Sequence[str]:
        """Tell how many tokens the text of a class has."""
        return [] if self.text is None else [self.text.summary]

    def losses(self, batch: Mapping[str, Tensor], at: Progress) -> Losses:
        """Losses of a batch of pairs, (7) to (13) of docs/methods.md.

        The negative of a sketch is a photo of another class in the batch. In a distributed run the
        losses are those of the joined batch of all processes, the same on each.

        Args:
            batch: ``"sketches"`` and ``"photos"`` [B, 3, H, W] float, normalised; ``"labels"``
                int64 [B], the class of sketch i and of photo i. B may differ between processes.
            at: how far the run is; random negatives follow from the step.

        Returns:
            The loss; its parts before their factors: ``"tri"``, ``"rn"`` and ``"cls"``, those with
            a factor above 0.
        """
        both = self.encoder.both(batch["sketches"], batch["photos"])
        sketches, photos = (sequence(*features) for features in both)
        (share,) = share_rows("CMAAN.losses", sketches=sketches)
        joined = Joined(share, share.join(photos), share.join(batch["labels"]))
        noise = self._noise.draw(at.step, joined.photos.new_empty([len(joined.labels)] * 2))
        negative = choose_negatives(sketches[:, 0], joined, self.loss.negative, noise)
        there, negative = negative >= 0, negative.clamp_min(0)
        before = Triplets(sketches, photos, joined.photos[negative])
        together, apart = self._pairs(before, batch["labels"], negative, joined)
        rows = {}
        if self.loss.tri:
            rows["tri"] = self._triplet_rows(before, together, apart, there)
        if self.loss.rn:
            rows["rn"] = self._relation_rows(before, together, apart, there)
        parts = {name: share.join(row).mean() for name, row in rows.items()}
        globals_ = share.join(sketches[:, 0]), joined.photos[:, 0]
        self.embedding.learn(*(features.detach() for features in globals_))
        if self.classifier is not None:
            parts["cls"] = self.classifier(torch.cat(globals_), joined.labels.repeat(2))
        loss = torch.stack([getattr(self.loss, name) * part for name, part in parts.items()]).sum()
        return Losses([loss], parts)

    def embed(self, images: Tensor, modality: Modality) -> Tensor:
        """Embed images for retrieval; text is not needed.

        Args:
            images: [B, 3, H, W] float, normalised with the encoder's mean and std.
            modality: ``"sketch"`` or ``"photo"``.

        Returns:
            float32 [B, D], L2-normalised; with ``rank_by="relation"`` the tokens that the relation
            network compares, [B, n * width].

        Raises:
            ValueError: another modality.
        """
        if self.rank_by == "embedding":
            return self.embedding(lambda x: self.encoder(x, modality).global_, images, modality)
        check_modality("embed", modality)
        tokens = sequence(*self.encoder(images, modality))
        if not self._ranks_exchanged:
            tokens = self._reduced(tokens)
        return tokens.flatten(1).float()

    def ranker(self) -> Ranker:
        """Rank by cosine of embeddings, or by the relation network."""
        if self.rank_by == "embedding":
            return EmbeddingRanker("cosine")
        return ScoreRanker(self._relation_scores, name="relation network")

    @classmethod
    def complete(
        cls, classes: Sequence[str], arguments: Mapping[str, Any], stored: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """Leave out the pre-trained weights, and take the class text from the stored ones."""
        encoder: EncoderOptions = arguments.get("encoder", EncoderOptions())
        whole = {**arguments, "encoder": replace(encoder, weights=None)}
        exchange: ExchangeOptions = arguments.get("exchange", ExchangeOptions())
        if exchange.partner == "text":
            whole["class_text"] = stored_text(classes, stored, "text")
        return whole

    @classmethod
    def pretrained_encoder(cls, arguments: Mapping[str, Any]) -> Encoder | None:
        """Build the encoder with its pre-trained weights; None if it starts from random ones."""
        encoder: EncoderOptions = arguments.get("encoder", EncoderOptions())
        return encoder.build() if encoder.is_pretrained else None

    def _pairs(
        self, before: Triplets, labels: Tensor, negative: Tensor, joined: Joined
    ) -> tuple[Exchanged, Exchanged]:
        """The pairs of one class and those of two, after the exchange."""
        text = None if self.text is None else self.text()
        own = None if text is None else text.of(labels)
        together = self.exchange(before.sketches, before.positives, own, own)
        options = self.exchange_options
        if options.partner == "none" or (options.partner, options.negative_text) == ("text", "own"):
            # No image knows its partner, so that the photos that went through serve as negatives.
            join = joined.share.join
            words = together.photo_words
            return together, together._replace(
                photos=join(together.photos)[negative],
                photo_words=None if words is None else Text(*map(join, words)).of(negative),
            )
        return together, self.exchange(before.sketches, before.negatives, own, own)

    def _triplet_rows(
        self, before: Triplets, together: Exchanged, apart: Exchanged, there: Tensor
    ) -> Tensor:
        after = Triplets(together.sketches, together.photos, apart.photos)
        rows = after if self.loss.tri_on == "post_ca" else before
        globals_ = Triplets(*(tokens[:, 0] for tokens in rows))
        return triplet_rows(globals_, there, margin=self.loss.margin, normalize=self.loss.normalize)

    def _relation_rows(
        self, before: Triplets, together: Exchanged, apart: Exchanged, there: Tensor
    ) -> Tensor:
        if self.reduction is None:
            positive, negative = (
                self.relation(_visible(pairs.sketch_words), _visible(pairs.photo_words))
                for pairs in (together, apart)
            )
        elif self.relation_options.side == "post_ca":
            positive, negative = (
                self.relation(self._reduced(pairs.sketches), self._reduced(pairs.photos))
                for pairs in (together, apart)
            )
        else:
            sketches, *photos = map(self._reduced, before)
            positive, negative = (self.relation(sketches, of) for of in photos)
        return relation_rows(positive, negative, there)

    def _reduced(self, tokens: Tensor) -> Tensor:
        """The patch tokens [B, n, width] that are compared, of sequences [B, 1 + N, D]."""
        assert self.reduction is not None
        return self.reduction(tokens[:, 1:])  # type: ignore[no-any-return]

    @property
    def _ranks_exchanged(self) -> bool:
        """Whether the relation network compares tokens that differ from pair to pair."""
        return self.exchange_options.partner == "image" and (
            self.relation_options.side == "post_ca"
        )

    def _relation_scores(self, queries: Tensor, gallery: Tensor) -> Tensor:
        """Scores [q, G] of embeddings, which hold the tokens."""
        assert self.reduction is not None
        like = next(self.parameters())
        if not self._ranks_exchanged:
            count = self.reduction.count
            rows = (x.to(like).reshape(len(x), count, -1) for x in (queries, gallery))
            return self.relation.scores(*rows).to(queries)
        count = 1 + self.reduction.side**2
        sketches, photos = (x.reshape(len(x), count, -1) for x in (queries, gallery))
        return torch.stack([self._pair_scores(x.to(like), photos) for x in sketches]).to(queries)

    def _pair_scores(self, sketch: Tensor, photos: Tensor) -> Tensor:
        """Scores [G] of a sketch [1 + N, D] that exchanges with each photo of [G, 1 + N, D]."""
        scores = []
        for block in torch.split(photos, _PAIRS):
            repeated = sketch.expand(len(block), -1, -1)
            pairs = self.exchange(repeated, block.to(sketch), None, None)
            scores.append(self.relation(self._reduced(pairs.sketches), self._reduced(pairs.photos)))
        return torch.cat(scores)


def _visible(words: Text | None) -> Tensor:
    """The words that are there, and zero vectors, whose cosine with everything is 0."""
    assert words is not None
    return words.tokens.masked_fill(~words.mask[:, :, None], 0)


def _check(
    exchange: ExchangeOptions, relation: RelationOptions, loss: CorrespondenceOptions, rank_by: str
) -> None:
    """Refuse options that exclude each other."""
    check_choice("CMAAN", "rank_by", rank_by, RankBy)
    if relation.match == "words" and exchange.partner != "text":
        raise ValueError(
            "CMAAN: relation.match must be patches where exchange.partner is "
            f"{exchange.partner!r}, which has no words; got 'words'"
        )
    after = {"post_ca"} & {loss.tri_on if loss.tri else "", relation.side if loss.rn else ""}
    if exchange.partner != "none" and not after:
        raise ValueError(
            "CMAAN: exchange.partner must be none where no term of the loss looks at tokens after "
            f"the exchange (loss.tri_on and relation.side), got {exchange.partner!r}"
        )
    if rank_by == "embedding":
        return
    if relation.match == "words":
        raise ValueError(
            "CMAAN: rank_by must be embedding where relation.match is 'words', as there is no text "
            "at retrieval; got 'relation'"
        )
    if not loss.rn:
        raise ValueError(
            "CMAAN: rank_by must be embedding where loss.rn is 0, as the relation network is not "
            "trained then; got 'relation'"
        )
