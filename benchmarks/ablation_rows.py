"""What each claim of ClusterRetri and SBKA is worth: trained with and without, ranked in both ways.

Every variant is trained by its shipped config on the bundled benchmark. *Plain* is the ranking of
its features by cosine, *re-ranked* the ranking by clusters that the row names.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import zsbir_fast as zf
from benchmarks.ranking_rows import RankingRow
from zsbir_fast.cli.parsing import find_config
from zsbir_fast.runs.rerank_choice import RerankSetting
from zsbir_fast.runs.settings import read_settings
from zsbir_fast.runs.train import train
from zsbir_fast.runs.unseen import Embedded, embed_unseen

NEVER = 1_000_000  # epochs; more than any run has
LEAST = 0.45  # mAP@all of a trained method by its own ranking
LONGEST = 600.0  # seconds of a whole run


@dataclass(frozen=True)
class Variant:
    """A method as shipped, or without one of its parts.

    ``model`` replaces arguments of the config. ``rankings`` are further rankings of the same
    features, by name; the method's own one always comes first.
    """

    what: str
    model: Mapping[str, Any] = field(default_factory=dict)
    rankings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def is_shipped(self) -> bool:
        """Whether nothing is left out."""
        return not self.model


ONE_TO_ONE = {"blocks": 1, "fuse": 0.0}
VARIANTS = {
    "clusterretri": (
        Variant("ClusterRetri", rankings={"one centre a photo, not fused": ONE_TO_ONE}),
        Variant("ClusterRetri without alignment", {"knowledge": {"align": 0.0}}),
    ),
    "sbka": (
        Variant("SBKA", rankings={"one centre a photo, not fused": ONE_TO_ONE}),
        Variant("SBKA, one-way: the teacher never learns", {"one_way_epochs": NEVER}),
        Variant("SBKA without alignment", {"knowledge": {"align": 0.0}}),
    ),
}


def ablation_rows(method: str, seeds: Sequence[int]) -> Iterator[RankingRow]:
    """Train the variants of a method, and rank the unseen classes with each."""
    for variant in VARIANTS[method]:
        for seed in seeds:
            start = time.perf_counter()
            test = _trained(method, variant, seed)
            seconds = time.perf_counter() - start
            for ranking, changes in {"": {}, **variant.rankings}.items():
                what = f"{variant.what}; {ranking}" if ranking else variant.what
                own = not ranking and variant.is_shipped
                targets = (("re-ranked", LEAST), ("seconds", LONGEST)) if own else ()
                yield _row(method, what, seed, test, changes, seconds=seconds, targets=targets)


def _trained(method: str, variant: Variant, seed: int) -> Embedded:
    settings = read_settings(find_config(f"{method}-qd_caltech"))
    model = {**settings.model, **variant.model}
    with tempfile.TemporaryDirectory() as folder:
        run = replace(settings.run, out=str(Path(folder) / "run"), seed=seed, progress=False)
        found = train(replace(settings, model=model, run=run))
    return embed_unseen(found.model, found.benchmark, chosen_by=found.identity.chosen_by)


def _row(
    method: str,
    what: str,
    seed: int,
    test: Embedded,
    changes: Mapping[str, Any],
    *,
    seconds: float,
    targets: tuple[tuple[str, float], ...],
) -> RankingRow:
    settings = read_settings(find_config(f"{method}-qd_caltech"))
    options = zf.ClusterOptions(**{**settings.model["ranking"], **changes})
    by_cosine = replace(test, ranker=zf.EmbeddingRanker())
    plain = by_cosine.evaluate()
    expansion = by_cosine.rerank(RerankSetting(zf.RerankOptions(kind="expansion")))
    assert expansion is not None
    ranker = options.ranker()
    again = replace(test, ranker=ranker).evaluate()
    before, after = plain.per_class, again.per_class
    worst = min(after[label]["map"] - before[label]["map"] for label in before)
    return RankingRow(
        method,
        what,
        seed,
        plain.map,
        expansion.result.map,
        again.map,
        ranker.name,
        worst,
        seconds,
        targets,
    )


ABLATIONS = {method: partial(ablation_rows, method) for method in VARIANTS}
"""Name of a group -> what makes its rows, given the seeds."""
