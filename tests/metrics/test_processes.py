"""A gallery spread over processes: the same bits as in one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import zsbir_fast as zf

SIZE = 4
KS = (1, 10, 50)


@pytest.fixture(scope="module")
def data():
    """Whole numbers, so that products are exact however they are cut."""
    rng = np.random.default_rng(0)
    return {
        "queries": rng.integers(-3, 4, (90, 6)).astype(np.float32),
        "gallery": rng.integers(-3, 4, (1000, 6)).astype(np.float32),
        "query_labels": rng.integers(0, 9, 90),
        "gallery_labels": rng.integers(0, 8, 1000),
    }


@pytest.fixture(scope="module")
def outputs(data, tmp_path_factory):
    """What each of four processes got, all started once for every test here."""
    folder = tmp_path_factory.mktemp("processes")
    for name, array in data.items():
        np.save(folder / f"{name}.npy", array)
    worker = Path(__file__).with_name("processes_worker.py")
    logs = [folder / f"{rank}.log" for rank in range(SIZE)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with ExitStack() as stack:
        processes = []
        for rank, log in enumerate(logs):
            command = [sys.executable, worker, str(rank), str(SIZE), folder]
            err = stack.enter_context(log.open("w"))
            processes.append(subprocess.Popen(command, env=environment, stderr=err))
            stack.callback(processes[-1].wait)
            stack.callback(processes[-1].kill)
        for process, log in zip(processes, logs, strict=True):
            assert process.wait(timeout=120) == 0, log.read_text()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(SIZE)]


def expected(data, **options):
    arguments = (data["queries"], data["gallery"], data["query_labels"], data["gallery_labels"])
    return zf.evaluate_retrieval(*arguments, ks=KS, **options)


def columns(result):
    return result.columns.nan_to_num(-1).tolist()


@pytest.mark.slow
def test_processes_give_the_bits_of_one(data, outputs):
    for name, got in (outputs[0]["four"] | outputs[0]["two"]).items():
        metric, *_, protocol = name.split()
        assert got == columns(expected(data, metric=metric, protocol=protocol)), name
    for output in outputs[1:]:
        assert output["four"] == outputs[0]["four"]
    assert outputs[1]["two"] == outputs[0]["two"]
    assert all(o["local"] == columns(expected(data, metric="dot")) for o in outputs)


@pytest.mark.slow
def test_reranked_by_processes_as_by_one(data, outputs, rerankers):
    for output in outputs[:2]:
        assert set(output["reranked"]) == set(rerankers)
        for name, (by, got) in output["reranked"].items():
            ranker = rerankers[name]
            assert by == ranker.name
            assert got == columns(expected(data, rerank=ranker)), name
    for output in outputs:
        assert output["reranked by four"] == outputs[0]["reranked"]["diffusion"][1]


@pytest.mark.slow
def test_any_floats_give_the_bits_of_one(data, outputs):
    one = expected({**data, "queries": data["queries"] / 7}).map
    assert all(output["float"] == one for output in outputs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*exceeds the gallery")
def test_tied_galleries_give_the_bits_of_one(outputs, tied_gallery):
    for number, columns_of_four in enumerate(outputs[0]["tied"]["4"]):
        _, metric, queries, gallery, labels, gallery_labels = tied_gallery(number)
        one = zf.evaluate_retrieval(
            queries, gallery, labels, gallery_labels, metric=metric, ks=KS, ties="index"
        )
        assert columns_of_four == columns(one), number
        assert outputs[0]["tied"]["2"][number] == columns(one), number
    for output in outputs[1:]:
        assert output["tied"]["4"] == outputs[0]["tied"]["4"]
    assert len(outputs[0]["tied"]["4"]) == 200


@pytest.mark.slow
def test_processes_that_differ_fail_together(outputs):
    first, second = outputs[0]["different"], outputs[1]["different"]
    call = "RetrievalEvaluator.evaluate"
    for output in (first, second):
        assert output["queries"] == (
            f"ValueError: {call}: all processes must pass the same queries, got others in "
            "process 1 than in process 0"
        )
        assert "must pass the same protocol, got others in process 1" in output["ties"]
        assert "must pass the same rerank, got others in process 1" in output["rerank"]
        assert "ExpandedRanker: augment must be in [0, 1000], got 2000" in output["too large"]
        assert output["nothing"].endswith("the gallery must not be empty, call add_gallery first")
    assert second["labels"].startswith(f"ValueError: {call}: query_labels must be [90], one label")
    assert first["labels"].startswith(
        f"RuntimeError: {call}: process 1 of 2 failed: {call}: query_labels must be [90]"
    )
    assert "must have the same width D, got 6 and 4" in second["width"]
    assert "process 1 of 2 failed" in first["width"]
    assert outputs[2]["not a member"] == (
        f"ValueError: {call}: this process must be a member of process_group, it is not"
    )


@pytest.mark.slow
def test_torchmetrics_class_gathers_from_all_processes(data, outputs):
    result = expected(data, metric="dot")
    for output in outputs[:2]:
        got = output["collected"]
        assert got["map"] == pytest.approx(result.map, abs=1e-6)
        assert got["precision@10"] == pytest.approx(result.precision_at[10], abs=1e-6)
