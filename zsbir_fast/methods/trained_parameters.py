"""How many parameters of a method are trained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from zsbir_fast.methods.contract import Method


@dataclass(frozen=True)
class TrainedParameters:
    """Numbers of parameters; a parameter that is used twice counts once.

    Attributes:
        trained: those of the whole model that are trained.
        every: all of the model, frozen ones included. Buffers are none.
        encoder_trained: those of its backbone that are trained; 0 without a backbone.
        encoder: all of the backbone.
        what: what of the encoder is trained, in words; empty where it does not say.
    """

    trained: int
    every: int
    encoder_trained: int
    encoder: int
    what: str

    @staticmethod
    def of(model: Method) -> TrainedParameters:
        """Count the parameters of a method.

        Args:
            model: the method, built and not yet changed by training.
        """
        backbone = model.backbone()
        return TrainedParameters(
            *_counts(model),
            *((0, 0) if backbone is None else _counts(backbone)),
            str(getattr(backbone, "tuned", "")),
        )

    def __str__(self) -> str:
        """Say it in one line, e.g. ``"trains 12 of 100 parameters (12 %): LayerNorm only"``."""
        text = f"trains {_share(self.trained, self.every, 'parameters ')}"
        if self.encoder and self.trained < self.every:
            text += f", of the encoder {_share(self.encoder_trained, self.encoder)}"
        return f"{text}: {self.what}" if self.what else text


def _counts(part: nn.Module) -> tuple[int, int]:
    held = list(part.parameters())
    return sum(p.numel() for p in held if p.requires_grad), sum(p.numel() for p in held)


def _share(trained: int, every: int, what: str = "") -> str:
    percent = 100 * trained / every if every else 0.0
    return f"{trained:,} of {every:,} {what}({percent:.3g} %)"
