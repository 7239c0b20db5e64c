"""Reading weight files and loading them with errors that name the keys."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_SHOWN_KEYS = 5


def is_weight_file(weights: str) -> bool:
    """Whether ``weights`` names a local file rather than a tag of a model zoo."""
    return weights.endswith((*_SUFFIXES, ".npz")) or Path(weights).is_file()


def read_weight_file(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from disk without running any code that the file may hold.

    Args:
        path: a .safetensors file, or a .pt, .pth or .bin file read with ``weights_only=True``. A
            dict with a ``state_dict`` or ``model`` entry is unwrapped once.

    Returns:
        Parameter name -> tensor on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the suffix is another one, the file is damaged, or it holds something else
            than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"read_weight_file: path must be a file, got {path}")
    if path.suffix not in _SUFFIXES:
        raise ValueError(
            f"read_weight_file: path must end in one of {', '.join(_SUFFIXES)}, got {path.name}"
        )
    if path.suffix == ".safetensors":
        return read_safetensors(path, function="read_weight_file")
    state = read_plain(path, expected="read_weight_file: path must hold a dict of tensors")
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
            break
    return require_tensors(state, path, function="read_weight_file")


def read_safetensors(path: str | Path, *, function: str) -> dict[str, Tensor]:
    """Read a .safetensors file.

    Args:
        path: the file.
        function: whom the error text names.

    Returns:
        Parameter name -> tensor on the CPU.

    Raises:
        ValueError: it is none, or damaged.
    """
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except Exception as error:  # damaged headers raise many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{function}: path must be a .safetensors file, got {path}, which is empty, damaged or "
            f"of another kind ({reason})"
        ) from error
    return require_tensors(state, path, function=function)


def read_plain(path: str | Path, *, expected: str) -> Any:
    """Read what ``torch.save`` wrote, without running any code that the file may hold.

    Args:
        path: an existing file.
        expected: how the error text begins, e.g. ``"read: path must be a checkpoint"``.

    Returns:
        Tensors on the CPU and plain values.

    Raises:
        ValueError: the file is damaged, compressed, or holds more than that. The text never is
            torch's own, which recommends ``weights_only=False``.
    """
    if _is_compressed(path):  # torch never compresses, and a small file could fill the memory
        raise ValueError(f"{expected}, got {path} (it is compressed)")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # damaged bytes can raise anything in the unpickler
        raise ValueError(
            f"{expected}, got {path} (it is empty, damaged, or holds objects that would run code)"
        ) from None


def _is_compressed(path: str | Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except Exception:  # no archive, or a damaged one: left to the reader
        return False


def require_tensors(state: Any, path: str | Path, *, function: str) -> dict[str, Tensor]:
    """Refuse a state dict that is none, or whose tensors claim more than its file can hold.

    Args:
        state: what was read.
        path: the file that it was read from.
        function: whom the error text names.

    Returns:
        The same, as a dict.

    Raises:
        ValueError: it is no mapping of names to dense tensors; the message names what it is.
    """
    expected = f"{function}: path must hold a dict of tensors"
    if not isinstance(state, Mapping):
        raise ValueError(f"{expected}, got a {type(state).__name__} in {path}")
    size = Path(path).stat().st_size
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{expected}, got {name!r}: {type(value).__name__} in {path}")
        dense = value.layout == torch.strided and value.device.type == "cpu"
        if not dense or value.numel() * value.element_size() > size:
            raise ValueError(
                f"{expected} that its {size:,} bytes can hold, got {name!r} {list(value.shape)} "
                f"in {path}"
            )
    return dict(state)


def load_weights(
    module: nn.Module, state: Mapping[str, Tensor], *, source: str, ignore: tuple[str, ...] = ()
) -> None:
    """Load ``state`` into ``module``; every key must fit.

    Args:
        module: the network.
        state: parameter name -> tensor.
        source: where the weights came from, for the error text.
        ignore: prefixes of keys that the file may hold and the network does not use, for instance
            a classifier.

    Raises:
        ValueError: keys are missing, unexpected, of another shape, or whole numbers where the
            network has real ones; the text names them.
    """
    state = {key: value for key, value in state.items() if not key.startswith(ignore)}
    problems = misfits(module, state)
    if problems:
        raise ValueError(f"build_encoder: weights must fit the network, got {problems} in {source}")
    module.load_state_dict(state)


def misfits(module: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Say how a state dict does not fit a network.

    Args:
        module: the network.
        state: parameter name -> tensor.

    Returns:
        Kinds, numbers and names of the keys that do not fit; empty if all do.
    """
    own = module.state_dict()
    both = sorted(own.keys() & state.keys())
    kinds = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": [k for k in both if own[k].shape != state[k].shape],
        "of another type": [
            k for k in both if own[k].is_floating_point() != state[k].is_floating_point()
        ],
    }
    return "; ".join(
        f"{len(keys)} {kind} ({', '.join(keys[:_SHOWN_KEYS])}{', ...' * (len(keys) > _SHOWN_KEYS)})"
        for kind, keys in kinds.items()
        if keys
    )
