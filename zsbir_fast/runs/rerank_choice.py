"""``rerank.kind: auto``: choose how to re-rank on seen classes, and say on which ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from zsbir_fast.data.benchmarks import Benchmark
from zsbir_fast.data.names import shared_names
from zsbir_fast.methods.contract import Method
from zsbir_fast.ranking.choose import RerankChoice, choose_rerank
from zsbir_fast.ranking.ranker import Ranker
from zsbir_fast.ranking.rerank import RerankOptions
from zsbir_fast.retrieval.embed import embed_images

_MOST_PHOTOS = 10_000
"""Photos of seen classes that are enough for a choice."""


@dataclass(frozen=True)
class RerankSetting:
    """How the test is re-ranked, and how that was chosen.

    Attributes:
        options: a setting, never of the kind ``"auto"``.
        choice: what it was chosen by; None where the user gave it.
        classes: seen classes that it was chosen on.
        held_out: whether the model was not trained on them.
    """

    options: RerankOptions
    choice: RerankChoice | None = None
    classes: tuple[str, ...] = ()
    held_out: bool = False

    @property
    def note(self) -> str:
        """Say how it was chosen, in one sentence; empty where the user gave it."""
        if self.choice is None:
            return ""
        kind = "held out of training" if self.held_out else "that the model was trained on"
        where = f"on {len(self.classes)} seen classes {kind}, never on the unseen ones"
        best = self.choice.chosen
        if not self.choice.trials:
            return f"chosen {where}: no setting fits so few photos"
        if best is None:
            return (
                f"chosen {where}: none of {len(self.choice.trials)} settings gains in mAP@all "
                "without harm to a class"
            )
        return (
            f"chosen {where}: there mAP@all changes by {best.gain:+.3f} from "
            f"{self.choice.plain:.3f}, and that of no class by less than {best.worst:+.3f}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what ``metrics.json`` stores of a choice."""
        trials = () if self.choice is None else self.choice.trials
        return {
            "chosen_on": list(self.classes),
            "held_out_of_training": self.held_out,
            "map": None if self.choice is None else self.choice.plain,
            "trials": [{"by": t.by, "gain": t.gain, "worst_class": t.worst} for t in trials],
        }


def settle_rerank(
    options: RerankOptions,
    model: Method,
    benchmark: Benchmark,
    ranker: Ranker,
    **embedding: Any,
) -> RerankSetting:
    """Replace the kind ``"auto"`` by a setting; others stay as they are.

    The choice is made on the training images of seen classes: those that the model was not trained
    on if there are two or more, else as many of the others as the test has classes, evenly spread.

    Args:
        options: what was asked for.
        model: the trained model; its ``classes`` are those that it was trained on.
        benchmark: its seen classes, whole.
        ranker: how the model ranks.
        embedding: ``batch_size``, ``workers``, ``device`` and ``progress`` of ``embed_images``.

    Returns:
        The setting.

    Raises:
        ValueError: the model does not rank by directions of embeddings.
    """
    if options.kind != "auto":
        return RerankSetting(options)
    photos = len(benchmark.test_photos)
    options.require_possible(ranker, photos=photos)
    known = set(shared_names(benchmark.seen, model.classes))
    classes = tuple(name for name in benchmark.seen if name not in known)
    held_out = len(classes) >= 2
    if not held_out:
        classes = _spread(benchmark.seen, len(benchmark.unseen))
    images = [s.of_classes(classes) for s in (benchmark.train_sketches, benchmark.train_photos)]
    while len(images[1]) > _MOST_PHOTOS and len(classes) > 2:
        classes = _spread(classes, max(2, len(classes) * _MOST_PHOTOS // len(images[1])))
        images = [each.of_classes(classes) for each in images]
    queries, gallery = (embed_images(model, each, **embedding) for each in images)
    labels = [each.labels for each in images]
    choice = choose_rerank(queries, gallery, *labels, plain=ranker, photos=photos)
    return RerankSetting(choice.options, choice, classes, held_out)


def _spread(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Take some names, evenly spread over all; at least two, which a ranking needs."""
    count = min(max(2, count), len(names))
    places = torch.linspace(0, len(names) - 1, count).round().long().tolist()
    return tuple(names[place] for place in places)
