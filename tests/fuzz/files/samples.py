"""Valid files of every kind that is read, made once in memory."""

from __future__ import annotations

import io
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zsbir_fast.methods.build import build_model
from zsbir_fast.methods.checkpoint_files import write_checkpoint
from zsbir_fast.methods.identity import ModelIdentity
from zsbir_fast.methods.saving import export_model

#: Formats of images, with the modes that they are written in.
IMAGES = {
    ".png": ("RGB", "L", "RGBA", "P", "1", "I;16", "LA"),
    ".jpg": ("RGB", "L", "CMYK"),
    ".gif": ("P",),
    ".bmp": ("RGB",),
    ".webp": ("RGB", "RGBA"),
    ".tif": ("RGB", "L", "F"),
    ".ppm": ("RGB",),
}
FILE_LIST = "".join(f"sketch/cat {i}/{i}.png {i % 3}\n" for i in range(40)).encode()
CLASS_LIST = "".join(f"class {i} {i}\n" for i in range(20)).encode()
DESCRIPTIONS = b'{"cat": ["It has fur."], "dog": {"sentences": ["It barks.", "It runs."]}}'

ANSWERS = (
    b'{"cat": {"source": {"model": "m"}, "answers": {"shape": ["It is a thin oval with a tail."],'
    b' "parts": ["It has four thin legs below its body.", "Its round ears."]}}}'
)


def images() -> dict[str, bytes]:
    """Small images: name with suffix -> bytes."""
    found = {}
    pixels = np.random.default_rng(0).integers(0, 256, (24, 17, 3), dtype=np.uint8)
    for suffix, modes in IMAGES.items():
        for mode in modes:
            stream = io.BytesIO()
            image = Image.fromarray(pixels)
            if mode == "I;16":
                image = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
            else:
                image = image.convert(mode)
            image.save(stream, Image.registered_extensions()[suffix])
            found[f"{mode.replace(';', '')}{suffix}"] = stream.getvalue()
    turned = Image.Exif()
    turned[0x112] = 6
    turned[0x10E] = "what it shows"
    for suffix in (".jpg", ".png", ".webp"):
        stream = io.BytesIO()
        kind = Image.registered_extensions()[suffix]
        Image.fromarray(pixels).save(stream, kind, exif=turned)
        found[f"turned{suffix}"] = stream.getvalue()
    return found


def features(rows: int = 6, *, text: bool = False) -> bytes:
    """An ``.npz`` of embeddings."""
    stream = io.BytesIO()
    labels: Any = np.arange(rows) % 3
    if text:
        labels = np.array(["cat", "dog", "owl"])[labels]
    embeddings = np.random.default_rng(rows).standard_normal((rows, 4)).astype(np.float32)
    np.savez(stream, embeddings=embeddings, labels=labels)
    return stream.getvalue()


def weights(suffix: str) -> bytes:
    """A small state dict."""
    from safetensors.torch import save

    state = {"a.weight": torch.ones(3, 2), "a.bias": torch.arange(3.0), "n": torch.tensor(7)}
    if suffix == ".safetensors":
        return save(state)
    stream = io.BytesIO()
    torch.save({"state_dict": state}, stream)
    return stream.getvalue()


def model() -> tuple[dict[str, bytes], dict[str, Tensor]]:
    """The files of an exported model and a checkpoint of it, ``last.ckpt``; what that holds."""
    arguments = {
        "encoder": {"weights": None, "image_size": 64},
        "weighting": {"kind": "pairwise"},
        "terms": {"cls": 0.0},
    }
    identity = ModelIdentity.of("dmwan", arguments, ["cat", "dog"])
    built = build_model(identity)
    with tempfile.TemporaryDirectory() as folder:
        export_model(built, identity, folder)
        stored: dict[str, Any] = {
            "state_dict": {f"model.{k}": v for k, v in built.state_dict().items()},
            "zsbir": identity.to_dict(),
        }
        write_checkpoint(Path(folder) / "last.ckpt", stored)
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}
        return files, stored["state_dict"]


def config() -> bytes:
    """The shipped config of the bundled benchmark."""
    from importlib import resources

    place = resources.files("zsbir_fast.runs") / "configs" / "dmwan-qd_caltech.yaml"
    return place.read_bytes()


@cache
def everything() -> dict[str, Any]:
    """All samples; made before the first fork."""
    files, state = model()
    return {
        "images": images(),
        "features": (features(6), features(9), features(5, text=True), features(8, text=True)),
        ".safetensors": weights(".safetensors"),
        ".pt": weights(".pt"),
        "model": files,
        "state": state,
        "config": config(),
    }
