"""The settings of class text, as every method that reads descriptions takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from zsbir_fast.text.prompts import PHOTO

if TYPE_CHECKING:
    from zsbir_fast.text.class_text import ClassText
    from zsbir_fast.text.transformer import TextTransformer

Whole = Literal["name", "sentences"]


@dataclass(frozen=True)
class TextOptions:
    """Where class text comes from, and the transformer that reads it.

    Attributes:
        source: source of the text, see :class:`zsbir_fast.ClassText`.
        prompts: which of the bundled sentences; None: all for ``"glove:sentences"``, and for
            open_clip no sentences but ``prompt``.
        prompt: open_clip only: template with ``{}`` for the class name.
        whole: what stands for the class as a whole, ``"name"`` or ``"sentences"``; default: the
            source's.
        max_tokens: tokens per class at most; default: the source's.
        layers: of the transformer; 0: none, the words are taken as they are.
        heads: of each layer.
        hidden: width of its feed-forward parts; default: four times its width.
        dropout: in each layer, in training.
    """

    source: str = "glove:sentences"
    prompts: str | None = None
    prompt: str = PHOTO
    whole: Whole | None = None
    max_tokens: int | None = None
    layers: int = 2
    heads: int = 4
    hidden: int | None = None
    dropout: float = 0.0

    def read(self, classes: Sequence[str], *, prompt: str | None = None) -> ClassText:
        """Make the class text.

        Args:
            classes: class names.
            prompt: replaces the template.

        Raises:
            ValueError, TypeError, RuntimeError: as :class:`zsbir_fast.ClassText`.
        """
        from zsbir_fast.text.class_text import ClassText

        return ClassText(
            classes,
            source=self.source,
            prompt=self.prompt if prompt is None else prompt,
            prompts=self.prompts,
            whole=self.whole,
            max_tokens=self.max_tokens,
        )

    def transformer(self, text_width: int, width: int) -> TextTransformer | None:
        """Make the transformer; None without layers.

        Args:
            text_width: of the words that come in.
            width: of the words that go out.

        Raises:
            ValueError, TypeError: as ``zsbir_fast.text.transformer.TextTransformer``.
        """
        if not self.layers:
            return None
        from zsbir_fast.text.transformer import TextTransformer

        return TextTransformer(
            text_width,
            width=width,
            layers=self.layers,
            heads=self.heads,
            hidden=self.hidden,
            dropout=self.dropout,
        )
