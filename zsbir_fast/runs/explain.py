"""Look into a trained model: why pairs of seen classes weigh what they weigh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zsbir_fast.data.benchmarks import Benchmark
from zsbir_fast.data.images import ImageSet
from zsbir_fast.data.transforms import eval_transform
from zsbir_fast.methods.dmwan.model import PairExplanation
from zsbir_fast.retrieval.embed import evaluating


@dataclass(frozen=True)
class ExplainedPairs:
    """A batch of pairs of seen classes, and how a model weighs them.

    Attributes:
        sketches: B sketches, one per class.
        photos: B photos; photo i is the partner of sketch i.
        explanation: their weights, scores and patches, on the CPU.
    """

    sketches: ImageSet
    photos: ImageSet
    explanation: PairExplanation


def explain_seen_pairs(
    model: Any,
    benchmark: Benchmark,
    *,
    pairs: int = 48,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> ExplainedPairs | None:
    """Weigh a sketch and a photo of every class that the model was trained on.

    Only seen classes have text. They are those of training, so nothing is measured here.

    Args:
        model: gives ``classes``, ``encoder`` and ``explain_pairs``, as DM-WAN does.
        benchmark: gives the training images.
        pairs: of more classes, so many that are evenly spread.
        seed: fixes which image of a class is taken.
        device: where the model is.

    Returns:
        The batch and its explanation; None if the model explains nothing.
    """
    if not hasattr(model, "explain_pairs"):
        return None
    modalities = [
        images.of_classes(model.classes)
        for images in (benchmark.train_sketches, benchmark.train_photos)
    ]
    present = torch.tensor(sorted(set.intersection(*(set(i.labels.tolist()) for i in modalities))))
    spread = torch.linspace(0, len(present) - 1, min(pairs, len(present))).round().long()
    labels = present[spread]
    generator = torch.Generator().manual_seed(seed)
    sketches, photos = (_one_per_class(images, labels, generator) for images in modalities)
    with evaluating(model), torch.inference_mode():
        weights, local, global_, answers = model.explain_pairs(
            _batch(sketches, model.encoder).to(device),
            _batch(photos, model.encoder).to(device),
            labels.to(device),
        )
    on_cpu = answers._replace(sketch=answers.sketch.cpu(), photo=answers.photo.cpu())
    explanation = PairExplanation(weights.cpu(), local.cpu(), global_.cpu(), on_cpu)
    return ExplainedPairs(sketches, photos, explanation)


def _one_per_class(images: ImageSet, labels: Tensor, generator: torch.Generator) -> ImageSet:
    rows = []
    for label in labels.tolist():
        those = (images.labels == label).nonzero()[:, 0]
        rows.append(int(those[torch.randint(len(those), (), generator=generator)]))
    return images.subset(rows)


def _batch(images: ImageSet, encoder: Any) -> Tensor:
    transform = eval_transform(
        encoder.image_size, mean=encoder.mean, std=encoder.std, modality=images.modality
    )
    prepared = images.with_transform(transform)
    return torch.stack([prepared[i][0] for i in range(len(prepared))])
