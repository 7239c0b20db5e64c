"""Weights on the Hugging Face hub: found in the cache without a request, or named when missing."""

from __future__ import annotations

import os
from collections.abc import Sequence

_PATIENCE = 5.0  # seconds
_OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def cached_file(repo: str, names: Sequence[str]) -> str | None:
    """Find a file of a hub repository in the local cache, without any request.

    Args:
        repo: ``owner/name``.
        names: file names, the first that is there counts.

    Returns:
        Its path, None if none is there.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    for name in names:
        found = try_to_load_from_cache(repo, name, cache_dir=constants.HF_HUB_CACHE)
        if isinstance(found, str) and os.path.isfile(found):
            return found
    return None


def require_reachable(function: str, weights: str, repo: str, names: Sequence[str]) -> None:
    """Make one request to the hub before a download is begun, which would retry for a minute.

    Args:
        function: whom the error text names.
        weights: name of the weights to fetch, for the error text.
        repo: ``owner/name``.
        names: file names, the preferred one first.

    Raises:
        RuntimeError: the hub cannot be reached; the text says which file is missing and where it
            is looked for.
    """
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    except Exception as error:  # of the HTTP library, which differs between versions
        raise RuntimeError(
            f"{function}: {weights} could not be fetched: {repo} is not in the cache "
            f"{constants.HF_HUB_CACHE}, and {constants.ENDPOINT} cannot be reached; where there is "
            f"a network, run 'hf download {repo} {names[0]}' and copy the cache here, or give a "
            "local .safetensors or .pt file as weights"
        ) from error


def open_clip_source(function: str, model: str, weights: str) -> str:
    """Replace a tag of open_clip by the file that the cache holds for it.

    Args:
        function: whom the error text names.
        model: open_clip model name.
        weights: a tag, or a local file.

    Returns:
        A local file, or the tag where open_clip is to fetch it.

    Raises:
        RuntimeError: the tag is not in the cache, and its hub cannot be reached.
    """
    import open_clip

    if os.path.isfile(weights):
        return weights
    config = open_clip.get_pretrained_cfg(model, weights)
    repo, _, name = config.get("hf_hub", "").rpartition("/")
    if not repo:  # from another place than the hub
        return weights
    names = (name.replace(".bin", ".safetensors"), name) if name else _OPEN_CLIP_FILES
    found = cached_file(repo, names)
    if found is None:
        told = f"weights {weights!r} of open_clip:{model}"
        require_reachable(function, told, repo, names)
    return found or weights


def require_own_activation(function: str, argument: str, model: str, tag: str) -> None:
    """Refuse weights that were trained with another activation, which open_clip only warns of.

    Args:
        function: whom the error text names.
        argument: its argument that names the model.
        model: model of open_clip.
        tag: name of its weights.

    Raises:
        ValueError: the activations differ; the text has the right model.
    """
    import open_clip

    config = open_clip.get_model_config(model) or {}
    quick = bool(open_clip.get_pretrained_cfg(model, tag).get("quick_gelu", False))
    if quick != bool(config.get("quick_gelu", False)):
        suffix = "-quickgelu"
        other = f"{model}{suffix}" if quick else model.removesuffix(suffix)
        raise ValueError(
            f"{function}: {argument} must be open_clip:{other} for the weights {tag!r}, whose "
            f"activation is {'QuickGELU' if quick else 'GELU'}, got open_clip:{model}"
        )
