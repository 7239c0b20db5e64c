"""What of an encoder is trained: all, norms, nothing, low-rank additions, or prompts."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zsbir_fast.encoders.encoder import Encoder
from zsbir_fast.encoders.lora import add_lora
from zsbir_fast.encoders.options import TuningOptions
from zsbir_fast.encoders.prompts import VisualPrompts, token_path

_NORMS: dict[str, type[nn.Module]] = {
    "LayerNorm": nn.LayerNorm,
    "BatchNorm": _BatchNorm,
    "GroupNorm": nn.GroupNorm,
}
_PROMPTS = "prompts"  # the name of the prompts in an encoder


def tune_encoder(encoder: Encoder, options: TuningOptions) -> str:
    """Freeze what is not trained, and add what is, in place.

    Args:
        encoder: a plain encoder.
        options: what is trained.

    Returns:
        What is trained, in words, e.g. ``"LayerNorm only"``.

    Raises:
        ValueError: the encoder has no norm with a scale, no layer that ``lora_targets`` names, or
            no plain sequence of patch tokens for prompts.
    """
    mode = options.mode
    if mode == "full":
        return "all of the encoder"
    encoder.requires_grad_(False)
    if mode == "frozen":
        return "nothing of the encoder"
    if mode == "norm":
        return _train_norms(encoder)
    if mode == "lora":
        layers = add_lora(encoder, options)
        return f"LoRA of rank {options.lora_rank} on {layers} layers"
    path = token_path(encoder)
    if path is None:
        network = type(getattr(encoder, "network", encoder)).__name__
        raise ValueError(
            "tune_encoder: encoder must have a plain sequence of patch tokens for tuning.mode "
            f"{mode!r}, as vision transformers of timm and open_clip have, got a {network} without"
        )
    deep = mode == "deep_prompts"
    encoder.add_module(_PROMPTS, VisualPrompts(path, count=options.prompt_tokens, deep=deep))
    where = f"each of {len(path.blocks)} blocks" if deep else "the first block"
    return f"{options.prompt_tokens} prompts before {where}"


def untuned_state(encoder: Encoder) -> dict[str, Tensor]:
    """Give the state with which a newly tuned encoder computes what the plain one does.

    Low-rank additions start with nothing, but prompts with random tokens: they are left out.

    Args:
        encoder: an encoder after :func:`tune_encoder`, before any training.

    Returns:
        Its state dict, without any token in the prompts.
    """
    state: dict[str, Tensor] = encoder.state_dict()
    tokens = f"{_PROMPTS}.tokens"
    if tokens in state:
        state[tokens] = state[tokens][:, :0]
    return state


def _train_norms(encoder: Encoder) -> str:
    kinds = set()
    for module in encoder.modules():
        kind = next((name for name, norm in _NORMS.items() if isinstance(module, norm)), None)
        own = list(module.parameters(recurse=False))
        if kind and own:
            kinds.add(kind)
            for parameter in own:
                parameter.requires_grad_(True)
    if not kinds:
        raise ValueError(
            f"tune_encoder: encoder must have a {' or '.join(_NORMS)} with scale and shift for "
            f"tuning.mode 'norm', got a {type(getattr(encoder, 'network', encoder)).__name__} "
            "without"
        )
    return f"{' and '.join(kind for kind in _NORMS if kind in kinds)} only"
