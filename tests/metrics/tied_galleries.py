"""Galleries in which much ties: shared by the tests of one process and those of several."""

from __future__ import annotations

import numpy as np

KINDS = ("collapsed", "duplicated", "sign codes", "binary codes", "floats")
METRICS = ("cosine", "dot", "euclidean")


def gallery(number):
    """The case of that number: kind, metric, queries, gallery and their labels.

    Embeddings are collapsed to one or two directions, photos stand there several times, or codes
    of 48 bits have few distances; the last kind is continuous, for the bits of near ties.
    """
    rng = np.random.default_rng(number)
    kind, metric = KINDS[number % len(KINDS)], METRICS[number // len(KINDS) % len(METRICS)]
    queries, photos = int(rng.integers(1, 13)), int(rng.integers(1, 400))
    width = 48 if "codes" in kind else int(rng.integers(1, 100))
    both = rng.standard_normal((queries + photos, width)).astype(np.float32)
    if kind == "collapsed":
        both = both[rng.integers(0, 2, len(both)) * (number % 2)]
    elif kind == "duplicated":
        both = both[rng.integers(0, max(1, len(both) // 5), len(both))]
    elif kind == "sign codes":
        both = np.sign(both)
    elif kind == "binary codes":
        both = (both > 0).astype(np.float32)
    labels = rng.integers(0, 5, len(both))
    labels[0] = labels[-1]  # at least one query has a relevant photo
    return kind, metric, both[:queries], both[queries:], labels[:queries], labels[queries:]
