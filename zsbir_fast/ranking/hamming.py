"""Hamming distances of packed codes."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_WORD = 8  # bytes


def hamming_distances(queries: Tensor, gallery: Tensor) -> Tensor:
    """Count the bits in which codes differ.

    Args:
        queries: uint8 [q, B], 8 bits a byte.
        gallery: uint8 [G, B], on the same device.

    Returns:
        float32 [q, G], whole numbers.

    Raises:
        TypeError: codes are not uint8.
        ValueError: they are not matrices of one width.

    Cost: ceil(B / 8) exclusive ors and counts for each pair on the CPU, where the work of a query
    stays in 16 bytes per photo; on other devices one product of signs.
    """
    for name, codes in (("queries", queries), ("gallery", gallery)):
        if codes.dtype != torch.uint8:
            raise TypeError(f"hamming_distances: {name} must be uint8, got {codes.dtype}")
        if codes.ndim != 2 or codes.shape[1] != gallery.shape[-1]:
            raise ValueError(
                f"hamming_distances: {name} must be [n, {gallery.shape[-1]}], got "
                f"{list(codes.shape)}"
            )
    if queries.device.type != "cpu":
        return _by_products(queries, gallery)
    photos = _words(gallery)
    found = np.empty((len(queries), len(gallery)), dtype=np.float32)
    for row, words in zip(found, _words(queries).T, strict=True):
        row[:] = _bit_count(photos[0] ^ words[0])
        for column, word in zip(photos[1:], words[1:], strict=True):
            row += _bit_count(column ^ word)
    return torch.from_numpy(found)


def _words(codes: Tensor) -> NDArray[Any]:
    """Codes as words of 64 bits, [words, n], filled up with zeros."""
    missing = -codes.shape[1] % _WORD
    padded = np.pad(codes.numpy(), ((0, 0), (0, missing)))
    return np.ascontiguousarray(padded.view(np.uint64).T)


def _bit_count(words: NDArray[Any]) -> NDArray[Any]:
    """Bits that are set in words of 64 bits [n]."""
    if hasattr(np, "bitwise_count"):  # from NumPy 2 on
        return np.asarray(np.bitwise_count(words))
    return _by_table(words)


def _by_table(words: NDArray[Any]) -> NDArray[Any]:
    counts = _of_16_bits()[words.view(np.uint16)].reshape(-1, 4)
    return np.asarray(counts.sum(1, dtype=np.uint8))


@cache
def _of_16_bits() -> NDArray[Any]:
    numbers = np.arange(2**16, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    return np.asarray(np.unpackbits(numbers, axis=1).sum(1), dtype=np.uint8)


def _by_products(queries: Tensor, gallery: Tensor) -> Tensor:
    """The same by products of signs, which every precision of products holds exactly."""
    bits = 8 * gallery.shape[1]
    return (bits - _signs(queries) @ _signs(gallery).T) / 2


def _signs(codes: Tensor) -> Tensor:
    places = torch.arange(8, device=codes.device, dtype=torch.uint8)
    return (codes[:, :, None] >> places & 1).flatten(1).float() * 2 - 1
