from __future__ import annotations

import pytest
import torch

from zsbir_fast.cli import bench_rooms
from zsbir_fast.cli.app import main

TINY = ["--queries", "6", "--gallery", "300", "--classes", "5", "--batch", "12", "--pairs", "2"]


def test_all_rooms_are_measured(capsys):
    assert main(["bench", *TINY, "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    for part in (
        "batched_map: mAP@all of 6 x 300 scores",
        "hardest quadruplets and their loss, B=12",
        "batch-all triplets, B=12",
        "batch-all quadruplets, B=12",
        "token_weighting: forward and backward of 2 pairs",
        "all 77 of 77 words valid",
    ):
        assert part in out
    assert out.count("all agree") == 3


def test_one_room_can_be_chosen(capsys):
    assert main(["bench", "quadruplet_mining", "--batch", "9", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("quadruplet_mining: ")
    assert "token_weighting" not in out
    assert "mAP" not in out


def test_unknown_room(capsys):
    assert main(["bench", "batched_maps"]) == 2
    assert "zsbir bench: error: room must be one of batched_map, " in capsys.readouterr().err


def test_a_batch_of_one_has_no_quadruplet_and_still_runs():
    assert "B=1 " in bench_rooms.quadruplet_mining(1, 1)


def test_disagreement_is_an_error(monkeypatch):
    def wrong(*arguments):
        return bench_rooms._token_kernel(*arguments) * 1.01

    monkeypatch.setattr(bench_rooms, "_token_reference", wrong)
    with pytest.raises(RuntimeError, match=r"bench: token_weighting \(5 to 20 of 77 words valid\)"):
        bench_rooms.token_weighting(2, 1)


def test_disagreeing_gradients_are_an_error(monkeypatch):
    loss = bench_rooms._all_triplets

    def wrong(sketches, photos, labels, impl):
        factor = 2.0 if impl == "reference" else 1.0
        value = loss(sketches, photos, labels, impl)
        return value.detach() + factor * (value - value.detach())

    monkeypatch.setattr(bench_rooms, "_all_triplets", wrong)
    with pytest.raises(RuntimeError, match="must agree with its reference"):
        bench_rooms.quadruplet_mining(8, 1)
    assert torch.is_grad_enabled()
