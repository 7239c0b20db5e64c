"""Reading weight files and loading them with errors that name the keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

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
        ValueError: the suffix is another one, or the file holds something else than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"read_weight_file: path must be a file, got {path}")
    if path.suffix not in _SUFFIXES:
        raise ValueError(
            f"read_weight_file: path must end in one of {', '.join(_SUFFIXES)}, got {path.name}"
        )
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    state = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
            break
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"read_weight_file: path must hold a dict of tensors, got {path}")
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
        ValueError: keys are missing, unexpected or of another shape; the text names them.
    """
    own = module.state_dict()
    state = {key: value for key, value in state.items() if not key.startswith(ignore)}
    problems = [
        f"{len(keys)} {kind} ({', '.join(keys[:_SHOWN_KEYS])}{', ...' * (len(keys) > _SHOWN_KEYS)})"
        for kind, keys in (
            ("missing", sorted(own.keys() - state.keys())),
            ("unexpected", sorted(state.keys() - own.keys())),
            (
                "of another shape",
                sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape),
            ),
        )
        if keys
    ]
    if problems:
        raise ValueError(
            f"build_encoder: weights must fit the network, got {'; '.join(problems)} in {source}"
        )
    module.load_state_dict(state)
