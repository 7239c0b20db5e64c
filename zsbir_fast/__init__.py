"""Zero-shot sketch-based image retrieval with fast, exact kernels.

Everything public is named here and nowhere else. Names load on first use, so that
``import zsbir_fast`` costs little more than ``import torch``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zsbir_fast._native import require_native

__version__ = "0.1.0"

# The public API: group -> name -> module that defines it. docs/api.md has the same groups.
_PUBLIC = {
    "Ranking metrics": {
        "evaluate_retrieval": "zsbir_fast.metrics.evaluate",
        "evaluate_ranking": "zsbir_fast.metrics.evaluate",
        "RetrievalResult": "zsbir_fast.metrics.result",
        "RetrievalEvaluator": "zsbir_fast.metrics.evaluator",
        "RetrievalMetric": "zsbir_fast.metrics.torchmetrics_adapter",
        "compare_definitions": "zsbir_fast.metrics.compare",
        "Protocol": "zsbir_fast.metrics.protocols",
        "PROTOCOLS": "zsbir_fast.metrics.protocols",
    },
    "Mining, losses and weighting": {
        "mine_quadruplets": "zsbir_fast.ops.quadruplet_mining",
        "quadruplet_loss": "zsbir_fast.ops.quadruplet_mining",
        "Quadruplets": "zsbir_fast.ops.quadruplet_mining",
        "batch_all_triplet_loss": "zsbir_fast.ops.quadruplet_mining",
        "batch_all_quadruplet_loss": "zsbir_fast.ops.quadruplet_mining",
        "token_weighting": "zsbir_fast.ops.token_weighting",
        "pairwise_token_score": "zsbir_fast.ops.token_weighting",
        "alignment_weights": "zsbir_fast.ops.token_weighting",
        "WeightedQuadrupletLoss": "zsbir_fast.losses.weighted_quadruplet",
        "CrossBatchMemory": "zsbir_fast.losses.cross_batch_memory",
        "BatchAllTripletLoss": "zsbir_fast.losses.metric_learning",
        "HardTripletMiner": "zsbir_fast.losses.metric_learning",
        "soft_cross_entropy": "zsbir_fast.losses.distillation",
        "noise_alignment_loss": "zsbir_fast.losses.distillation",
        "gather_with_gradient": "zsbir_fast.losses.gathering",
        "gather_labels": "zsbir_fast.losses.gathering",
    },
    "Data and text": {
        "load_benchmark": "zsbir_fast.data.benchmarks",
        "load_split": "zsbir_fast.data.splits",
        "ClassText": "zsbir_fast.text.class_text",
        "bundled_descriptions": "zsbir_fast.text.descriptions",
        "load_descriptions": "zsbir_fast.text.descriptions",
        "describe_with_model": "zsbir_fast.text.describe",
        "ModelDescriptions": "zsbir_fast.text.describe",
        "LanguageModel": "zsbir_fast.text.chat_model",
        "imagenet_similarity": "zsbir_fast.text.imagenet_similarity",
    },
    "Encoders and methods": {
        "build_encoder": "zsbir_fast.encoders.build",
        "EncoderOptions": "zsbir_fast.encoders.options",
        "TuningOptions": "zsbir_fast.encoders.options",
        "ModalityEncoder": "zsbir_fast.encoders.modality_encoder",
        "DMWAN": "zsbir_fast.methods.dmwan.model",
        "WeightingOptions": "zsbir_fast.methods.dmwan.options",
        "QuadrupletOptions": "zsbir_fast.methods.dmwan.options",
        "TermOptions": "zsbir_fast.methods.dmwan.options",
        "CMAAN": "zsbir_fast.methods.cmaan.model",
        "ClassTextOptions": "zsbir_fast.methods.cmaan.class_tokens",
        "ExchangeOptions": "zsbir_fast.methods.cmaan.options",
        "RelationOptions": "zsbir_fast.methods.cmaan.options",
        "CorrespondenceOptions": "zsbir_fast.methods.cmaan.options",
        "load_zse_sbir": "zsbir_fast.methods.cmaan.zse",
        "ClusterRetri": "zsbir_fast.methods.clusterretri",
        "SBKA": "zsbir_fast.methods.sbka",
        "KnowledgeOptions": "zsbir_fast.methods.distilled",
        "load_model": "zsbir_fast.methods.saving",
        "export_model": "zsbir_fast.methods.saving",
        "ModelIdentity": "zsbir_fast.methods.identity",
    },
    "Methods of your own": {
        "Method": "zsbir_fast.methods.contract",
        "Losses": "zsbir_fast.methods.contract",
        "Progress": "zsbir_fast.methods.contract",
        "BatchPlan": "zsbir_fast.methods.batches",
        "ImageSpec": "zsbir_fast.data.image_spec",
        "register_method": "zsbir_fast.methods.registry",
    },
    "Ranking": {
        "Ranker": "zsbir_fast.ranking.ranker",
        "EmbeddingRanker": "zsbir_fast.ranking.ranker",
        "ScoreRanker": "zsbir_fast.ranking.ranker",
        "ExpandedRanker": "zsbir_fast.ranking.expansion",
        "IterativeRanker": "zsbir_fast.ranking.iterative",
        "ReciprocalRanker": "zsbir_fast.ranking.reciprocal",
        "DiffusionRanker": "zsbir_fast.ranking.diffusion",
        "rerank": "zsbir_fast.ranking.rerank",
        "ClusterRanker": "zsbir_fast.ranking.clusters",
        "Codebooks": "zsbir_fast.ranking.codebooks",
        "choose_clusters": "zsbir_fast.ranking.cluster_count",
        "ITQ": "zsbir_fast.ranking.codes",
        "CodeRanker": "zsbir_fast.ranking.codes",
        "hamming_distances": "zsbir_fast.ranking.hamming",
        "ClusterOptions": "zsbir_fast.ranking.cluster_options",
        "choose_rerank": "zsbir_fast.ranking.choose",
        "RerankChoice": "zsbir_fast.ranking.choose",
        "RerankOptions": "zsbir_fast.ranking.rerank",
        "NeighbourGraph": "zsbir_fast.ranking.graph",
        "Neighbours": "zsbir_fast.ranking.ranker",
    },
    "Training and retrieval": {
        "train": "zsbir_fast.runs.train",
        "TrainedRun": "zsbir_fast.runs.train",
        "Settings": "zsbir_fast.runs.settings",
        "DataConfig": "zsbir_fast.methods.settings",
        "OptimConfig": "zsbir_fast.methods.settings",
        "RunConfig": "zsbir_fast.training.run_config",
        "embed_images": "zsbir_fast.retrieval.embed",
    },
    "Reports": {
        "write_report": "zsbir_fast.report.html",
    },
}
_MODULES = {name: module for names in _PUBLIC.values() for name, module in names.items()}

__all__ = ["__version__", *_MODULES]

if TYPE_CHECKING:
    from zsbir_fast.data.benchmarks import load_benchmark as load_benchmark
    from zsbir_fast.data.image_spec import ImageSpec as ImageSpec
    from zsbir_fast.data.splits import load_split as load_split
    from zsbir_fast.encoders.build import build_encoder as build_encoder
    from zsbir_fast.encoders.modality_encoder import ModalityEncoder as ModalityEncoder
    from zsbir_fast.encoders.options import EncoderOptions as EncoderOptions
    from zsbir_fast.encoders.options import TuningOptions as TuningOptions
    from zsbir_fast.losses.cross_batch_memory import CrossBatchMemory as CrossBatchMemory
    from zsbir_fast.losses.distillation import noise_alignment_loss as noise_alignment_loss
    from zsbir_fast.losses.distillation import soft_cross_entropy as soft_cross_entropy
    from zsbir_fast.losses.gathering import gather_labels as gather_labels
    from zsbir_fast.losses.gathering import gather_with_gradient as gather_with_gradient
    from zsbir_fast.losses.metric_learning import BatchAllTripletLoss as BatchAllTripletLoss
    from zsbir_fast.losses.metric_learning import HardTripletMiner as HardTripletMiner
    from zsbir_fast.losses.weighted_quadruplet import (
        WeightedQuadrupletLoss as WeightedQuadrupletLoss,
    )
    from zsbir_fast.methods.batches import BatchPlan as BatchPlan
    from zsbir_fast.methods.clusterretri import ClusterRetri as ClusterRetri
    from zsbir_fast.methods.cmaan.class_tokens import ClassTextOptions as ClassTextOptions
    from zsbir_fast.methods.cmaan.model import CMAAN as CMAAN
    from zsbir_fast.methods.cmaan.options import CorrespondenceOptions as CorrespondenceOptions
    from zsbir_fast.methods.cmaan.options import ExchangeOptions as ExchangeOptions
    from zsbir_fast.methods.cmaan.options import RelationOptions as RelationOptions
    from zsbir_fast.methods.cmaan.zse import load_zse_sbir as load_zse_sbir
    from zsbir_fast.methods.contract import Losses as Losses
    from zsbir_fast.methods.contract import Method as Method
    from zsbir_fast.methods.contract import Progress as Progress
    from zsbir_fast.methods.distilled import KnowledgeOptions as KnowledgeOptions
    from zsbir_fast.methods.dmwan.model import DMWAN as DMWAN
    from zsbir_fast.methods.dmwan.options import QuadrupletOptions as QuadrupletOptions
    from zsbir_fast.methods.dmwan.options import TermOptions as TermOptions
    from zsbir_fast.methods.dmwan.options import WeightingOptions as WeightingOptions
    from zsbir_fast.methods.identity import ModelIdentity as ModelIdentity
    from zsbir_fast.methods.registry import register_method as register_method
    from zsbir_fast.methods.saving import export_model as export_model
    from zsbir_fast.methods.saving import load_model as load_model
    from zsbir_fast.methods.sbka import SBKA as SBKA
    from zsbir_fast.methods.settings import DataConfig as DataConfig
    from zsbir_fast.methods.settings import OptimConfig as OptimConfig
    from zsbir_fast.metrics.compare import compare_definitions as compare_definitions
    from zsbir_fast.metrics.evaluate import evaluate_ranking as evaluate_ranking
    from zsbir_fast.metrics.evaluate import evaluate_retrieval as evaluate_retrieval
    from zsbir_fast.metrics.evaluator import RetrievalEvaluator as RetrievalEvaluator
    from zsbir_fast.metrics.protocols import PROTOCOLS as PROTOCOLS
    from zsbir_fast.metrics.protocols import Protocol as Protocol
    from zsbir_fast.metrics.result import RetrievalResult as RetrievalResult
    from zsbir_fast.metrics.torchmetrics_adapter import RetrievalMetric as RetrievalMetric
    from zsbir_fast.ops.quadruplet_mining import Quadruplets as Quadruplets
    from zsbir_fast.ops.quadruplet_mining import (
        batch_all_quadruplet_loss as batch_all_quadruplet_loss,
    )
    from zsbir_fast.ops.quadruplet_mining import batch_all_triplet_loss as batch_all_triplet_loss
    from zsbir_fast.ops.quadruplet_mining import mine_quadruplets as mine_quadruplets
    from zsbir_fast.ops.quadruplet_mining import quadruplet_loss as quadruplet_loss
    from zsbir_fast.ops.token_weighting import alignment_weights as alignment_weights
    from zsbir_fast.ops.token_weighting import pairwise_token_score as pairwise_token_score
    from zsbir_fast.ops.token_weighting import token_weighting as token_weighting
    from zsbir_fast.ranking.choose import RerankChoice as RerankChoice
    from zsbir_fast.ranking.choose import choose_rerank as choose_rerank
    from zsbir_fast.ranking.cluster_count import choose_clusters as choose_clusters
    from zsbir_fast.ranking.cluster_options import ClusterOptions as ClusterOptions
    from zsbir_fast.ranking.clusters import ClusterRanker as ClusterRanker
    from zsbir_fast.ranking.codebooks import Codebooks as Codebooks
    from zsbir_fast.ranking.codes import ITQ as ITQ
    from zsbir_fast.ranking.codes import CodeRanker as CodeRanker
    from zsbir_fast.ranking.diffusion import DiffusionRanker as DiffusionRanker
    from zsbir_fast.ranking.expansion import ExpandedRanker as ExpandedRanker
    from zsbir_fast.ranking.graph import NeighbourGraph as NeighbourGraph
    from zsbir_fast.ranking.hamming import hamming_distances as hamming_distances
    from zsbir_fast.ranking.iterative import IterativeRanker as IterativeRanker
    from zsbir_fast.ranking.ranker import EmbeddingRanker as EmbeddingRanker
    from zsbir_fast.ranking.ranker import Neighbours as Neighbours
    from zsbir_fast.ranking.ranker import Ranker as Ranker
    from zsbir_fast.ranking.ranker import ScoreRanker as ScoreRanker
    from zsbir_fast.ranking.reciprocal import ReciprocalRanker as ReciprocalRanker
    from zsbir_fast.ranking.rerank import RerankOptions as RerankOptions
    from zsbir_fast.ranking.rerank import rerank as rerank
    from zsbir_fast.report.html import write_report as write_report
    from zsbir_fast.retrieval.embed import embed_images as embed_images
    from zsbir_fast.runs.settings import Settings as Settings
    from zsbir_fast.runs.train import TrainedRun as TrainedRun
    from zsbir_fast.runs.train import train as train
    from zsbir_fast.text.chat_model import LanguageModel as LanguageModel
    from zsbir_fast.text.class_text import ClassText as ClassText
    from zsbir_fast.text.describe import ModelDescriptions as ModelDescriptions
    from zsbir_fast.text.describe import describe_with_model as describe_with_model
    from zsbir_fast.text.descriptions import bundled_descriptions as bundled_descriptions
    from zsbir_fast.text.descriptions import load_descriptions as load_descriptions
    from zsbir_fast.text.imagenet_similarity import imagenet_similarity as imagenet_similarity
    from zsbir_fast.training.run_config import RunConfig as RunConfig

require_native()


if not TYPE_CHECKING:  # a type checker would take any name for a public one

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return getattr(importlib.import_module(_MODULES[name]), name)
        raise AttributeError(f"module 'zsbir_fast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
