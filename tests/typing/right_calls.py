"""What users write, as mypy --strict must let it pass: see test_typing.py."""

from __future__ import annotations

import numpy as np
from torch import Tensor

import zsbir_fast as zf


def ranking(queries: Tensor, gallery: Tensor, labels: list[int]) -> float:
    result = zf.evaluate_retrieval(queries, gallery, labels, labels, metric="dot", ks=(10, 100))
    evaluator = zf.RetrievalEvaluator(protocol=zf.PROTOCOLS["sake"])
    evaluator.add_gallery(gallery, labels)
    both: zf.RetrievalResult = evaluator.evaluate(queries, labels)
    print(zf.compare_definitions(queries, gallery, labels, labels))
    by = zf.ReciprocalRanker(k1=8, graph=zf.NeighbourGraph.of(gallery, 9))
    again = zf.evaluate_retrieval(queries, gallery, labels, labels, rerank=by)
    nearest: zf.Neighbours = zf.rerank(queries, gallery, 5, by="diffusion", graph_k=10)
    choice: zf.RerankChoice = zf.choose_rerank(queries, gallery, labels, labels)
    print(again.reranked_by, nearest.rows, choice.options.kind)
    return result.map + both.precision_at[100]


def losses(sketches: Tensor, photos: Tensor, labels: list[int]) -> Tensor:
    loss = zf.WeightedQuadrupletLoss(
        negative="semihard",
        positive="easiest",
        preset="full",
        coefficients=(1, 0.5, 0, 0, 0),
        margins=[0.3] * 5,
        distance="cosine",
    )
    memory = zf.CrossBatchMemory(loss, size=1024, width=128, past_positives=True)
    triplets = zf.BatchAllTripletLoss(margin=0.2)(sketches, np.array(labels))
    return loss(sketches, photos, labels) + memory(sketches, photos, (labels, labels)) + triplets


def mining(sketches: Tensor, photos: Tensor, labels: Tensor) -> Tensor:
    mined: zf.Quadruplets = zf.mine_quadruplets(sketches, photos, labels, labels)
    anchors, positives, negatives = zf.HardTripletMiner()(sketches, labels)
    assert len(anchors) == len(positives) == len(negatives)
    return zf.quadruplet_loss(sketches, photos, mined, preset="domain_balanced", margins=0.2)


def data() -> tuple[str, ...]:
    benchmark = zf.load_benchmark("qd_caltech")
    image, label = benchmark.test_photos[0]
    assert image.ndim == 3
    assert label >= 0
    return benchmark.unseen + zf.load_split("sketchy-25").seen


def encoders(images: Tensor) -> int:
    encoder = zf.build_encoder("bundled:mobilenet_v2", weights=None)
    encoder(images)
    return encoder.width


def training() -> Tensor:
    settings = zf.Settings(
        method="dmwan",
        model={"loss": zf.QuadrupletOptions(preset="full", negative="semihard")},
        data=zf.DataConfig(classes_per_batch=8),
        run=zf.RunConfig(epochs=3, out="run"),
    )
    run: zf.TrainedRun = zf.train(settings)
    model, identity = zf.load_model("run/model")
    zf.export_model(model, identity, "elsewhere")
    return zf.embed_images(model, run.benchmark.test_photos, batch_size=16)


def weighting(text: zf.ClassText, tokens: Tensor, labels: list[int]) -> Tensor:
    photos = (tokens, tokens)
    return zf.token_weighting(text.tokens, text.mask, tokens, tokens, *photos, labels)
