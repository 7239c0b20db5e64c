"""Everything that is read from disk, entrance by entrance: how a damaged file of each is drawn."""

from __future__ import annotations

from collections.abc import Callable

from case import Case
from inputs import Draw

from files import readers, samples

#: Entrance -> how often, relative to the others, and what draws its cases.
ENTRANCES: dict[str, tuple[int, Callable[[Draw], Case]]] = {
    "file_list": (2, readers.file_list),
    "class_list": (2, readers.class_list),
    "benchmark_of_lists": (1, readers.benchmark_of_lists),
    "feature_pair": (4, readers.feature_pair),
    "eval_command": (1, readers.eval_command),
    "weight_file": (4, readers.weight_file),
    "checkpoint": (2, readers.checkpoint),
    "model_folder": (2, readers.model_folder),
    "settings_file": (2, readers.settings_file),
    "train_config": (1, readers.train_config),
    "image": (4, readers.image),
    "descriptions": (1, readers.descriptions),
    "answers": (1, readers.answers),
    "memory_map": (1, readers.memory_map),
}


def prepare() -> None:
    """Make the samples, so that no child has to."""
    samples.everything()
