"""Low-rank additions to the layers of an encoder, by the peft library, and their merging."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsbir_fast._words import shown
from zsbir_fast.encoders.encoder import Encoder, OpenClipEncoder
from zsbir_fast.encoders.options import TuningOptions

ATTENTION = ("attn.qkv", "attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.proj")
"""Ends of the names of the projections of an attention, in timm's networks and in ours."""


class LayeredAttention(nn.Module):
    """Self-attention of ``nn.MultiheadAttention`` whose projections are layers of their own.

    torch's module reads the weights of its projections and never calls them as layers, so that
    nothing can be added to what they give. The parameters are those of the given module.

    Args:
        whole: the module; queries, keys and values have one width.

    Raises:
        ValueError: it has other widths, biases of keys and values, or no bias.
    """

    def __init__(self, whole: nn.MultiheadAttention) -> None:
        super().__init__()
        if whole.in_proj_weight is None or whole.in_proj_bias is None or whole.bias_k is not None:
            raise ValueError(
                "LayeredAttention: whole must have one matrix for queries, keys and values, with a "
                "bias, and no bias of its own for keys and values"
            )
        width = whole.embed_dim
        self.heads, self.batch_first, self.dropout = (
            whole.num_heads,
            whole.batch_first,
            whole.dropout,
        )
        self.qkv = nn.Linear(width, 3 * width, device="meta")  # no random numbers are drawn
        self.proj = nn.Linear(width, width, device="meta")
        self.qkv.weight, self.qkv.bias = whole.in_proj_weight, whole.in_proj_bias
        self.proj.weight, self.proj.bias = whole.out_proj.weight, whole.out_proj.bias

    def forward(
        self,
        x: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Attend, as ``nn.MultiheadAttention`` does.

        Args:
            x: [B, N, D], or [N, B, D] where the given module was not ``batch_first``.
            key: the same tensor; the blocks of a vision tower attend to themselves alone.
            value: the same tensor.
            need_weights: not used; no weights are given.
            attn_mask: see ``scaled_dot_product_attention``.

        Returns:
            A tensor of the shape of ``x``, and None for the weights.
        """
        x = x if self.batch_first else x.transpose(0, 1)
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=2)
        )
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, dropout_p=dropout)
        found = self.proj(mixed.transpose(1, 2).flatten(2))
        return (found if self.batch_first else found.transpose(0, 1)), None

    def whole(self) -> nn.MultiheadAttention:
        """Give torch's module with the same parameters."""
        found = nn.MultiheadAttention(
            self.qkv.in_features,
            self.heads,
            dropout=self.dropout,
            batch_first=self.batch_first,
            device="meta",
        )
        found.in_proj_weight = self.qkv.weight
        found.in_proj_bias = cast(nn.Parameter, self.qkv.bias)
        found.out_proj.weight, found.out_proj.bias = self.proj.weight, self.proj.bias
        return found.train(self.training)


def add_lora(encoder: Encoder, options: TuningOptions) -> int:
    """Put low-rank additions on layers of an encoder, in place; at the start they add nothing.

    Args:
        encoder: the encoder; the attention of an open_clip tower becomes layers.
        options: rank, factor, dropout and the layers.

    Returns:
        The number of layers that got one.

    Raises:
        ValueError: no linear or convolutional layer has such a name.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if isinstance(encoder, OpenClipEncoder):
        _exchange(encoder, nn.MultiheadAttention, LayeredAttention, within=".resblocks.")
    names = _targets(encoder, options.lora_targets)
    config = LoraConfig(
        r=options.lora_rank,
        lora_alpha=options.lora_alpha,  # type: ignore[arg-type]  # a factor, divided by r
        lora_dropout=options.lora_dropout,
        target_modules=names,
    )
    inject_adapter_in_model(config, encoder)
    return len(names)


def merge_lora(encoder: Encoder) -> Encoder:
    """Add the low-rank additions to the weights of their layers, and take them away, in place.

    Args:
        encoder: the encoder; one without additions stays as it is.

    Returns:
        The same encoder, with the layers and the names of parameters that it was built with.
    """
    if any(name.endswith("lora_A") for name, _ in encoder.named_modules()):
        from peft.tuners.lora.layer import LoraLayer

        for name, layer in list(encoder.named_modules()):
            if isinstance(layer, LoraLayer):
                layer.merge()
                encoder.set_submodule(name, layer.get_base_layer())
        del encoder.peft_config
        _exchange(encoder, LayeredAttention, LayeredAttention.whole, within=".resblocks.")
    return encoder


def _targets(encoder: Encoder, ends: Sequence[str] | None) -> list[str]:
    wanted = ATTENTION if ends is None else tuple(ends)
    layers = [
        name for name, layer in encoder.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))
    ]
    found = [name for name in layers if f".{name}".endswith(tuple(f".{end}" for end in wanted))]
    if not found:
        raise ValueError(
            "tune_encoder: tuning.lora_targets must be ends of names of layers, such as "
            f"{shown('.'.join(layers[-1].split('.')[-2:]))}, got {', '.join(wanted)}, which no "
            f"linear or convolutional layer of this {_kind(encoder)} has"
        )
    return found


def _kind(encoder: Encoder) -> str:
    return type(getattr(encoder, "network", encoder)).__name__


def _exchange(encoder: Encoder, old: type[nn.Module], make: Any, *, within: str) -> None:
    with torch.no_grad():
        for name, layer in list(encoder.named_modules()):
            if isinstance(layer, old) and within in name:
                encoder.set_submodule(name, make(layer))
