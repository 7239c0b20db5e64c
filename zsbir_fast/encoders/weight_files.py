"""Reading weight files and loading them with errors that name the keys."""

from __future__ import annotations

import os
import pickletools
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from zsbir_fast._words import reason, shortened, shown

_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_SHOWN_KEYS = 5
IMAGENET_CLASSES = 1000
"""Classes of ILSVRC 2012, which networks with an ImageNet head tell apart."""
_PROTOCOL = 2
_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # after the protocol: files of torch before archives
_ZIP_HEAD = 30  # bytes before the name of an entry, whose last four are the lengths that follow
_NO_WEIGHTS = "it is empty, damaged, or holds objects that would run code"


def is_weight_file(weights: str) -> bool:
    """Whether ``weights`` names a local file rather than a tag of a model zoo."""
    return weights.endswith((*_SUFFIXES, ".npz")) or os.path.isfile(weights)


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
    if not os.path.isfile(path):
        raise FileNotFoundError(f"read_weight_file: path must be a file, got {shortened(path)}")
    path = Path(path)
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
        raise ValueError(
            f"{function}: path must be a .safetensors file, got {path}, which is empty, damaged or "
            f"of another kind ({reason(error)})"
        ) from error
    return require_tensors(state, path, function=function)


def read_plain(path: str | Path, *, expected: str) -> Any:
    """Read a file of ``torch.save`` without running any code that it may hold.

    Args:
        path: an existing file.
        expected: how the error text begins, e.g. ``"read: path must be a checkpoint"``.

    Returns:
        Tensors on the CPU and plain values.

    Raises:
        ValueError: the file is damaged, compressed, or holds more than that, or it is pickled
            with another protocol than 2, the default of ``torch.save``. The text never is
            torch's own, which recommends ``weights_only=False``.
    """
    fault = _fault(Path(path))
    if fault:
        raise ValueError(f"{expected}, got {path} ({fault})")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # damaged bytes can raise anything in the unpickler
        raise ValueError(f"{expected}, got {path} ({_NO_WEIGHTS})") from None


def _fault(path: Path) -> str:
    """Say why a file is left alone; empty if nothing is wrong with it so far.

    torch warns of pickles of foreign protocols, sparse tensors and programs, and does not say in
    which file. It reads none of the first and the last, and we take no sparse ones.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(2) == b"PK":
                return _fault_of_archive(path)
            stream.seek(0)
            if _MAGIC not in stream.read(len(_MAGIC) + 11):  # a frame may stand before it
                return _NO_WEIGHTS
            stream.seek(0)
            # Before archives, torch wrote three small pickles, the object, and its keys.
            return next(filter(None, (_fault_of_pickle(stream) for _ in range(4))), "")
    except Exception:  # damaged bytes raise many kinds
        return _NO_WEIGHTS


def _fault_of_archive(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename.rpartition("/")[2]: entry for entry in archive.infolist()}
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            return "it is compressed"  # torch never does, and a small file could fill the memory
    if "constants.pkl" in entries:
        return "it is a TorchScript program"
    with path.open("rb") as stream:
        # Not by zipfile, which insists on checksums that torch may be told not to write.
        stream.seek(entries["data.pkl"].header_offset)
        head = stream.read(_ZIP_HEAD)
        stream.seek(sum(struct.unpack("<HH", head[-4:])), os.SEEK_CUR)
        return _fault_of_pickle(stream)


def _fault_of_pickle(stream: IO[bytes]) -> str:
    for code, argument, _ in pickletools.genops(stream):
        if code.name == "PROTO" and argument != _PROTOCOL:
            return f"it is pickled with protocol {argument}, and not {_PROTOCOL}, torch's own"
        if code.name == "GLOBAL" and str(argument).startswith("torch._utils _rebuild_sparse"):
            return "it holds sparse tensors"
    return ""


def require_tensors(state: Any, path: str | Path, *, function: str) -> dict[str, Tensor]:
    """Refuse a state dict that is none, or whose tensors claim more than its file can hold.

    Args:
        state: the content of the file.
        path: the file that it was read from.
        function: whom the error text names.

    Returns:
        The same, as a dict.

    Raises:
        ValueError: it is no mapping of names to dense tensors; the message names its type.
    """
    expected = f"{function}: path must hold a dict of tensors"
    if not isinstance(state, Mapping):
        raise ValueError(f"{expected}, got a {type(state).__name__} in {path}")
    size = Path(path).stat().st_size
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{expected}, got {shown(name)}: {type(value).__name__} in {path}")
        dense = value.layout == torch.strided and value.device.type == "cpu"
        if not dense or value.numel() * value.element_size() > size:
            raise ValueError(
                f"{expected} that its {size:,} bytes can hold, "
                f"got {shown(name)} {shortened(list(value.shape))} "
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
        f"{len(keys)} {kind} ({', '.join(shortened(key, limit=80) for key in keys[:_SHOWN_KEYS])}"
        f"{', ...' * (len(keys) > _SHOWN_KEYS)})"
        for kind, keys in kinds.items()
        if keys
    )


def not_fetched(name: str, weights: str | None) -> RuntimeError:
    """Make the error of weights that could not be fetched.

    Args:
        name: the encoder.
        weights: the tag.

    Returns:
        The error.
    """
    return RuntimeError(
        f"build_encoder: weights {shown(weights)} of {name} could not be fetched (no network, and "
        "not in the local cache); pass a local .safetensors or .pt file, or weights=None"
    )


def no_head(name: str) -> ValueError:
    """Make the error of a network that should have an ImageNet head.

    Args:
        name: the encoder.

    Returns:
        The error.
    """
    return ValueError(
        "build_encoder: name must be a network with an ImageNet head (a layer of "
        f"{IMAGENET_CLASSES} classes over the global feature) for head=True, got {shown(name)}"
    )
