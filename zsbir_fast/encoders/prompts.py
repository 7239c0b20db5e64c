"""Visual prompts: learned tokens that pass through a frozen vision transformer with the patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zsbir_fast.encoders.encoder import Encoder, OpenClipEncoder, TimmTokenEncoder


class TokenPath(NamedTuple):
    """Where the tokens of a vision transformer pass.

    Attributes:
        blocks: its blocks in their order; each takes and gives tokens [B, prefix + N, D].
        prefix: class and register tokens, which stand before the patches.
        width: D, inside the network.
        patch: pixels of a patch.
    """

    blocks: Sequence[nn.Module]
    prefix: int
    width: int
    patch: int


class VisualPrompts(nn.Module):
    """Learned tokens between the class token and the patches, in hooks on the blocks.

    They leave the sequence after the last block: what follows sees the tokens that it knows.
    Prompts have no position. With no token at all (a width of 0 in the second dimension of
    :attr:`tokens`) the network is the plain one.

    Args:
        path: the blocks of the network.
        count: tokens P.
        deep: every block has tokens of its own, which replace what the block before made of its
            tokens; False: tokens before the first block alone.

    Attributes:
        tokens: [1 or number of blocks, P, D].

    Source: Jia et al., "Visual Prompt Tuning", arXiv 2203.12119, (4) to (8), with its uniform
    start: bound sqrt(6 / (3 * pixels of a patch + D)).
    """

    def __init__(self, path: TokenPath, *, count: int, deep: bool) -> None:
        super().__init__()
        self.prefix = path.prefix
        bound = math.sqrt(6 / (3 * path.patch + path.width))
        layers = len(path.blocks) if deep else 1
        self.tokens = nn.Parameter(torch.empty(layers, count, path.width).uniform_(-bound, bound))
        path.blocks[0].register_forward_pre_hook(self._insert)
        for layer in range(1, layers):
            path.blocks[layer].register_forward_pre_hook(partial(self._replace, layer))
        path.blocks[-1].register_forward_hook(self._remove)

    def extra_repr(self) -> str:
        """Return numbers of tokens, for ``repr``."""
        layers, count, _ = self.tokens.shape
        return f"{count} tokens, {layers} times"

    def _insert(self, block: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._joined(given[0], layer=0, skipped=0), *given[1:])

    def _replace(self, layer: int, block: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._joined(given[0], layer=layer, skipped=self.tokens.shape[1]), *given[1:])

    def _remove(self, block: nn.Module, given: Any, output: Tensor) -> Tensor:
        return torch.cat(
            [output[:, : self.prefix], output[:, self.prefix + self.tokens.shape[1] :]], dim=1
        )

    def _joined(self, x: Tensor, *, layer: int, skipped: int) -> Tensor:
        prompts = self.tokens[layer].to(x.dtype).expand(len(x), -1, -1)
        return torch.cat([x[:, : self.prefix], prompts, x[:, self.prefix + skipped :]], dim=1)


def token_path(encoder: Encoder) -> TokenPath | None:
    """Find where the tokens of an encoder pass.

    Args:
        encoder: the encoder.

    Returns:
        Its blocks; None where the network has no plain sequence of tokens: convolutional networks,
        and transformers with windows, stages, or positions inside the attention.
    """
    network: Any = getattr(encoder, "network", None)
    if isinstance(encoder, OpenClipEncoder):
        transformer = network.transformer
        if not transformer.batch_first:
            return None
        area = math.prod(network.patch_size)
        return TokenPath(list(transformer.resblocks), 1, int(transformer.width), area)
    if isinstance(encoder, TimmTokenEncoder):
        from timm.models.vision_transformer import VisionTransformer

        if isinstance(network, VisionTransformer):
            area = math.prod(network.patch_embed.patch_size)
            return TokenPath(list(network.blocks), encoder.prefix, int(network.embed_dim), area)
    return None
