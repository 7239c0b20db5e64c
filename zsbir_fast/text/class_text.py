"""Class names as text features: tokens, a mask and a feature of the whole."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from zsbir_fast._arguments import as_integer
from zsbir_fast._words import did_you_mean, shown
from zsbir_fast.data.names import by_plain_name, check_distinct, listing, plain_name, spoken_name
from zsbir_fast.text.descriptions import Descriptions, bundled_descriptions
from zsbir_fast.text.prompts import PHOTO, fill_prompt
from zsbir_fast.text.word_vectors import Origin, name_tokens


class ClassText:
    """Text features of classes, for models that weigh image patches by words.

    ``source="glove"``, which needs no download: the bundled vectors are those of whole class
    names, not of a full vocabulary. The first token of a class is the vector of its name; the
    others are vectors of *other class names* that occur in its description ("door", "wheel", for
    a car), so the words of a sentence in between are lost. A name without a vector of its own
    gets the mean of the vectors of words in it (``ceiling_fan``: "fan"), else the mean of those
    in its description, else a unit vector drawn from the hash of the name, which means nothing
    but is always the same; ``origins`` says which. All vectors have length 1.

    ``source="open_clip:<model>"``: the words of a prompt as the text tower of a CLIP model sees
    them. Both readings of "textual tokens" are ours.

    Args:
        classes: class names, only those to train on.
        source: ``"glove"`` or ``"open_clip:<model>"``, e.g. ``"open_clip:ViT-B-32/openai"`` with
            a weight tag; without one, ``weights`` decides.
        weights: open_clip only: a tag or a local weight file; None gives random weights.
        prompt: open_clip only: template with ``{}`` for the class name.
        descriptions: glove only: sentences by class name; None takes the bundled ones, an empty
            mapping none.
        max_tokens: glove only: tokens per class at most.

    Attributes:
        classes: tuple of names.
        tokens: float32 [C, L, D], zero where ``mask`` is False.
        mask: bool [C, L], True where there is a token.
        global_: float32 [C, D], the class as a whole.
        words: the word behind each token, a list per class.
        origins: where ``global_`` comes from, per class: ``"vector"``, ``"words"``,
            ``"description"`` or ``"hash"`` (glove), ``"open_clip"`` or ``"given"``.

    Raises:
        TypeError: an argument is of another type.
        ValueError: no classes, two that are spelt alike, an unknown source, model, tag or
            template, or ``max_tokens`` below 1.
        RuntimeError: open_clip weights could not be fetched.

    Source: vectors, Pennington et al., "GloVe", EMNLP 2014.
    """

    classes: tuple[str, ...]
    tokens: Tensor
    mask: Tensor
    global_: Tensor
    words: list[list[str]]
    origins: list[str]

    def __init__(
        self,
        classes: Sequence[str],
        *,
        source: str = "glove",
        weights: str | None = None,
        prompt: str = PHOTO,
        descriptions: Descriptions | None = None,
        max_tokens: int = 8,
    ) -> None:
        check_distinct("ClassText", "classes", classes)
        self.classes = tuple(classes)
        if not self.classes:
            raise ValueError("ClassText: classes must be at least one, got none")
        _check_options(source, weights, prompt, descriptions, max_tokens)
        family, _, model = source.partition(":")
        if source == "glove":
            self._from_glove(descriptions, max_tokens)
        elif family == "open_clip" and model:
            self._from_open_clip(model, weights, prompt)
        else:
            raise ValueError(
                f"ClassText: source must be 'glove' or 'open_clip:<model>', got {shown(source)}"
                f"{did_you_mean(family, ('glove', 'open_clip'))}"
            )

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
        return text

    def _from_glove(self, descriptions: Descriptions | None, max_tokens: int) -> None:
        known = bundled_descriptions() if descriptions is None else descriptions
        sentences = by_plain_name("ClassText", "classes of descriptions", known.items())
        found = [
            name_tokens(name, sentences.get(plain_name(name), ()), max_tokens=max_tokens)
            for name in self.classes
        ]
        longest = max(len(item.words) for item in found)
        self.tokens = torch.zeros(len(found), longest, found[0].tokens.shape[1])
        self.mask = torch.zeros(len(found), longest, dtype=torch.bool)
        for row, item in enumerate(found):
            self.tokens[row, : len(item.words)] = item.tokens
            self.mask[row, : len(item.words)] = True
        self.global_ = torch.stack([item.vector for item in found])
        self._warn_of_twins()
        self.words = [item.words for item in found]
        origins: list[Origin] = [item.origin for item in found]
        self.origins = list(origins)

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
                    stacklevel=4,
                )

    def _from_open_clip(self, model: str, weights: str | None, prompt: str) -> None:
        from zsbir_fast.text.clip_text import encode_sentences

        name, _, tag = model.partition("/")
        if tag and weights is not None:
            raise ValueError(
                f"ClassText: weights must be None where source has a tag, got {shown(weights)} and "
                f"{shown(tag)}"
            )
        sentences = [fill_prompt(prompt, c) for c in self.classes]
        self.tokens, self.mask, self.global_, self.words = encode_sentences(
            sentences, name, tag or weights
        )
        self.origins = ["open_clip"] * len(sentences)


def _check_options(
    source: object, weights: object, prompt: object, descriptions: object, max_tokens: object
) -> None:
    for what, given in (("source", source), ("weights", weights), ("prompt", prompt)):
        if not isinstance(given, str) and not (given is None and what == "weights"):
            raise TypeError(f"ClassText: {what} must be text, got {shown(given)}")
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
