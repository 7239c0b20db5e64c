"""Finished models on disk: a pair of small files, ``model.safetensors`` and ``model.json``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from zsbir_fast._files import write_atomically, write_text
from zsbir_fast._words import reason
from zsbir_fast.encoders.weight_files import read_safetensors
from zsbir_fast.methods.build import build_model
from zsbir_fast.methods.checkpoint_files import file_sha256, read_checkpoint
from zsbir_fast.methods.contract import Method
from zsbir_fast.methods.identity import ModelIdentity

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"

_LONGEST_DESCRIPTION = 16 << 20


def export_model(model: Method, identity: ModelIdentity, folder: str | Path) -> Path:
    """Write a model for use elsewhere: weights as safetensors, the rest as JSON.

    Args:
        model: the model.
        identity: how to build it again.
        folder: where ``model.safetensors`` and ``model.json`` go.

    Returns:
        The folder.
    """
    from safetensors.torch import save

    target = Path(folder)
    # Copies, as safetensors refuses tensors that share memory and models may hold such.
    tensors = {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in model.state_dict().items()
    }
    weights = save(tensors)
    write_atomically(target / WEIGHTS, lambda stream: stream.write(weights))
    described = {**identity.to_dict(), "sha256": hashlib.sha256(weights).hexdigest()}
    write_text(target / DESCRIPTION, json.dumps(described, indent=2) + "\n")
    return target


def load_model(path: str | Path) -> tuple[Method, ModelIdentity]:
    """Load a finished model, or the model inside a training checkpoint.

    Args:
        path: folder that ``export_model`` wrote, or a ``.ckpt`` file of a training run.

    Returns:
        The model in evaluation mode, on the CPU, and its identity.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: the file is damaged, from elsewhere, or does not fit the model that it names.
    """
    source = Path(path)
    described, weights = (
        _read_export(source) if os.path.isdir(source) else _read_from_checkpoint(source)
    )
    try:
        identity = ModelIdentity.from_dict(described)
        return build_model(identity, stored=weights).eval(), identity
    except (ValueError, TypeError) as error:
        raise ValueError(f"load_model: {source} cannot be loaded: {error}") from error


def _read_export(folder: Path) -> tuple[Any, Mapping[str, Tensor]]:
    for name in (WEIGHTS, DESCRIPTION):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"load_model: path must be a folder with {WEIGHTS} and {DESCRIPTION}, "
                f"but {folder / name} is not there"
            )
    described = _read_description(folder / DESCRIPTION)
    stated = described.get("sha256") if isinstance(described, Mapping) else None
    if stated not in (None, file_sha256(folder / WEIGHTS)):
        raise ValueError(
            f"load_model: path must be a model written by zsbir, got {folder}, whose {WEIGHTS} is "
            f"damaged: its checksum is not the one in {DESCRIPTION}"
        )
    return described, read_safetensors(folder / WEIGHTS, function="load_model")


def _read_description(path: Path) -> Any:
    expected = f"load_model: path must be a model written by zsbir, got {path.parent}, whose"
    size = path.stat().st_size
    if size > _LONGEST_DESCRIPTION:
        raise ValueError(f"{expected} {path.name} has {size:,} bytes")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{expected} {path.name} is no JSON ({reason(error)})") from error


def _read_from_checkpoint(path: Path) -> tuple[Any, Mapping[str, Tensor]]:
    stored = read_checkpoint(path)
    weights = {
        name.removeprefix("model."): value
        for name, value in stored["state_dict"].items()
        if name.startswith("model.")
    }
    return stored["zsbir"], weights
