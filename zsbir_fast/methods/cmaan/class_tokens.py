"""The descriptions of the seen classes as tokens that images take in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from zsbir_fast._arguments import as_integer, as_share
from zsbir_fast.methods.cmaan.pairs import Text

if TYPE_CHECKING:
    from zsbir_fast.text.class_text import ClassText


@dataclass(frozen=True)
class TextOptions:
    """The text of a class, and the transformer that reads it.

    Attributes:
        source: source of the class text, see :class:`zsbir_fast.ClassText`.
        max_tokens: of a class.
        layers: of the transformer; 0: words are projected alone.
        heads: of each layer.
        width: of the layers.
        hidden: width of each feed-forward part.
        dropout: in each.

    Raises:
        ValueError: a number is out of range.
    """

    source: str = "glove:sentences"
    max_tokens: int = 32
    layers: int = 1
    heads: int = 4
    width: int = 256
    hidden: int = 512
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        for option in ("max_tokens", "heads", "width", "hidden"):
            as_integer("CMAAN", f"text.{option}", getattr(self, option), least=1)
        as_integer("CMAAN", "text.layers", self.layers, least=0)
        as_share("CMAAN", "text.dropout", self.dropout)


class ClassTokens(nn.Module):
    """Tokens of the seen classes, contextual and as wide as those of images.

    Args:
        classes: their names.
        options: source and transformer.
        width: of the tokens that come out.
        text: class text that was made before; None: that of ``options.source``.

    Attributes:
        length: tokens of the longest text.

    Raises:
        ValueError: text of another number of classes, or heads that do not divide the width.

    Source: CMAAN, arXiv 2407.00979 (a transformer reads the sentences of each class); its size is
    our reading.
    """

    tokens: Tensor
    mask: Tensor

    def __init__(
        self,
        classes: Sequence[str],
        options: TextOptions,
        width: int,
        text: ClassText | None,
    ) -> None:
        super().__init__()
        if text is None:
            from zsbir_fast.text.class_text import ClassText

            text = ClassText(classes, source=options.source, max_tokens=options.max_tokens)
        if len(text.tokens) != len(classes):
            raise ValueError(
                f"CMAAN: class_text must have tokens of {len(classes)} classes, got "
                f"{len(text.tokens)}"
            )
        if options.width % options.heads:
            raise ValueError(
                f"CMAAN: text.heads must divide text.width {options.width}, got {options.heads}"
            )
        self.register_buffer("tokens", text.tokens)
        self.register_buffer("mask", text.mask)
        self.words = text.words
        self.length = text.tokens.shape[1]
        self.projection = nn.Linear(text.tokens.shape[2], options.width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                options.width,
                options.heads,
                options.hidden,
                options.dropout,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(options.layers)
        )
        self.output = nn.Linear(options.width, width)

    def forward(self) -> Text:
        """Give the tokens of all classes, [C, L, width]; 0 where there is none."""
        x = self.projection(self.tokens)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~self.mask)
        return Text(self.output(x).masked_fill(~self.mask[:, :, None], 0), self.mask)


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
