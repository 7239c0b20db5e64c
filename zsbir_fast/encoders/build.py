"""Image encoders by name: patch tokens and one global feature, from any model zoo."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from zsbir_fast._arguments import check_flag
from zsbir_fast._hub import open_clip_source, require_own_activation
from zsbir_fast._words import shown
from zsbir_fast.encoders.bundled_networks import BUNDLED, build_bundled
from zsbir_fast.encoders.encoder import Encoder, OpenClipEncoder
from zsbir_fast.encoders.timm_networks import build_timm
from zsbir_fast.encoders.weight_files import (
    is_weight_file,
    load_weights,
    no_head,
    not_fetched,
    read_weight_file,
)

_NAME_FORMS = (
    f"{', '.join(repr(f'bundled:{name}') for name in BUNDLED)}, 'timm:<model>' or "
    "'open_clip:<model>'"
)
_LARGEST_IMAGE = 2048
_SMALL_TEXT_TOWER = {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}


def build_encoder(
    name: str,
    *,
    weights: str | None = None,
    image_size: int | None = None,
    freeze_batch_norm: bool = True,
    head: bool = False,
) -> Encoder:
    """Build an image encoder by name.

    Args:
        name: ``"bundled:mobilenet_v2"`` or ``"bundled:efficientnet_lite0"`` (both ship with the
            package), ``"timm:<model>"`` or ``"open_clip:<model>"`` (``ViT-*`` vision towers).
        weights: ``None`` or ``"random"`` for random initialisation; a tag, which is ``"imagenet"``
            for a bundled network, ``"pretrained"`` or a tag of timm's registry for timm, a tag
            such as ``"openai"`` for open_clip; or a local file (.safetensors, or .pt, .pth, .bin
            read with ``weights_only=True``). Tags of timm and open_clip are fetched from the
            network once and cached by these libraries.
        image_size: side of the square input images in pixels; default: what the model's
            configuration says.
        freeze_batch_norm: keep batch norm's running statistics as they are and use them in
            training, too, also after ``.train()``; scale and shift are trained all the same.
            Statistics over a batch of sketches and photos fit neither, and the pre-trained
            features suffer. ``False`` is for training from random weights. Networks without
            batch norm do not care.
        head: keep the layer with the 1000 ImageNet classes as ``encoder.head``, for
            ``encoder.logits(features.global_)``. MobileNetV2's class of the background is left
            out, so that every network has the classes of ILSVRC 2012 in their order.

    Returns:
        The encoder in training mode, every parameter trainable.

    Raises:
        TypeError: an argument is of another type.
        ValueError: an unknown name or tag (names of hubs are refused), an image size outside
            1..2048, weights that do not fit, or a network without an ImageNet head that should
            have one.
        FileNotFoundError: ``weights`` names a file that is not there.
        RuntimeError: the weights could not be fetched (no network and not in the cache).
    """
    _check_types(name, weights, image_size)
    check_flag("build_encoder", "freeze_batch_norm", freeze_batch_norm)
    check_flag("build_encoder", "head", head)
    family, _, model = name.partition(":")
    builders = {"bundled": build_bundled, "timm": build_timm, "open_clip": _build_open_clip}
    unknown = family == "bundled" and model not in BUNDLED
    if family not in builders or not model or unknown:
        raise ValueError(f"build_encoder: name must be {_NAME_FORMS}, got {shown(name)}")
    if image_size is not None and image_size < 1:
        raise ValueError(f"build_encoder: image_size must be at least 1, got {shown(image_size)}")
    if image_size is not None and image_size > _LARGEST_IMAGE:
        raise ValueError(
            f"build_encoder: image_size must be at most {_LARGEST_IMAGE}, got {shown(image_size)}"
        )
    encoder = builders[family](model, None if weights == "random" else weights, image_size, head)
    encoder.freeze_batch_norm = freeze_batch_norm
    return encoder.train()


def _check_types(name: object, weights: object, image_size: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"build_encoder: name must be text, got {shown(name)}")
    if weights is not None and not isinstance(weights, str):
        raise TypeError(f"build_encoder: weights must be None or text, got {shown(weights)}")
    whole = isinstance(image_size, Integral) and not isinstance(image_size, bool)
    if image_size is not None and not whole:
        raise TypeError(
            f"build_encoder: image_size must be None or a whole number, got {shown(image_size)}"
        )


def _build_open_clip(
    model: str, weights: str | None, image_size: int | None, head: bool
) -> Encoder:
    import open_clip
    from open_clip.transformer import VisionTransformer

    if head:
        raise no_head(f"open_clip:{model}")

    if model not in open_clip.list_models():  # not get_model_config, which asks hubs
        raise ValueError(
            f"build_encoder: name must be a model that open_clip knows, "
            f"got {shown(f'open_clip:{model}')}"
        )
    local = weights is not None and is_weight_file(weights)
    tags = open_clip.list_pretrained_tags_by_model(model)
    if weights is not None and not local and weights not in tags:
        raise ValueError(
            f"build_encoder: weights must be a local file or one of {', '.join(tags) or 'no tag'} "
            f"for open_clip:{model}, got {shown(weights)}"
        )
    if weights is not None and not local:
        require_own_activation("build_encoder", "name", model, weights)
    options: dict[str, Any] = {}
    source = None
    if weights is None or local:  # no need of a text tower, which some models fetch
        options["text_cfg"] = _SMALL_TEXT_TOWER
    else:
        source = open_clip_source("build_encoder", model, weights)
        options["force_preprocess_cfg"] = _open_clip_pixels(model, weights)
    try:
        network = open_clip.create_model(
            model,
            pretrained=source,
            force_image_size=image_size,
            **options,
        ).visual
    except (OSError, RuntimeError) as error:
        raise not_fetched(f"open_clip:{model}", weights) from error
    if not isinstance(network, VisionTransformer):
        raise ValueError(
            "build_encoder: name must be an open_clip model with a ViT-* vision tower (others are "
            f"available as timm:<model>), got {shown(f'open_clip:{model}')}"
        )
    if local and weights is not None:
        state = read_weight_file(weights)
        prefix = "visual."
        if any(key.startswith(prefix) for key in state):  # a whole CLIP: keep its vision tower
            state = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        load_weights(network, state, source=weights)
    size = network.image_size
    return OpenClipEncoder(
        network,
        width=int(network.output_dim),
        image_size=int(size[0] if isinstance(size, tuple) else size),
        mean=tuple(network.image_mean or open_clip.OPENAI_DATASET_MEAN),
        std=tuple(network.image_std or open_clip.OPENAI_DATASET_STD),
    )


def _open_clip_pixels(model: str, tag: str) -> dict[str, Any]:
    """Mean and deviation that belong to a tag, which open_clip forgets for a file of the cache."""
    import open_clip

    config = open_clip.get_pretrained_cfg(model, tag)
    return {key: config[key] for key in ("mean", "std") if key in config}
