"""The data and optimizer sections of a config, which every method is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Layout = Literal["auto", "lists", "folders"]
PLACES = ("layout", "unseen", "sketch_folders", "photo_folders")
"""Keys of ``data`` that say where images of a benchmark lie."""


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how batches are drawn from them.

    Attributes:
        name: benchmark (``qd_caltech`` is bundled).
        root: folder of the benchmark; None for the bundled one.
        layout: list files, folders of classes, or ``auto``: whichever is there.
        unseen: names of the unseen classes, for data of your own in folders of classes;
            published splits fix theirs.
        sketch_folders: folders below ``root`` that hold the class folders of sketches; None looks
            at the usual places.
        photo_folders: the same for photos, all of which are used.
        validation_classes: seen classes held out for validation; 0 trains on all of them and
            keeps no ``best`` checkpoint. Unseen classes are never used before the final test.
        label_noise: share of the training photos that are given another seen class at random, to
            study how much of a method survives wrong pairs; follows from ``run.seed``.
        classes_per_batch: classes in a batch.
        sketches_per_class: sketches of each class in a batch.
        photos_per_class: photos of each class in a batch.
        batch_size: images in a batch of methods that take any images, not classes of pairs
            (ClusterRetri, SBKA).
        sketch_share: share of sketches in such a batch.
        eval_batch_size: images per forward pass when embedding.
        workers: processes that load images; 0 loads in the training process.
    """

    name: str = "qd_caltech"
    root: str | None = None
    layout: Layout = "auto"
    unseen: list[str] | None = None
    sketch_folders: list[str] | None = None
    photo_folders: list[str] | None = None
    validation_classes: int = 5
    label_noise: float = 0.0
    classes_per_batch: int = 8
    sketches_per_class: int = 2
    photos_per_class: int = 2
    batch_size: int = 48
    sketch_share: float = 1 / 3
    eval_batch_size: int = 64
    workers: int = 0

    def places(self) -> dict[str, Any]:
        """Return the arguments of ``load_benchmark`` besides name and root."""
        return {key: getattr(self, key) for key in PLACES}


@dataclass(frozen=True)
class OptimConfig:
    """Learning rates with a warm-up and a schedule.

    Attributes:
        lr_backbone: peak learning rate of the image encoder.
        lr_head: peak learning rate of everything else.
        weight_decay: weight decay, decoupled for AdamW; vectors (biases, norms) have none.
        warmup_steps: optimizer steps over which the rates rise linearly from 0.
        schedule: after the warm-up, ``cosine`` or ``exponential`` down to ``final_lr_ratio``, or
            ``constant``.
        final_lr_ratio: last learning rate, relative to the peak; above 0 for ``exponential``.
        gradient_clip: largest norm of the gradient, that of each optimizer by itself; 0 turns
            clipping off.
        accumulate: batches per optimizer step.
    """

    lr_backbone: float = 1e-5
    lr_head: float = 1e-4
    weight_decay: float = 1e-2
    warmup_steps: int = 0
    schedule: Literal["cosine", "exponential", "constant"] = "cosine"
    final_lr_ratio: float = 0.0
    gradient_clip: float = 1.0
    accumulate: int = 1
