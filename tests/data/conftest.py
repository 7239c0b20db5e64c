"""Small datasets on disk, in the layouts that users have."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from zsbir_fast.data.filelists import write_class_list, write_file_list
from zsbir_fast.data.images import ImageSet


@pytest.fixture
def draw():
    """Write a small image of noise; its suffix says the format."""

    def write(path, *, seed=0, size=(12, 10), mode="RGB"):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(path)
        return path

    return write


@pytest.fixture
def class_folders(draw):
    """Write ``<place>/<class>/<i>.<suffix>`` for classes; returns the place."""

    def write(place, classes, *, images=2, suffix=".png"):
        for name in classes:
            for i in range(images):
                draw(place / name / f"{i}{suffix}", seed=i)
        return place

    return write


@pytest.fixture
def list_layout(draw):
    """Write images and lists as SAKE and ZSE-SBIR do; ``pattern`` names sketch and photo lists."""

    def write(root, seen, unseen, pattern, *, folder="zeroshot1", roots=("s k", "photo"), parts=()):
        lists = root / folder
        for part, classes in (("train", seen), ("zero", unseen), *((p, seen) for p in parts)):
            for place, name, suffix in zip(roots, pattern, (".png", ".jpg"), strict=True):
                if part == "test" and place == roots[1]:
                    continue
                files = [f"{place}/{c}/{part}{i}{suffix}" for c in classes for i in range(2)]
                for file in files:
                    draw(root / file)
                labels = [i for i in range(len(classes)) for _ in range(2)]
                write_file_list(lists / name.format(part), files, labels)
        write_class_list(lists / "cname_cid.txt", seen)
        write_class_list(lists / "cname_cid_zero.txt", unseen)
        return root

    return write


@pytest.fixture
def image_set():
    """Make a set of images that need not exist, from labels."""

    def make(labels, modality="sketch", *, classes=None, paths=None, **options):
        names = classes or [f"class{i}" for i in range(max(labels) + 1)]
        files = paths or [f"{modality}/{i}.png" for i in range(len(labels))]
        return ImageSet(files, labels, names, modality, **options)

    return make
