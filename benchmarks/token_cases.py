"""Batches, data and the float64 references of the token weighting benchmarks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Case:
    """B pairs of N patches each, and texts of L tokens, some of them padding, for C classes."""

    name: str
    words: tuple[int, int]  # fewest and most valid tokens of a class
    mode: Literal["text", "pairwise"] = "text"
    dtype: Literal["float32", "bfloat16"] = "float32"
    B: int = 64
    N: int = 196
    D: int = 512
    L: int = 77
    C: int = 16
    devices: tuple[str, ...] = ("cpu", "cuda")

    @property
    def title(self) -> str:
        """Name and sizes."""
        text = f"{self.name}: B={self.B} N={self.N} D={self.D} {self.dtype}"
        if self.mode == "pairwise":
            return f"{text}, patches against patches, no text"
        low, high = self.words
        words = f"all {high}" if low == high else f"{low} to {high}"
        return f"{text}, {words} of L={self.L} tokens valid"

    def small(self) -> Case:
        """The same in a size for brute force; none a power of two."""
        low = 1 if self.words[0] < self.L else 7
        return replace(self, B=5, N=13, D=24, L=7, C=3, words=(low, 7))


CASES = {
    case.name: case
    for case in (
        Case("mixed", (5, 20)),
        Case("all77", (77, 77)),
        Case("pairwise", (5, 20), "pairwise"),
        Case("mixed_bf16", (5, 20), dtype="bfloat16"),
        Case("all77_bf16", (77, 77), dtype="bfloat16", devices=("cuda",)),
        Case("pairwise_bf16", (5, 20), "pairwise", dtype="bfloat16", devices=("cuda",)),
    )
}
TEXT = tuple(name for name, case in CASES.items() if case.mode == "text")
PAIRWISE = tuple(name for name, case in CASES.items() if case.mode == "pairwise")


@dataclass(frozen=True)
class TokenData:
    """Inputs of a case, and the gradients that arrive at its outputs.

    ``features``: text [C, L, D], keys and values of the sketches and of the photos [B, N, D]; or
    the tokens of both, for the pairwise mode. ``exact`` are the scores [B] in float64.
    """

    case: Case
    features: Tensors
    mask: Tensor  # [C, L] bool
    labels: Tensor  # [B]
    incoming: Tensor  # gradient of the scores [B]
    incoming_pooled: Tensor  # gradient of the pooled rows [2, B, L, D]
    exact: Tensor

    def to(self, device: str, dtype: torch.dtype | None = None) -> TokenData:
        """A copy on a device, whose features want gradients; ``dtype``: the case's."""
        dtype = dtype or getattr(torch, self.case.dtype)
        features = tuple(x.to(device, dtype, copy=True).requires_grad_() for x in self.features)
        mask, labels, exact = (x.to(device) for x in (self.mask, self.labels, self.exact))
        incoming, pooled = (x.to(device, dtype) for x in (self.incoming, self.incoming_pooled))
        return TokenData(self.case, features, mask, labels, incoming, pooled, exact)

    def valid_words(self) -> int:
        """Valid tokens, summed over the pairs."""
        return int(self.mask.sum(1)[self.labels].sum())


def generate(case: Case, seed: int = 0) -> TokenData:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        # Rounded to the case's dtype first, so that float64 starts from the same numbers.
        return torch.randn(*shape, generator=generator).to(getattr(torch, case.dtype)).float()

    low, high = case.words
    lengths = torch.randint(low, high + 1, (case.C,), generator=generator)
    mask = torch.arange(case.L) < lengths[:, None]
    labels = torch.arange(case.B) % case.C
    patches = (case.B, case.N, case.D)
    features = tuple(normal(*patches) for _ in range(2 if case.mode == "pairwise" else 4))
    if case.mode == "text":
        features = (normal(case.C, case.L, case.D), *features)
    pooled = normal(2, case.B, case.L, case.D)
    data = TokenData(case, features, mask, labels, normal(case.B), pooled, torch.zeros(0))
    with torch.no_grad():
        exact = exact_outputs(data.to("cpu", torch.float64))[0]
    return replace(data, exact=exact)


def save(case: Case, folder: Path) -> None:
    data = generate(case)
    torch.save({k: v for k, v in vars(data).items() if k != "case"}, folder / "data.pt")


def load(case: Case, folder: Path) -> TokenData:
    return TokenData(case, **torch.load(folder / "data.pt", weights_only=True))


# --- reference: one pair after the other, from the definitions -----------------------------------


def exact_outputs(data: TokenData) -> Tensors:
    """Scores [B], and pooled rows of sketch and photo [B, L, D] where there is text."""
    pairs = [_pairwise, _with_text][data.case.mode == "text"](data)
    return tuple(torch.stack(parts) for parts in zip(*pairs, strict=True))


def _pairwise(data: TokenData) -> list[Tensors]:
    pairs: list[Tensors] = []
    for sketch, photo in zip(*data.features, strict=True):
        cosines = F.normalize(sketch, dim=1) @ F.normalize(photo, dim=1).T
        pairs.append((cosines.amax(1).mean(),))
    return pairs


def _with_text(data: TokenData) -> list[Tensors]:
    text, *patches = data.features
    pairs: list[Tensors] = []
    for label, *keys_values in zip(data.labels.tolist(), *patches, strict=True):
        words = text[label, : int(data.mask[label].sum())]
        padding = text.new_zeros(data.case.L - len(words), data.case.D)
        pooled = []
        for keys, values in (keys_values[:2], keys_values[2:]):
            attention = (words @ keys.T / math.sqrt(data.case.D)).softmax(1)
            pooled.append(attention @ values)
        score = F.cosine_similarity(pooled[0], pooled[1], dim=1).mean()
        pairs.append((score, *(torch.cat([rows, padding]) for rows in pooled)))
    return pairs
