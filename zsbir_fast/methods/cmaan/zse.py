"""The published weights of ZSE-SBIR, CMAAN's base, as a model of this package."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from zsbir_fast.encoders.encoder import TimmTokenEncoder
from zsbir_fast.encoders.options import EncoderOptions
from zsbir_fast.encoders.weight_files import misfits, read_weight_file
from zsbir_fast.methods.cmaan.options import ExchangeOptions, RelationOptions

if TYPE_CHECKING:
    from zsbir_fast.methods.cmaan.model import CMAAN

ZSE_ARGUMENTS: dict[str, Any] = {
    "encoder": EncoderOptions(name="timm:vit_base_patch16_224", weights="random"),
    "exchange": ExchangeOptions(partner="image", style="zse"),
    "relation": RelationOptions(raw_view=True),
    "patch_pyramid": True,
}
"""The arguments of CMAAN that make it ZSE-SBIR; those of the loss are the defaults."""

# Published name, as a pattern -> ours. The linear layers of the attention are query, key, value and
# output, in this order. Unlisted ones (ca.encoder.layers: a copy of the layer that is never used)
# are left out.
_LINEARS = ("query", "key", "value", "output")
_NORMS = ("norm_attended", "norm_fed")
_STREAMS = {"1": "sketch", "2": "photo"}
_VIT = {
    r"embedding\.(\w+)": r"patch_embed.patches.proj.\1",
    r"scale\.seq\.(\d)\.weight": r"patch_embed.pyramid.\1.weight",
    r"pos_embedding": "pos_embed",
    r"cls": "cls_token",
    r"transformer\.encoder_norm\.(\w+)": r"norm.\1",
    r"transformer\.layers\.(\d+)\.0\.layer_norm_input\.(\w+)": r"blocks.\1.norm1.\2",
    r"transformer\.layers\.(\d+)\.0\.layer_norm_out\.(\w+)": r"blocks.\1.norm2.\2",
    r"transformer\.layers\.(\d+)\.0\.attention\.to_qkv\.(\w+)": r"blocks.\1.attn.qkv.\2",
    r"transformer\.layers\.(\d+)\.0\.attention\.to_out\.0\.(\w+)": r"blocks.\1.attn.proj.\2",
    r"transformer\.layers\.(\d+)\.0\.mlp\.net\.0\.(\w+)": r"blocks.\1.mlp.fc1.\2",
    r"transformer\.layers\.(\d+)\.0\.mlp\.net\.3\.(\w+)": r"blocks.\1.mlp.fc2.\2",
}
_LAYER = re.compile(r"ca\.encoder\.layer([12])\.(\d+)\.(.+)")


class PyramidPatches(nn.Module):
    """Patch embedding of ZSE-SBIR: the mean of timm's and of four convolutions of stride 2.

    Args:
        patches: the patch embedding of a timm network with patches of 16 pixels.
        width: of the tokens.

    Source: the public code of ZSE-SBIR, Lin et al., CVPR 2023.
    """

    def __init__(self, patches: nn.Module, width: int) -> None:
        super().__init__()
        self.patches = patches
        widths = (3, 64, 128, 256, width)
        layers: list[nn.Module] = []
        for place, (inner, outer) in enumerate(pairwise(widths)):
            side = 7 if place == 0 else 3
            layers += [nn.Conv2d(inner, outer, side, 2, side // 2, bias=False), nn.ReLU()]
        self.pyramid = nn.Sequential(*layers[:-1])

    def forward(self, images: Tensor) -> Tensor:
        """Embed images [B, 3, H, W] as tokens [B, N, D]."""
        of_pyramid = self.pyramid(images).flatten(2).mT
        return (self.patches(images) + of_pyramid) / 2  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        """Have the attributes of timm's embedding, such as ``grid_size``, which timm reads."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("patches"), name)


def add_patch_pyramid(encoder: nn.Module) -> None:
    """Give a ViT of timm with patches of 16 pixels the patch embedding of ZSE-SBIR.

    Args:
        encoder: what ``EncoderOptions.build`` made.

    Raises:
        ValueError: it is another network.
    """
    network = getattr(encoder, "network", None)
    patches = getattr(network, "patch_embed", None)
    side = getattr(patches, "patch_size", None)
    if not isinstance(encoder, TimmTokenEncoder) or tuple(side or ()) != (16, 16):
        raise ValueError(
            "CMAAN: patch_pyramid must be False for an encoder that is no ViT of timm with patches "
            f"of 16 pixels, got True for a {type(network).__name__}"
        )
    encoder.network.patch_embed = PyramidPatches(patches, encoder.width)  # type: ignore[arg-type]


def own_name(published: str) -> str | None:
    """Give our name of a published weight; None for one that the published code never uses.

    Args:
        published: e.g. ``"sa.model.cls"``.

    Raises:
        ValueError: there is no such weight.
    """
    name = published.removeprefix("module.")
    if name.startswith("ca.encoder.layers."):
        return None
    if name.startswith("conv2d."):
        return name.replace("conv2d.", "reduction.convolution.")
    if name.startswith("rn.rn."):
        return name.replace("rn.rn.", "relation.layers.")
    if name.startswith("sa.model."):
        for pattern, ours in _VIT.items():
            found = re.fullmatch(pattern, name.removeprefix("sa.model."))
            if found:
                return f"encoder.network.{found.expand(ours)}"
    layer = _LAYER.fullmatch(name)
    part = None if layer is None else _exchange_part(layer.group(3))
    if layer is None or part is None:
        raise ValueError(f"load_zse_sbir: path must hold weights of ZSE-SBIR, got one named {name}")
    return f"exchange.streams.{_STREAMS[layer.group(1)]}.{layer.group(2)}.{part}"


def _exchange_part(name: str) -> str | None:
    """Our name of a part of a cross-attention layer."""
    if found := re.fullmatch(r"self_attn\.linears\.([0-3])\.(\w+)", name):
        return f"{_LINEARS[int(found.group(1))]}.{found.group(2)}"
    if found := re.fullmatch(r"feed_forward\.w_([12])\.(\w+)", name):
        return f"feed.{0 if found.group(1) == '1' else 3}.{found.group(2)}"
    if found := re.fullmatch(r"sublayer\.([01])\.norm\.([ab])", name):
        return f"{_NORMS[int(found.group(1))]}.{'weight' if found.group(2) == 'a' else 'bias'}"
    return None


def zse_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give published weights the names that they have here.

    Args:
        published: the state dict of ZSE-SBIR's ``Model``.

    Returns:
        Weights by our names; those that the published code never uses are left out.

    Raises:
        ValueError: a name is none of theirs.
    """
    named = ((own_name(name), weight) for name, weight in published.items())
    return {name: weight for name, weight in named if name is not None}


def load_zse_sbir(path: str | Path, classes: Sequence[str]) -> CMAAN:
    """Load weights that ZSE-SBIR's code saved, as a CMAAN model.

    Two small differences remain: timm's layer norms add 1e-6 where the published ones add 1e-5, and
    its network has no dropout. Neither touches what is computed at retrieval beyond 1e-4.

    Args:
        path: a file of ``torch.save`` with the state dict, or with it under the key ``model``.
        classes: names of the classes that it was trained on; only their number and order matter,
            and only for further training.

    Returns:
        The model in evaluation mode; it ranks by the global features, and by the relation network
        after ``model.rank_by = "relation"``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or its weights are not those of ZSE-SBIR.

    Source: Lin et al., "Zero-Shot Everything Sketch-Based Image Retrieval, and in Explainable
    Style", CVPR 2023, arXiv 2303.14348, and its public code.
    """
    from zsbir_fast.methods.cmaan.model import CMAAN

    state = zse_state(read_weight_file(path))
    model = CMAAN(classes, **ZSE_ARGUMENTS)
    problems = misfits(model, state)
    if problems:
        raise ValueError(f"load_zse_sbir: path must hold weights of ZSE-SBIR, got {problems}")
    model.load_state_dict(state)
    return model.eval()
