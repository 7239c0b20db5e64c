from __future__ import annotations

import math

import pytest
import torch

from zsbir_fast.methods.checkpoint_files import read_checkpoint
from zsbir_fast.methods.contract import Losses
from zsbir_fast.runs.curves import read_curves


@pytest.mark.parametrize("kill_after", [3, 4, 5, 8, 9, 11, 12])
def test_resumed_run_equals_the_uninterrupted_one(tmp_path, small_run, kill_after):
    expected, _, whole = small_run(tmp_path / "whole")
    _, before, outcome = small_run(tmp_path / "cut", kill_after=kill_after)
    assert (outcome is None) == (kill_after < 12)
    got, after, resumed = small_run(tmp_path / "cut", resume=True)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert sorted({*before, *after}) == [4, 8, 12]  # no validation is left out
    assert (resumed.steps, resumed.best, resumed.best_step) == (12, 0.0, 8)
    assert (whole.best, whole.best_step) == (0.0, 8)


def test_resume_amid_gradient_accumulation(tmp_path, small_run):
    expected, _, _ = small_run(tmp_path / "whole", accumulate=2)
    small_run(tmp_path / "cut", kill_after=9, accumulate=2)  # batch 10 would be half of step 5
    got, after, _ = small_run(tmp_path / "cut", resume=True, accumulate=2)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert after == [8, 12]


def test_mixed_precision_trains_in_bfloat16_and_resumes(tmp_path, small_run):
    full, _, _ = small_run(tmp_path / "full")
    expected, _, _ = small_run(tmp_path / "whole", precision="bf16-mixed")
    small_run(tmp_path / "cut", kill_after=5, precision="bf16-mixed")
    got, _, _ = small_run(tmp_path / "cut", resume=True, precision="bf16-mixed")
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert all(value.dtype != torch.bfloat16 for value in expected.values())
    assert not torch.equal(expected["head.weight"], full["head.weight"])
    torch.testing.assert_close(expected["head.weight"], full["head.weight"], rtol=0, atol=0.05)


def test_the_test_above_can_fail(tmp_path, small_run):
    expected, _, _ = small_run(tmp_path / "whole")
    small_run(tmp_path / "cut", kill_after=5)
    path = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]["batch"] -= 1
    torch.save(checkpoint, path)
    got, _, _ = small_run(tmp_path / "cut", resume=True)
    assert not all(torch.equal(expected[name], got[name]) for name in expected)


def test_checkpoints_hold_plain_values_and_no_part_files(tmp_path, small_run):
    small_run(tmp_path)
    folder = tmp_path / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == [
        "best.ckpt",
        "last.ckpt",
        "previous.ckpt",
    ]
    last = read_checkpoint(folder / "last.ckpt")  # weights_only=True inside
    assert last["steps"] == 12
    assert read_checkpoint(folder / "best.ckpt")["steps"] == 8
    assert last["zsbir"]["method"] == "dmwan"


def test_logs_of_an_interrupted_run_read_as_one(tmp_path, small_run):
    small_run(tmp_path / "whole")
    small_run(tmp_path / "cut", kill_after=9)
    small_run(tmp_path / "cut", resume=True)
    whole, cut = (read_curves(tmp_path / name / "logs") for name in ("whole", "cut"))
    assert len(whole["train/loss"]) == 12
    assert cut["train/loss"] == whole["train/loss"]
    assert [x for x, _ in whole["val/map"]] == [4, 8, 12]
    assert (tmp_path / "whole" / "tensorboard").is_dir()


def test_a_line_of_the_logs_that_a_kill_cut_off_is_left_out(tmp_path):
    (tmp_path / "version_0").mkdir()
    text = "step,train/loss\n1,0.5\n2,0.25\n3,0.1"  # of 0.125, perhaps
    (tmp_path / "version_0" / "metrics.csv").write_text(text)
    assert read_curves(tmp_path) == {"train/loss": [(1, 0.5), (2, 0.25)]}


def test_resume_needs_the_same_method(tmp_path, small_run):
    small_run(tmp_path, kill_after=5)
    with pytest.raises(ValueError, match="must be of method 'cmaan', got one of method 'dmwan'"):
        small_run(tmp_path, resume=True, method="cmaan")


def test_resume_without_a_checkpoint(tmp_path, small_run):
    with pytest.raises(FileNotFoundError, match=r"path must be an existing file, got .*last\.ckpt"):
        small_run(tmp_path, resume=True)


@pytest.mark.parametrize("kill_after", [7, 9, 17])
def test_two_optimizers_resume_bit_for_bit(tmp_path, small_run, kill_after):
    how = {"two": True, "accumulate": 2}
    expected, _, whole = small_run(tmp_path / "whole", **how)
    assert whole.steps == 12
    small_run(tmp_path / "cut", kill_after=kill_after, **how)
    got, _, resumed = small_run(tmp_path / "cut", resume=True, **how)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert (resumed.steps, resumed.best_step) == (12, 8)


def test_weights_that_are_not_finite_replace_no_checkpoint(tmp_path, small_run, monkeypatch):
    real = small_run.net.losses

    def losses(self, batch, at):
        (loss,) = real(self, batch, at).per_optimizer
        return Losses([loss * (math.nan if at.step == 6 else 1)])

    monkeypatch.setattr(small_run.net, "losses", losses)
    text = r"train: weights must stay finite, got others in encoder\.0\.weight after step 8; no"
    with pytest.raises(ValueError, match=text):
        small_run(tmp_path, checkpoint_every=2)
    last = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert last["steps"] == 6
    assert all(value.isfinite().all() for value in last["state_dict"].values())
