"""Image encoders by name: patch tokens and one global feature, from any model zoo."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from zsbir_fast._hub import cached_file, open_clip_source, require_reachable
from zsbir_fast._words import shown
from zsbir_fast.data.image_spec import ImageSpec
from zsbir_fast.encoders.mobilenet_v2 import WIDTH as MOBILENET_WIDTH
from zsbir_fast.encoders.mobilenet_v2 import MobileNetV2, read_uint8_weights
from zsbir_fast.encoders.weight_files import is_weight_file, load_weights, read_weight_file

_NAME_FORMS = "'bundled:mobilenet_v2', 'timm:<model>' or 'open_clip:<model>'"
_BUNDLED_WEIGHTS = "mobilenet_v2_1.0_224_imagenet_uint8.npz"
_LARGEST_IMAGE = 2048
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_SMALL_TEXT_TOWER = {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
_BUNDLED_MEAN = 128 / 255  # (x * 255 - 128) / 128 for pixels x in 0..1


class Features(NamedTuple):
    """The features of a batch of images.

    Attributes:
        tokens: [B, N, D] patch tokens (vision transformers, without class and register tokens) or
            the positions of the last feature map, row by row (convolutional networks).
        global_: [B, D] one feature per image, not normalised.
    """

    tokens: Tensor
    global_: Tensor


class Encoder(nn.Module):
    """Base of the image encoders; :func:`build_encoder` makes them.

    Attributes:
        width: feature width D, of tokens and global feature alike.
        image_size: height and width of the square images that the weights expect, in pixels.
        mean: channel means (red, green, blue) that the input transform must subtract, pixels 0..1.
        std: channel standard deviations that it must divide by.
    """

    def __init__(
        self, *, width: int, image_size: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.width = width
        self.image_size = image_size
        self.mean = mean
        self.std = std

    def extra_repr(self) -> str:
        """Return width and input, for ``repr``."""
        return f"width={self.width}, image_size={self.image_size}"

    @property
    def spec(self) -> ImageSpec:
        """Size and normalisation of the input, as the image transforms take them."""
        return ImageSpec(self.image_size, self.mean, self.std)

    def forward(self, images: Tensor) -> Features:
        """Encode images.

        Args:
            images: [B, 3, H, W] float, normalised with :attr:`mean` and :attr:`std`.

        Returns:
            Tokens [B, N, D] and global features [B, D].
        """
        raise NotImplementedError

    if TYPE_CHECKING:  # nn.Module would say Any
        __call__ = forward


class _FeatureMapEncoder(Encoder):
    """Convolutional network: tokens are the positions of the last map, global is their mean."""

    def __init__(self, network: nn.Module, *, channels_last: bool, **attributes: Any) -> None:
        super().__init__(**attributes)
        # Channels-last convolutions are 1.3 to 1.8 times as fast on CPU, and the fast path on GPU.
        self.network = network.to(memory_format=torch.channels_last)
        self.channels_last_output = channels_last

    def feature_map(self, images: Tensor) -> Tensor:
        return self.network(images)  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Features:
        features = self.feature_map(images.contiguous(memory_format=torch.channels_last))
        tokens = features.flatten(1, 2) if self.channels_last_output else features.flatten(2).mT
        return Features(tokens, tokens.mean(1))


class _TimmFeatureMapEncoder(_FeatureMapEncoder):
    def feature_map(self, images: Tensor) -> Tensor:
        return self.network.forward_features(images)  # type: ignore[no-any-return, operator]


class _TimmTokenEncoder(Encoder):
    """timm vision transformer: global is the feature that timm's own head classifies."""

    def __init__(self, network: nn.Module, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.network = network
        self.prefix = int(getattr(network, "num_prefix_tokens", 0))

    def forward(self, images: Tensor) -> Features:
        features = self.network.forward_features(images)  # type: ignore[operator]
        pooled = self.network.forward_head(features, pre_logits=True)  # type: ignore[operator]
        return Features(features[:, self.prefix :], pooled)


class _OpenClipEncoder(Encoder):
    """open_clip vision tower: tokens go through the same norm and projection as the pooled one."""

    def __init__(self, network: nn.Module, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.network = network

    def forward(self, images: Tensor) -> Features:
        output = self.network.forward_intermediates(  # type: ignore[operator]
            images, indices=1, normalize_intermediates=True, output_fmt="NLC"
        )
        tokens = output["image_intermediates"][-1]
        projection = self.network.proj
        if projection is not None:
            tokens = tokens @ projection
        return Features(tokens, output["image_features"])


def build_encoder(
    name: str, *, weights: str | None = None, image_size: int | None = None
) -> Encoder:
    """Build an image encoder by name.

    Args:
        name: ``"bundled:mobilenet_v2"`` (ships with the package), ``"timm:<model>"`` or
            ``"open_clip:<model>"`` (``ViT-*`` vision towers).
        weights: ``None`` or ``"random"`` for random initialisation; a tag, which is ``"imagenet"``
            for the bundled network, ``"pretrained"`` or a tag of timm's registry for timm, a tag
            such as ``"openai"`` for open_clip; or a local file (.safetensors, or .pt, .pth, .bin
            read with ``weights_only=True``). Tags of timm and open_clip are fetched from the
            network once and cached by these libraries.
        image_size: side of the square input images in pixels; default: what the model's
            configuration says.

    Returns:
        The encoder in training mode, every parameter trainable.

    Raises:
        TypeError: an argument is of another type.
        ValueError: an unknown name or tag (names of hubs are refused), an image size outside
            1..2048, or weights that do not fit.
        FileNotFoundError: ``weights`` names a file that is not there.
        RuntimeError: the weights could not be fetched (no network and not in the cache).
    """
    _check_types(name, weights, image_size)
    family, _, model = name.partition(":")
    builders = {"bundled": _build_bundled, "timm": _build_timm, "open_clip": _build_open_clip}
    if family not in builders or not model:
        raise ValueError(f"build_encoder: name must be {_NAME_FORMS}, got {shown(name)}")
    if image_size is not None and image_size < 1:
        raise ValueError(f"build_encoder: image_size must be at least 1, got {shown(image_size)}")
    if image_size is not None and image_size > _LARGEST_IMAGE:
        raise ValueError(
            f"build_encoder: image_size must be at most {_LARGEST_IMAGE}, got {shown(image_size)}"
        )
    return builders[family](model, None if weights == "random" else weights, image_size)


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


def _build_bundled(model: str, weights: str | None, image_size: int | None) -> Encoder:
    if model != "mobilenet_v2":
        raise ValueError(
            f"build_encoder: name must be {_NAME_FORMS}, got {shown(f'bundled:{model}')}"
        )
    network = MobileNetV2()
    if weights == "imagenet":
        from zsbir_fast.data import bundled

        network.load_state_dict(read_uint8_weights(bundled.path("weights") / _BUNDLED_WEIGHTS))
    elif weights is not None:
        if not is_weight_file(weights):
            raise ValueError(
                "build_encoder: weights must be None, 'random', 'imagenet' or a local file for the "
                f"bundled network, got {shown(weights)}"
            )
        state = (
            read_uint8_weights(weights) if weights.endswith(".npz") else read_weight_file(weights)
        )
        load_weights(network, state, source=weights)
    return _FeatureMapEncoder(
        network,
        channels_last=False,
        width=MOBILENET_WIDTH,
        image_size=image_size or 224,
        mean=(_BUNDLED_MEAN,) * 3,
        std=(_BUNDLED_MEAN,) * 3,
    )


def _build_timm(model: str, weights: str | None, image_size: int | None) -> Encoder:
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
    options: dict[str, Any] = {} if image_size is None else _timm_size(model, image_size)
    if weights is not None and not local:
        options["pretrained_cfg_overlay"] = _timm_source(model, tag, weights)
    network: Any
    try:
        network = timm.create_model(
            model if tag is None else f"{model.partition('.')[0]}.{tag}",
            pretrained=weights is not None and not local,
            num_classes=0,
            **options,
        )
    except (OSError, RuntimeError) as error:
        raise _not_fetched(f"timm:{model}", weights) from error
    config = network.pretrained_cfg
    if local and weights is not None:
        classifier = config.get("classifier") or ()
        names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        load_weights(
            network,
            read_weight_file(weights),
            source=weights,
            ignore=tuple(f"{name}." for name in names),
        )
    size = image_size or int(config["input_size"][-1])
    attributes: dict[str, Any] = {
        "image_size": size,
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
        "width": int(network.num_features),
    }
    with torch.no_grad():
        probe = network.eval().forward_features(torch.zeros(1, 3, size, size))
    network.train()
    if probe.ndim == 3:
        return _TimmTokenEncoder(network, **attributes)
    channels_last = probe.shape[-1] == network.num_features != probe.shape[1]
    return _TimmFeatureMapEncoder(network, channels_last=channels_last, **attributes)


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


def _build_open_clip(model: str, weights: str | None, image_size: int | None) -> Encoder:
    import open_clip
    from open_clip.transformer import VisionTransformer

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
        raise _not_fetched(f"open_clip:{model}", weights) from error
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
    return _OpenClipEncoder(
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


def _not_fetched(name: str, weights: str | None) -> RuntimeError:
    return RuntimeError(
        f"build_encoder: "
        f"weights {shown(weights)} of {name} could not be fetched (no network, and not "
        "in the local cache); pass a local .safetensors or .pt file, or weights=None"
    )
