"""Encoders from timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zsbir_fast._hub import cached_file, require_reachable
from zsbir_fast._words import shown
from zsbir_fast.encoders.encoder import Encoder, TimmFeatureMapEncoder, TimmTokenEncoder
from zsbir_fast.encoders.weight_files import (
    IMAGENET_CLASSES,
    is_weight_file,
    load_weights,
    no_head,
    not_fetched,
    read_weight_file,
)

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def build_timm(model: str, weights: str | None, image_size: int | None, head: bool) -> Encoder:
    """Build an encoder from timm.

    Args:
        model: name of the model, with or without a tag.
        weights: None, ``"pretrained"``, a tag or a local file.
        image_size: side of the images in pixels; None: what the model's configuration says.
        head: keep the ImageNet head.

    Returns:
        The encoder.

    Raises:
        ValueError, FileNotFoundError, RuntimeError: as :func:`build_encoder`.
    """
    import timm

    if not timm.is_model(model):
        raise ValueError(
            f"build_encoder: name must be a model that timm knows, got {shown(f'timm:{model}')}"
        )
    local = weights is not None and is_weight_file(weights)
    tag = None if local or weights in (None, "pretrained") else weights
    if tag is not None and tag not in _timm_tags(model):
        raise ValueError(
            f"build_encoder: weights must be a local file, 'pretrained' or one of "
            f"{', '.join(_timm_tags(model)) or 'no tag at all'} for timm:{model}, got {shown(tag)}"
        )
    named = model if tag is None else f"{model.partition('.')[0]}.{tag}"
    known = timm.get_pretrained_cfg(named)
    if head and (known is None or known.num_classes != IMAGENET_CLASSES):
        raise no_head(f"timm:{named}")
    options: dict[str, Any] = {} if image_size is None else _timm_size(model, image_size)
    if weights is not None and not local:
        options["pretrained_cfg_overlay"] = _timm_source(model, tag, weights)
    network: Any
    try:
        network = timm.create_model(
            named,
            pretrained=weights is not None and not local,
            num_classes=IMAGENET_CLASSES if head else 0,
            **options,
        )
    except (OSError, RuntimeError) as error:
        raise not_fetched(f"timm:{model}", weights) from error
    config = network.pretrained_cfg
    if local and weights is not None:
        classifier = config.get("classifier") or ()
        names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        load_weights(
            network,
            read_weight_file(weights),
            source=weights,
            ignore=() if head else tuple(f"{name}." for name in names),
        )
    encoder = _wrap(network, image_size or int(config["input_size"][-1]), config)
    if head:
        _require_head(encoder, f"timm:{named}")
    return encoder


def _wrap(network: Any, size: int, config: Mapping[str, Any]) -> Encoder:
    """Choose by the shape of its features how a network is used."""
    with torch.no_grad():
        probe = network.eval().forward_features(torch.zeros(1, 3, size, size))
        if not isinstance(probe, Tensor) or probe.ndim not in (3, 4):
            shape = list(probe.shape) if isinstance(probe, Tensor) else f"a {type(probe).__name__}"
            raise ValueError(
                "build_encoder: name must be a network that gives patch tokens [B, N, D] or a "
                f"feature map, got a {type(network).__name__} of timm that gives {shape}"
            )
        pooled = network.forward_head(probe, pre_logits=True) if probe.ndim == 4 else probe
    attributes: dict[str, Any] = {
        "image_size": size,
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
        "width": int(network.num_features),
    }
    if probe.ndim == 3:
        return TimmTokenEncoder(network, **attributes)
    return TimmFeatureMapEncoder(
        network,
        channels_last=probe.shape[-1] == network.num_features != probe.shape[1],
        own_pooling=pooled.shape == (1, network.num_features),
        **attributes,
    )


def _require_head(encoder: Encoder, name: str) -> None:
    """Refuse heads that need more than the global feature, such as those of distilled networks."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, encoder.image_size, encoder.image_size, generator=generator)
    encoder.eval()
    with torch.no_grad():
        try:
            found = encoder.logits(encoder(image).global_)
            expected = encoder.network(image)  # type: ignore[operator]
            same = torch.allclose(found, expected, rtol=1e-3, atol=1e-4)
        except (RuntimeError, ValueError, TypeError):  # of shapes that the head cannot take
            same = False
    if not same:
        raise no_head(name)


def _timm_source(model: str, tag: str | None, weights: str) -> dict[str, Any]:
    """Take the weights from the cache if they are there; otherwise the hub must answer."""
    import timm

    config = timm.get_pretrained_cfg(model if tag is None else f"{model.partition('.')[0]}.{tag}")
    if config is None or not config.hf_hub_id or config.hf_hub_filename:
        return {}
    found = cached_file(config.hf_hub_id, _HUB_FILES)
    if found is not None:
        return {"file": found, "custom_load": False}
    require_reachable(
        "build_encoder", f"weights {weights!r} of timm:{model}", config.hf_hub_id, _HUB_FILES
    )
    return {}


def _timm_tags(model: str) -> list[str]:
    import timm

    architecture = model.partition(".")[0]
    return [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]


def _timm_size(model: str, image_size: int) -> dict[str, int]:
    """Only networks with position embeddings are built for a size."""
    import inspect

    import timm

    entry = timm.model_entrypoint(model.partition(".")[0])
    source = inspect.getmodule(entry)
    vision_transformer = source is not None and hasattr(source, "VisionTransformer")
    return {"img_size": image_size} if vision_transformer else {}
