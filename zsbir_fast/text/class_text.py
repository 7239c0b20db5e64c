"""Class names as text features: tokens, a mask and a feature of the whole."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from statistics import median

import torch
from torch import Tensor

from zsbir_fast._arguments import as_integer, check_choice
from zsbir_fast._words import did_you_mean, shown
from zsbir_fast.data.names import check_distinct, listing, spoken_name
from zsbir_fast.text import sources
from zsbir_fast.text.descriptions import Descriptions, bundled_descriptions
from zsbir_fast.text.prompts import PHOTO

NAMES, SENTENCES = "glove", "glove:sentences"
_FEW, _MANY = 8, 128  # tokens of a class at most: related names, words of sentences


class ClassText:
    """Text features of classes, for models that weigh image patches by words.

    ``source="glove"``, which needs no download: the bundled 300-d vectors of whole class
    names, not of a full vocabulary. The first token of a class is the vector of its name; the
    others are vectors of *other class names* that occur in its description ("door", "wheel", for
    a car), so the words of a sentence in between are lost. Without ``descriptions``, a bundled list
    says which names occur in those of other projects. A name without a vector of its own
    gets the mean of the vectors of words in it (``ceiling_fan``: "fan"), else the mean of those
    in its description, else a unit vector drawn from the hash of the name, which means nothing
    but is always the same; ``origins`` says which. All vectors have length 1.

    ``source="glove:sentences"``, which needs no download: the words of the description, by a
    bundled table of 20,000 words (100-d GloVe). Every different word but stop words is one token,
    however often it occurs, those that occur most often first; word order is lost. An unknown word
    gets the mean of the known ones that share its beginning (``unknown`` has such words). The
    class as a whole is the mean of the words of its name, or with ``whole="sentences"`` that of
    its sentences. A class has at least two tokens, so that its parts and its whole differ.

    ``source="open_clip:<model>"``: the words of a prompt as the text tower of a CLIP model sees
    them; with ``descriptions`` or ``prompts`` those of all sentences of the class, one sentence
    after the other, and as a whole the mean of the sentences' features, each and the mean of
    length 1. A sentence beyond the context length is refused.

    All readings of "textual tokens" are ours.

    Args:
        classes: class names, only those to train on.
        source: ``"glove"``, ``"glove:sentences"`` or ``"open_clip:<model>"``, e.g.
            ``"open_clip:ViT-B-32-quickgelu/openai"`` with a weight tag; without one, ``weights``
            decides.
        weights: open_clip only: a tag or a local weight file; None gives random weights.
        prompt: open_clip only: template with ``{}`` for the class name.
        descriptions: sentences by class name. None: ``"glove"`` takes its list,
            ``"glove:sentences"`` the bundled sentences, and open_clip the prompt. An empty mapping,
            for ``"glove"`` only: names alone; the others need sentences of every class.
        prompts: sentences only: which of the bundled sentences, a name that
            ``bundled_descriptions`` in ``zsbir_fast.text.descriptions`` takes.
        whole: sentences only: what stands for the class as a whole, the ``"name"`` (open_clip: the
            prompt) or the mean of the ``"sentences"``. Default: the name for
            ``"glove:sentences"``, where means of sentences are nearly the same for all classes
            (mean cosine of 0.91 over the bundled ones; of names 0.19), else the sentences.
        max_tokens: tokens per class at most; the rest is cut off. Default: 8 for ``"glove"``, 128
            for sentences. Not used with a prompt.

    Attributes:
        classes: tuple of names.
        source: as given; ``"given"`` for :meth:`from_tensors`.
        tokens: float32 [C, L, D], zero where ``mask`` is False.
        mask: bool [C, L], True where there is a token.
        global_: float32 [C, D], the class as a whole.
        words: the word behind each token, a list per class.
        origins: where ``global_`` comes from, per class: ``"vector"``, ``"words"``,
            ``"description"`` or ``"hash"`` (glove), ``"name"`` or ``"sentences"``
            (glove:sentences), ``"open_clip"`` or ``"given"``.
        unknown: words (glove: names) without a vector of their own, each once, a list per class.

    Raises:
        TypeError: an argument is of another type.
        ValueError: no classes, two that are spelt alike, an unknown source, model, tag or
            template, ``max_tokens`` below 1, arguments that exclude each other; with sentences: a
            class without any, or with the same as another, or a sentence that is too long.
        RuntimeError: open_clip weights could not be fetched.

    Source: vectors, Pennington et al., "GloVe", EMNLP 2014.
    """

    classes: tuple[str, ...]
    tokens: Tensor
    mask: Tensor
    global_: Tensor
    words: list[list[str]]
    origins: list[str]
    unknown: list[list[str]]

    def __init__(
        self,
        classes: Sequence[str],
        *,
        source: str = "glove",
        weights: str | None = None,
        prompt: str = PHOTO,
        descriptions: Descriptions | None = None,
        prompts: str | None = None,
        whole: sources.Whole | None = None,
        max_tokens: int | None = None,
    ) -> None:
        check_distinct("ClassText", "classes", classes)
        self.classes = tuple(classes)
        if not self.classes:
            raise ValueError("ClassText: classes must be at least one, got none")
        _check_options(source, weights, prompt, descriptions, max_tokens)
        _check_combination(source, descriptions, prompts, whole)
        self.source = source
        if descriptions is None and (prompts is not None or source == SENTENCES):
            descriptions = bundled_descriptions("all" if prompts is None else prompts)
        most = max_tokens or (_FEW if source == NAMES else _MANY)
        features = self._features(weights, prompt, descriptions, whole, most)
        self.tokens, self.mask, self.global_, self.words, self.origins, self.unknown = features
        if source in (NAMES, SENTENCES):
            self._warn_of_twins()

    def _features(
        self,
        weights: str | None,
        prompt: str,
        descriptions: Descriptions | None,
        whole: sources.Whole | None,
        most: int,
    ) -> sources.TextFeatures:
        if self.source == NAMES:
            return sources.from_names(self.classes, descriptions, max_tokens=most)
        if self.source == SENTENCES:
            assert descriptions is not None
            return sources.from_words(
                self.classes, descriptions, whole=whole or "name", max_tokens=most
            )
        model, _, tag = self.source.partition(":")[2].partition("/")
        if tag and weights is not None:
            raise ValueError(
                f"ClassText: weights must be None where source has a tag, got {shown(weights)} and "
                f"{shown(tag)}"
            )
        chosen = tag or weights
        if descriptions is None:
            return sources.from_clip_prompts(self.classes, model, chosen, prompt)
        return sources.from_clip_sentences(
            self.classes,
            descriptions,
            model,
            chosen,
            prompt,
            whole=whole or "sentences",
            max_tokens=most,
        )

    @property
    def summary(self) -> str:
        """One line on where the text comes from: tokens of the classes, and unknown words."""
        counts = self.mask.sum(1).tolist()
        line = (
            f"text of {len(counts):,} classes from {self.source}: {min(counts)} / "
            f"{median(counts):g} / {max(counts)} tokens a class (least / median / most)"
        )
        unknown = sorted({word for words in self.unknown for word in words})
        if unknown:
            kind = "names" if self.source == NAMES else "words"
            line += f"; {len(unknown):,} {kind} unknown: {listing(unknown, limit=5)}"
        elif self.source in (NAMES, SENTENCES):
            line += "; no word unknown"
        return line

    def __repr__(self) -> str:
        _, tokens, width = self.tokens.shape
        names = listing(map(spoken_name, self.classes), limit=3)
        return (
            f"ClassText({len(self.classes):,} classes with up to {tokens} tokens of {width} "
            f"numbers: {names})"
        )

    @classmethod
    def from_tensors(
        cls,
        classes: Sequence[str],
        tokens: Tensor,
        *,
        mask: Tensor | None = None,
        global_: Tensor | None = None,
        words: list[list[str]] | None = None,
    ) -> ClassText:
        """Take text features that were made elsewhere.

        Args:
            classes: class names.
            tokens: float [C, L, D].
            mask: bool [C, L]; None: every token counts.
            global_: float [C, D]; None: the mean of the tokens of each class.
            words: the word behind each token; None: the class name for each.

        Returns:
            The text, in float32; masked tokens are zero.

        Raises:
            TypeError: something else than tensors.
            ValueError: shapes or dtypes do not fit, a number is not finite, or a class has neither
                token nor ``global_``.
        """
        check_distinct("ClassText.from_tensors", "classes", classes)
        names = tuple(classes)
        _check_given(names, tokens, mask, global_, words)
        text = cls.__new__(cls)
        text.classes = names
        text.mask = torch.ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask
        text.tokens = tokens.float().masked_fill(~text.mask[:, :, None], 0)  # padding may be NaN
        counts = text.mask.sum(1)
        text.global_ = text.tokens.sum(1) / counts[:, None] if global_ is None else global_.float()
        for name, value in (("tokens", text.tokens), ("global_", text.global_)):
            finite = torch.isfinite(value.flatten(1)).all(1)
            if not finite.all():
                raise ValueError(
                    f"ClassText.from_tensors: {name} must be finite in float32, got others for "
                    f"{shown(names[int((~finite).nonzero()[0])])}"
                )
        text.words = words or [[n] * int(k) for n, k in zip(names, counts, strict=True)]
        text.origins = ["given"] * len(names)
        text.unknown = [[] for _ in names]
        text.source = "given"
        return text

    def _warn_of_twins(self) -> None:
        """Tell about classes that text cannot tell apart, such as "fan (big)", "fan (small)"."""
        met: dict[bytes, list[str]] = {}
        for name, vector in zip(self.classes, self.global_, strict=True):
            met.setdefault(vector.numpy().tobytes(), []).append(name)
        for names in met.values():
            if len(names) > 1:
                warnings.warn(
                    f"ClassText: {len(names)} classes have one and the same vector, as the words "
                    f"that are known of them are the same: {listing(names)}",
                    stacklevel=3,
                )


def _check_options(
    source: object, weights: object, prompt: object, descriptions: object, max_tokens: object
) -> None:
    for what, given in (("source", source), ("weights", weights), ("prompt", prompt)):
        if not isinstance(given, str) and not (given is None and what == "weights"):
            raise TypeError(f"ClassText: {what} must be text, got {shown(given)}")
    if max_tokens is not None:
        as_integer("ClassText", "max_tokens", max_tokens, least=1)
    if descriptions is None:
        return
    if not isinstance(descriptions, Mapping):
        raise TypeError(
            "ClassText: descriptions must map class names to lists of sentences, got "
            f"{shown(descriptions)}"
        )
    for name, sentences in descriptions.items():
        listed = isinstance(sentences, (list, tuple)) and all(isinstance(s, str) for s in sentences)
        if not isinstance(name, str) or not listed:
            raise TypeError(
                "ClassText: descriptions must map class names to lists of sentences, got "
                f"{shown(sentences)} for {shown(name)}"
            )


def _check_combination(source: str, descriptions: object, prompts: object, whole: object) -> None:
    """Refuse an unknown source, and arguments that it does not use."""
    family, _, model = source.partition(":")
    if source not in (NAMES, SENTENCES) and (family != "open_clip" or not model):
        raise ValueError(
            "ClassText: source must be 'glove', 'glove:sentences' or 'open_clip:<model>', got "
            f"{shown(source)}{did_you_mean(source, (NAMES, SENTENCES, 'open_clip'))}"
        )
    if whole is not None:
        check_choice("ClassText", "whole", whole, sources.Whole)
    if prompts is not None and descriptions is not None:
        raise ValueError(
            f"ClassText: prompts must be None where descriptions are given, got {shown(prompts)}"
        )
    by_sentence = source != NAMES and (
        source == SENTENCES or prompts is not None or descriptions is not None
    )
    for argument, value in (("prompts", prompts), ("whole", whole)):
        if value is not None and not by_sentence:
            raise ValueError(
                f"ClassText: {argument} must be None where source {shown(source)} takes no "
                f"sentences, got {shown(value)}"
            )


def _check_given(
    classes: tuple[str, ...],
    tokens: Tensor,
    mask: Tensor | None,
    global_: Tensor | None,
    words: list[list[str]] | None,
) -> None:
    function = "ClassText.from_tensors"
    for name, value in (("tokens", tokens), ("mask", mask), ("global_", global_)):
        if not isinstance(value, Tensor) and not (value is None and name != "tokens"):
            raise TypeError(f"{function}: {name} must be a tensor, got {type(value).__name__}")
    if not classes:
        raise ValueError(f"{function}: classes must be at least one, got none")
    if tokens.ndim != 3 or len(tokens) != len(classes) or not tokens.is_floating_point():
        raise ValueError(
            f"{function}: tokens must be float [C, L, D] for {len(classes)} classes, got "
            f"{tokens.dtype} {list(tokens.shape)}"
        )
    if mask is not None and (mask.dtype != torch.bool or mask.shape != tokens.shape[:2]):
        raise ValueError(
            f"{function}: mask must be bool {list(tokens.shape[:2])}, got {mask.dtype} "
            f"{list(mask.shape)}"
        )
    if global_ is not None and global_.shape != (len(classes), tokens.shape[2]):
        raise ValueError(
            f"{function}: global_ must be {[len(classes), tokens.shape[2]]}, got "
            f"{list(global_.shape)}"
        )
    if 0 in tokens.shape:
        raise ValueError(
            f"{function}: tokens must have at least one token and one column, got "
            f"{list(tokens.shape)}"
        )
    counts = torch.full((len(classes),), tokens.shape[1]) if mask is None else mask.sum(1)
    if global_ is None and bool((counts == 0).any()):
        raise ValueError(f"{function}: every class must have a token where global_ is None")
    if words is not None and [len(row) for row in words] != counts.tolist():
        raise ValueError(
            f"{function}: words must be one per token, {counts.tolist()}, got "
            f"{[len(row) for row in words]}"
        )
