"""The descriptions of the seen classes as tokens that images take in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from zsbir_fast.methods.cmaan.pairs import Text
from zsbir_fast.text.transformer import TextTransformer

if TYPE_CHECKING:
    from zsbir_fast.text.class_text import ClassText


@dataclass(frozen=True)
class ClassTextOptions:
    """The text of a class, and the transformer that reads it.

    Attributes:
        source: source of the class text, see :class:`zsbir_fast.ClassText`.
        prompts: which of the bundled sentences, see :class:`zsbir_fast.ClassText`; None: all.
        max_tokens: of a class; None: as many as :class:`zsbir_fast.ClassText` takes.
        layers: of the transformer.
        heads: of each layer.
        width: of the layers.
        hidden: width of each feed-forward part; None: four times ``width``.
        dropout: in each layer.
    """

    source: str = "glove:sentences"
    prompts: str | None = None
    max_tokens: int | None = 32
    layers: int = 1
    heads: int = 4
    width: int = 256
    hidden: int | None = 512
    dropout: float = 0.1


class ClassTokens(nn.Module):
    """Tokens of the seen classes, contextual and as wide as those of images.

    Args:
        classes: their names.
        options: source and transformer.
        width: of the tokens that come out.
        text: class text that was made before; None: that of ``options.source``.

    Attributes:
        length: tokens of the longest text.
        words: the word behind each token, a list per class.

    Raises:
        ValueError: text of another number of classes, or options that
            :class:`zsbir_fast.ClassText` or the transformer refuses.

    Source: CMAAN, arXiv 2407.00979 (a transformer reads the sentences of each class); its size is
    our reading.
    """

    tokens: Tensor
    mask: Tensor

    def __init__(
        self,
        classes: Sequence[str],
        options: ClassTextOptions,
        width: int,
        text: ClassText | None,
    ) -> None:
        super().__init__()
        if text is None:
            from zsbir_fast.text.class_text import ClassText

            text = ClassText(
                classes,
                source=options.source,
                prompts=options.prompts,
                max_tokens=options.max_tokens,
            )
        if len(text.tokens) != len(classes):
            raise ValueError(
                f"CMAAN: class_text must have tokens of {len(classes)} classes, got "
                f"{len(text.tokens)}"
            )
        self.register_buffer("tokens", text.tokens)
        self.register_buffer("mask", text.mask)
        self.words = text.words
        self.summary = text.summary
        self.length = text.tokens.shape[1]
        self.transformer = TextTransformer(
            text.tokens.shape[2],
            width=options.width,
            layers=options.layers,
            heads=options.heads,
            hidden=options.hidden,
            dropout=options.dropout,
        )
        self.output = nn.Linear(options.width, width)

    def forward(self) -> Text:
        """Give the tokens of all classes, [C, L, width]; those that are not there mean nothing."""
        return Text(self.output(self.transformer(self.tokens, self.mask).tokens), self.mask)

    if TYPE_CHECKING:  # nn.Module would say Any
        __call__ = forward


def stored_text(classes: Sequence[str], stored: Mapping[str, Tensor], name: str) -> ClassText:
    """Take the class text from stored weights.

    Args:
        classes: names of the seen classes.
        stored: the stored weights by name.
        name: of the ``ClassTokens`` among them.

    Raises:
        ValueError: the weights lack it.
    """
    from zsbir_fast.text.class_text import ClassText

    names = [f"{name}.tokens", f"{name}.mask"]
    absent = [name for name in names if name not in stored]
    if absent:
        raise ValueError(f"the weights must hold {' and '.join(names)}, but lack {absent[0]}")
    tokens, mask = (stored[name] for name in names)
    return ClassText.from_tensors(classes, tokens, mask=mask)
