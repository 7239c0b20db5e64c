"""Look into a trained model: how pairs of seen classes come to their weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zsbir_fast._words import shown
from zsbir_fast.data.benchmarks import Benchmark
from zsbir_fast.data.image_spec import ImageSpec
from zsbir_fast.data.images import ImageSet
from zsbir_fast.data.transforms import eval_transform
from zsbir_fast.methods.contract import Method
from zsbir_fast.report.explanation import PairExplanation
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
    model: Method,
    benchmark: Benchmark,
    *,
    pairs: int = 48,
    seed: int = 0,
) -> ExplainedPairs | None:
    """Weigh a sketch and a photo of every class that the model was trained on.

    Only seen classes have text. They are those of training, so nothing is measured here.

    Args:
        model: the method.
        benchmark: gives the training images.
        pairs: most pairs to take; of more classes, those that are evenly spread.
        seed: fixes which image of a class is taken.

    Returns:
        The batch and its explanation; None if the model explains nothing.

    Raises:
        TypeError: the model gives something else.
    """
    modalities = [
        images.of_classes(model.classes)
        for images in (benchmark.train_sketches, benchmark.train_photos)
    ]
    present = torch.tensor(sorted(set.intersection(*(set(i.labels.tolist()) for i in modalities))))
    spread = torch.linspace(0, len(present) - 1, min(pairs, len(present))).round().long()
    labels = present[spread]
    generator = torch.Generator().manual_seed(seed)
    sketches, photos = (_one_per_class(images, labels, generator) for images in modalities)
    device = next(model.parameters()).device
    spec = model.image_spec()
    with evaluating(model), torch.inference_mode():
        explanation = model.explain(
            _batch(sketches, spec).to(device),
            _batch(photos, spec).to(device),
            labels.to(device),
        )
    if explanation is None:
        return None
    if not isinstance(explanation, PairExplanation):
        raise TypeError(
            f"{type(model).__name__}.explain must give a PairExplanation or None, got "
            f"{shown(explanation)}"
        )
    return ExplainedPairs(sketches, photos, explanation.cpu())


def _one_per_class(images: ImageSet, labels: Tensor, generator: torch.Generator) -> ImageSet:
    rows = []
    for label in labels.tolist():
        those = (images.labels == label).nonzero()[:, 0]
        rows.append(int(those[torch.randint(len(those), (), generator=generator)]))
    return images.subset(rows)


def _batch(images: ImageSet, spec: ImageSpec) -> Tensor:
    prepared = images.with_transform(eval_transform(*spec, modality=images.modality))
    return torch.stack([prepared[i][0] for i in range(len(prepared))])
