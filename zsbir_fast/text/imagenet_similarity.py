"""How similar the seen classes are to the classes of ImageNet: prior knowledge for distillation."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zsbir_fast._files import reading
from zsbir_fast._words import reason, shown
from zsbir_fast.data import bundled
from zsbir_fast.data.filelists import read_text
from zsbir_fast.data.names import by_plain_name, listing, plain_name

_Table = tuple[tuple[str, ...], dict[str, dict[str, float]]]


def imagenet_similarity(classes: Sequence[str], source: str = "wordnet") -> Tensor:
    """Give the similarity of every class to the 1000 classes of ImageNet.

    Args:
        classes: class names; compared without case, blanks, underscores and hyphens.
        source: ``"wordnet"``: the bundled table of the published splits and qd_caltech: 1 for the
            same thing or a kind of it, else the path similarity of WordNet where it is above 0.2.
            Otherwise a JSON file of the same form, ``{"imagenet": [1000 ids in the order of the
            labels], "classes": {"class": {"similar": {"id": number, ...}}, ...}}``.

    Returns:
        float32 [C, 1000], 0 where nothing is similar.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is none of this form, or it lacks a class; the message names it.

    Source: the semantic mask of Liu et al., "Semantic-Aware Knowledge Preservation for Zero-Shot
    Sketch-Based Image Retrieval", ICCV 2019 (as in its public code); the senses of the class names
    are our reading.
    """
    identities, similar = _bundled() if source == "wordnet" else _read(source)
    missing = [name for name in classes if plain_name(name) not in similar]
    if missing:
        raise ValueError(
            f"imagenet_similarity: source must cover every class, got none for {listing(missing)} "
            f"in {source}; give a table of your own, or leave the similarities out"
        )
    columns = {identity: column for column, identity in enumerate(identities)}
    table = torch.zeros(len(classes), len(identities))
    for row, name in enumerate(classes):
        for identity, value in similar[plain_name(name)].items():
            table[row, columns[identity]] = value
    return table


@cache
def _bundled() -> _Table:
    return _read(bundled.path("semantics") / "wordnet_imagenet.json")


def _read(path: str | Path) -> _Table:
    name = "imagenet_similarity"
    try:
        with reading(name, path, "table"):
            stored = json.loads(read_text(path))
        identities = tuple(stored["imagenet"])
        known = frozenset(identities)
        if len(known) != len(identities) or not identities:
            raise ValueError("its ids of ImageNet repeat, or there are none")
        classes = {key: _similar(key, entry, known) for key, entry in stored["classes"].items()}
    except OSError:
        raise
    except Exception as error:  # files of strangers raise many kinds
        raise ValueError(
            f"{name}: source must be 'wordnet' or a JSON table of similarities, got {path} "
            f"({reason(error)})"
        ) from error
    return identities, by_plain_name(name, f"classes of {path}", classes.items())


def _similar(key: str, entry: dict[str, Any], known: frozenset[str]) -> dict[str, float]:
    similar: dict[str, float] = entry["similar"]
    for identity, value in similar.items():
        if identity not in known or not math.isfinite(value) or not 0 <= value <= 1:
            raise ValueError(f"class {key!r} has {shown(identity)}: {shown(value)}")
    return similar
