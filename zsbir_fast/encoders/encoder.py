"""What an image encoder is: patch tokens and one global feature, whatever network gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zsbir_fast.data.image_spec import ImageSpec


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
        freeze_batch_norm: whether batch norm uses its running statistics in training, too, and
            leaves them as they are; its scale and shift are trained all the same.
    """

    freeze_batch_norm = True

    def __init__(
        self, *, width: int, image_size: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.width = width
        self.image_size = image_size
        self.mean = mean
        self.std = std

    def extra_repr(self) -> str:
        """Return width, input and what is done with batch norm, for ``repr``."""
        text = f"width={self.width}, image_size={self.image_size}"
        if any(isinstance(module, _BatchNorm) for module in self.modules()):
            text += f", freeze_batch_norm={self.freeze_batch_norm}"
        return text

    @property
    def spec(self) -> ImageSpec:
        """Size and normalisation of the input, as the image transforms take them."""
        return ImageSpec(self.image_size, self.mean, self.std)

    @property
    def head(self) -> nn.Module | None:
        """The layer with the ImageNet classes; None unless the encoder was built with it.

        It is part of the encoder: its parameters are among :meth:`parameters`.
        """
        return None

    def logits(self, global_: Tensor) -> Tensor:
        """Scores of the 1000 ImageNet classes, in the order of ILSVRC 2012.

        Args:
            global_: [B, D] global features of this encoder.

        Returns:
            [B, 1000], not normalised; what the network gives that the weights belong to.

        Raises:
            RuntimeError: the encoder was built without its head.
        """
        raise RuntimeError("Encoder.logits: the encoder must be built with head=True")

    def takes(self, size: int) -> bool:
        """Whether images of another size pass through; some networks are made for one alone.

        Args:
            size: side of the square images in pixels.

        Returns:
            Whether they do.
        """
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                self(next(self.parameters()).new_zeros(1, 3, size, size))
        except (AssertionError, RuntimeError, ValueError):  # what networks raise differs
            return False
        finally:
            self.train(training)
        return True

    def train(self, mode: bool = True) -> Encoder:
        """Set training or evaluation mode; frozen batch norm stays in evaluation mode.

        Args:
            mode: training or not.

        Returns:
            The encoder.
        """
        super().train(mode)
        if self.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.training = False
        return self

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


class FeatureMapEncoder(Encoder):
    """Convolutional network: tokens are the positions of the last map, global is their mean.

    Args:
        network: images [B, 3, H, W] -> feature map; its ``classifier`` is the head, or None.
        channels_last: whether the map is [B, H', W', D] rather than [B, D, H', W'].
        **attributes: those of :class:`Encoder`.
    """

    def __init__(self, network: nn.Module, *, channels_last: bool, **attributes: Any) -> None:
        super().__init__(**attributes)
        # Channels-last convolutions are 1.3 to 1.8 times as fast on CPU, and the fast path on GPU.
        self.network = network.to(memory_format=torch.channels_last)
        self.channels_last_output = channels_last

    @property
    def head(self) -> nn.Module | None:
        """The classifier of the network, if it was built with it."""
        return self.network.classifier  # type: ignore[return-value]

    def logits(self, global_: Tensor) -> Tensor:
        """Scores [B, 1000] of the ImageNet classes, see :meth:`Encoder.logits`."""
        return super().logits(global_) if self.head is None else self.head(global_)

    def feature_map(self, images: Tensor) -> Tensor:
        """Give the last feature map of images [B, 3, H, W]."""
        return self.network(images)  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Features:
        """Encode images, see :meth:`Encoder.forward`."""
        features = self.feature_map(images.contiguous(memory_format=torch.channels_last))
        tokens = features.flatten(1, 2) if self.channels_last_output else features.flatten(2).mT
        return Features(tokens, self.pooled(features, tokens))

    def pooled(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Give the global features [B, D].

        Args:
            features: the last feature map.
            tokens: its positions, [B, N, D].
        """
        return tokens.mean(1)


class TimmFeatureMapEncoder(FeatureMapEncoder):
    """Convolutional network of timm.

    Args:
        network: the network.
        own_pooling: whether global is what timm's own head classifies, such as the mean of the map
            and a norm; that has to be as wide as the map. Otherwise it is the mean.
        **attributes: those of :class:`FeatureMapEncoder`.
    """

    def __init__(self, network: nn.Module, *, own_pooling: bool, **attributes: Any) -> None:
        super().__init__(network, **attributes)
        self.own_pooling = own_pooling

    @property
    def head(self) -> nn.Module | None:
        """The classifier of timm's network, if it was built with it."""
        return timm_head(self.network)

    def logits(self, global_: Tensor) -> Tensor:
        """Scores [B, 1000] of the ImageNet classes, see :meth:`Encoder.logits`.

        Some heads have layers between the mean of the map and the classifier that change its
        width. timm's own head applies them; to it the feature is a map with one position.
        """
        if self.own_pooling or self.head is None:
            return super().logits(global_)
        one = global_[:, None, None] if self.channels_last_output else global_[:, :, None, None]
        return self.network.forward_head(one)  # type: ignore[no-any-return, operator]

    def pooled(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Pool as timm's own head does, where that keeps the width."""
        if not self.own_pooling:
            return super().pooled(features, tokens)
        return self.network.forward_head(features, pre_logits=True)  # type: ignore[no-any-return, operator]

    def feature_map(self, images: Tensor) -> Tensor:
        """Give the last feature map of images [B, 3, H, W]."""
        return self.network.forward_features(images)  # type: ignore[no-any-return, operator]


class TimmTokenEncoder(Encoder):
    """Vision transformer of timm: global is the feature that timm's own head classifies.

    Args:
        network: the network.
        **attributes: those of :class:`Encoder`.
    """

    def __init__(self, network: nn.Module, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.network = network
        self.prefix = int(getattr(network, "num_prefix_tokens", 0))

    @property
    def head(self) -> nn.Module | None:
        """The classifier of timm's network, if it was built with it."""
        return timm_head(self.network)

    def logits(self, global_: Tensor) -> Tensor:
        """Scores [B, 1000] of the ImageNet classes, see :meth:`Encoder.logits`."""
        return super().logits(global_) if self.head is None else self.head(global_)

    def forward(self, images: Tensor) -> Features:
        """Encode images, see :meth:`Encoder.forward`."""
        features = self.network.forward_features(images)  # type: ignore[operator]
        pooled = self.network.forward_head(features, pre_logits=True)  # type: ignore[operator]
        return Features(features[:, self.prefix :], pooled)


class OpenClipEncoder(Encoder):
    """Vision tower of open_clip: tokens go through the norm and projection of the pooled one.

    Args:
        network: the tower.
        **attributes: those of :class:`Encoder`.
    """

    def __init__(self, network: nn.Module, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.network = network

    def forward(self, images: Tensor) -> Features:
        """Encode images, see :meth:`Encoder.forward`."""
        output = self.network.forward_intermediates(  # type: ignore[operator]
            images, indices=1, normalize_intermediates=True, output_fmt="NLC"
        )
        tokens = output["image_intermediates"][-1]
        projection = self.network.proj
        if projection is not None:
            tokens = tokens @ projection
        return Features(tokens, output["image_features"])


def timm_head(network: nn.Module) -> nn.Module | None:
    """Find the one classifier of a timm network.

    Args:
        network: the network.

    Returns:
        The layer; None if it was built without, or has several (distilled networks).
    """
    found = network.get_classifier()  # type: ignore[operator]
    has = isinstance(found, nn.Module) and not isinstance(found, nn.Identity)
    return found if has else None
