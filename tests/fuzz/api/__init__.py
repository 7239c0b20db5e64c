"""The public API, entrance by entrance: how a case of each is drawn."""

from __future__ import annotations

from collections.abc import Callable

from case import Case
from inputs import Draw

import zsbir_fast
from api import losses, miner, mining, modules, ranking, reranking, weighting, words

#: Entrance -> how often, relative to the others, and what draws its cases.
ENTRANCES: dict[str, tuple[int, Callable[[Draw], Case]]] = {
    "evaluate_ranking": (4, ranking.evaluate_ranking),
    "evaluate_retrieval": (6, ranking.evaluate_retrieval),
    "evaluator": (4, ranking.evaluator),
    "excluding": (2, ranking.excluding),
    "leave_one_out": (2, ranking.leave_one_out),
    "spoilt_evaluator": (1, ranking.spoilt_evaluator),
    "torchmetrics_metric": (1, ranking.torchmetrics_metric),
    "compare_definitions": (1, ranking.compare_definitions),
    "rerank": (2, reranking.rerank),
    "mine_quadruplets": (4, mining.mine_quadruplets),
    "quadruplet_loss": (3, mining.quadruplet_loss),
    "hard_triplet_miner": (2, miner.hard_triplet_miner),
    "batch_all_triplet_loss": (3, losses.batch_all_triplet_loss),
    "batch_all_quadruplet_loss": (3, losses.batch_all_quadruplet_loss),
    "triplet_module": (2, losses.triplet_module),
    "weighted_quadruplet_loss": (3, modules.weighted_quadruplet_loss),
    "cross_batch_memory": (2, modules.cross_batch_memory),
    "contrastive": (1, losses.contrastive),
    "gathering": (1, modules.gathering),
    "token_weighting": (4, weighting.token_weighting),
    "pairwise_token_score": (2, weighting.pairwise_token_score),
    "alignment_weights": (1, weighting.alignment_weights),
    "pair_weighting": (1, weighting.pair_weighting),
    "class_text": (1, words.class_text),
    "load_split": (1, words.load_split),
    "load_benchmark": (1, words.load_benchmark),
    "build_encoder": (1, words.build_encoder),
    "encoder_options": (1, words.encoder_options),
    "prompt": (1, words.prompt),
}


def prepare() -> None:
    """Import all that is public, so that no child has to."""
    for name in zsbir_fast.__all__:
        getattr(zsbir_fast, name)
