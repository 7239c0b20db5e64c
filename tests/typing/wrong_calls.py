"""Mistakes that mypy must report, each with the code at its end: see test_typing.py."""

from __future__ import annotations

from torch import Tensor

import zsbir_fast as zf


def ranking(rows: Tensor, labels: list[int]) -> None:
    zf.evaluate_retrieval(rows, rows, labels, labels, metric="cosin")  # arg-type
    zf.evaluate_retrieval(rows, rows, labels)  # call-arg
    zf.evaluate_retrieval(rows, rows, labels, labels, ks=("all",))  # arg-type
    print(zf.evaluate_retrieval(rows, rows, labels, labels).precision)  # attr-defined


def losses(rows: Tensor, labels: list[int]) -> None:
    loss = zf.WeightedQuadrupletLoss(negative="hard")  # arg-type
    zf.WeightedQuadrupletLoss(preset="triplets")  # arg-type
    zf.WeightedQuadrupletLoss(margin=0.2)  # call-arg
    zf.CrossBatchMemory(loss, 1024, 128)  # call-arg
    loss(rows, labels)  # call-arg arg-type
    zf.BatchAllTripletLoss()(rows, "labels")  # arg-type


def mining(rows: Tensor, labels: Tensor) -> None:
    zf.mine_quadruplets(rows, rows, labels, labels, positive="farthest")  # arg-type
    zf.quadruplet_loss(rows, rows, labels)  # arg-type


def data_and_models() -> None:
    zf.load_benchmark("qd_caltech", layout="list")  # arg-type
    zf.load_split(25)  # arg-type
    zf.build_encoder("bundled:mobilenet_v2", weight=None)  # call-arg
    zf.load_benchmarks()  # attr-defined
