"""DM-WAN's weighting as its options say: built, taken from stored weights, and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from zsbir_fast.encoders.encoder import Encoder, Features
from zsbir_fast.losses.gathering import Share
from zsbir_fast.methods.dmwan.options import TermOptions, WeightingOptions
from zsbir_fast.methods.dmwan.pair_weighting import PatchRelation, PatchWeighting, TextWeighting
from zsbir_fast.methods.relation import token_count
from zsbir_fast.ops._checks import Impl

if TYPE_CHECKING:
    from zsbir_fast.text.class_text import ClassText

# What the relation network of ZSE-SBIR is to say of two images of one class, and of two classes.
_SAME, _OTHER = 0.99, 0.01


class Texts(NamedTuple):
    """Class text: the one that photos meet, and that of sketches where they have their own."""

    photo: ClassText | None
    sketch: ClassText | None


def read_texts(
    classes: Sequence[str],
    options: WeightingOptions,
    text: ClassText | None,
    sketch_text: ClassText | None,
) -> Texts:
    """Read the class text that the options ask for, or take what is given.

    Args:
        classes: names of the seen classes.
        options: of the weighting.
        text: made before; replaces ``options.text_source``.
        sketch_text: likewise, for sketches.

    Returns:
        The texts.

    Raises:
        ValueError: text of another number of classes, or one of two texts is missing.
    """
    if not options.reads_text:
        return Texts(None, None)
    if text is None:
        text, sketch_text = options.texts(classes)
    two = options.sketch_prompt is not None
    if two != (sketch_text is not None):
        wanted = "given with text for" if two else "None without"
        raise ValueError(f"DMWAN: sketch_text must be {wanted} weighting.sketch_prompt")
    for name, each in (("text", text), ("sketch_text", sketch_text)):
        if each is not None and len(each.tokens) != len(classes):
            raise ValueError(
                f"DMWAN: {name} must have tokens of {len(classes)} classes, got {len(each.tokens)}"
            )
    return Texts(text, sketch_text)


def build_weighting(
    texts: Texts, encoder: Encoder, options: WeightingOptions, impl: Impl
) -> TextWeighting | PatchWeighting:
    """Build what scores the pairs.

    Args:
        texts: from :func:`read_texts`.
        encoder: the image encoder, of photos if there are two.
        options: of the weighting.
        impl: ``"fused"`` or ``"reference"``.

    Returns:
        The module.

    Raises:
        ValueError: widths do not fit, or patches form no square grid where that is needed.
    """
    if options.kind == "pairwise":
        if options.anchor and texts.photo is not None:
            _require_one_space(texts.photo.global_.shape[1], encoder.width)
        relation = None
        if options.pair_score == "relation":
            relation = PatchRelation(encoder.width, token_count(encoder))
        return PatchWeighting(relation=relation, text=texts.photo, anchor=options.anchor, impl=impl)
    assert texts.photo is not None
    return TextWeighting(
        texts.photo,
        patch_width=encoder.width,
        width=options.width,
        temperature=options.attention_temperature,
        beta=options.beta,
        sketch_text=texts.sketch,
        projections=options.projections,
        global_block=options.global_block,
        text_layers=options.text_layers,
        text_heads=options.text_heads,
        impl=impl,
    )


def stored_texts(
    classes: Sequence[str], options: WeightingOptions, stored: Mapping[str, Tensor]
) -> dict[str, ClassText]:
    """Take the class text from stored weights.

    Args:
        classes: names of the seen classes.
        options: of the weighting.
        stored: the stored weights by name.

    Returns:
        Arguments of the method.

    Raises:
        ValueError: the weights lack it.
    """
    if not options.reads_text:
        return {}
    from zsbir_fast.text.class_text import ClassText

    if options.kind == "pairwise":
        (global_,) = _take(stored, ("text_global",))
        return {"text": ClassText.from_tensors(classes, global_[:, None], global_=global_)}
    tokens, mask, global_ = _take(stored, ("tokens", "mask", "text_global"))
    found = {"text": ClassText.from_tensors(classes, tokens, mask=mask, global_=global_)}
    if options.sketch_prompt is not None:
        tokens, global_ = _take(stored, ("sketch_tokens", "sketch_global"))
        found["sketch_text"] = ClassText.from_tensors(classes, tokens, mask=mask, global_=global_)
    return found


def check_terms(weighting: WeightingOptions, terms: TermOptions) -> None:
    """Refuse a term for a relation network that there is not.

    Args:
        weighting: options of the weighting.
        terms: factors of the loss.

    Raises:
        ValueError: as said.
    """
    if terms.relation and weighting.pair_score != "relation":
        raise ValueError(
            "DMWAN: terms.relation must be 0 unless weighting.pair_score is 'relation', got "
            f"{terms.relation}"
        )


def what_stays_as_drawn(weighting: WeightingOptions, terms: TermOptions) -> str | None:
    """Tell which weights of the weighting no term of the loss trains.

    Args:
        weighting: options of the weighting.
        terms: factors of the loss.

    Returns:
        A sentence for a warning; None where all of them learn.
    """
    if not weighting.detach and terms.quadruplet:
        return None
    why = "weighting.detach is true" if weighting.detach else "terms.quadruplet is 0"
    if weighting.kind == "text":
        if terms.align or weighting.projections == "identity":
            return None
        return (
            f"DMWAN: the projections of the weighting stay as they were drawn, because {why} and "
            "terms.align is 0, so that pairs are weighed by random projections"
        )
    if weighting.pair_score == "relation" and not terms.relation:
        return (
            f"DMWAN: the relation network stays as it was drawn, because {why} and terms.relation "
            "is 0, so that pairs are weighed by a random network"
        )
    return None


def relation_loss(
    weighting: PatchWeighting,
    matched: Tensor,
    sketch: Features,
    photo: Features,
    labels: Tensor,
    share: Share,
) -> Tensor:
    """Equation (12) of CMAAN: the squared error of the relation scores.

    Every sketch is compared with the photo that it is weighed with, and with the next photo of the
    joined batch that is of another class.

    Args:
        weighting: has the relation network.
        matched: [B] scores of the weighed pairs of this process.
        sketch: features of its sketches.
        photo: features of its photos.
        labels: [B of all processes] classes.
        share: joins batches.

    Returns:
        Scalar.
    """
    assert weighting.relation is not None
    other = next_of_another_class(labels)[share.own]
    photos = share.join(photo.tokens)[other.clamp_min(0)]
    scores = share.join(weighting.relation(sketch.tokens, photos))
    there = share.join(other) >= 0
    errors = torch.cat([(share.join(matched) - _SAME).square(), (scores - _OTHER).square()[there]])
    return errors.mean()


def next_of_another_class(labels: Tensor) -> Tensor:
    """Find for every row the next row of another class, round the end.

    Args:
        labels: int64 [B].

    Returns:
        int64 [B]; -1 where all are of one class.
    """
    rows = torch.arange(len(labels), device=labels.device)
    turned = (rows[:, None] + rows) % len(labels)  # [B, B]: the row itself, the next one, ...
    differs = labels[turned] != labels[:, None]
    first = differs.int().argmax(1)
    return torch.where(differs.any(1), turned[rows, first], -1)


def _require_one_space(text_width: int, image_width: int) -> None:
    if text_width != image_width:
        raise ValueError(
            "DMWAN: weighting.anchor must be 0 where text and images differ in width, "
            f"{text_width} and {image_width}, as they are in no common space"
        )


def _take(stored: Mapping[str, Tensor], names: Sequence[str]) -> list[Tensor]:
    keys = [f"pair_weighting.{name}" for name in names]
    absent = [key for key in keys if key not in stored]
    if absent:
        raise ValueError(f"the weights must hold {', '.join(keys)}, but lack {absent[0]}")
    return [stored[key] for key in keys]
