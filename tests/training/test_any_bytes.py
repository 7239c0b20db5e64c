"""Whatever stands in a file that is read: it is read, or refused with one line that is ours.

``ZSBIR_FUZZ_SECONDS=600 pytest tests/training/test_any_bytes.py`` tries for longer.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import time
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from zsbir_fast.cli.app import main
from zsbir_fast.cli.parsing import find_config
from zsbir_fast.models.encoders import build_encoder
from zsbir_fast.models.weight_files import read_weight_file
from zsbir_fast.training.checkpoints import read_checkpoint, write_checkpoint
from zsbir_fast.training.config import read_settings
from zsbir_fast.training.export import export_model, load_model
from zsbir_fast.training.features import read_feature_pair
from zsbir_fast.training.identity import ModelIdentity, build_model
from zsbir_fast.training.resume import find_begun

SECONDS = float(os.environ.get("ZSBIR_FUZZ_SECONDS", "5"))
VALUES = [
    None, True, -1, 0, 2**31, 2**64, 10**30, 1e308, -1e-320, float("nan"), float("inf"), "", "x",
    "a" * 9999, [], [1] * 50, ["x"], {}, {"a": 1}, "\x00", ":", "bundled:", "timm:resnet10t",
    "open_clip:hf-hub:a/b", "open_clip:coca_ViT-B-32", "pairwise", "text",
]  # fmt: skip
WEIGHTS = {"a": torch.arange(12.0).view(3, 4), "b": torch.arange(5)}
CHECKPOINT = {
    "zsbir": {"format": 1, "method": "dmwan", "arguments": {}, "classes": ["a"]},
    "state_dict": WEIGHTS,
    "course": {"run.epochs": 1},
    "global_step": 3,
    "callbacks": {"ValidateAndSave": {"best": None, "best_step": 0}},
    "loops": {},
    "optimizer_states": [],
}


def _mutated(content, rng):
    changed = bytearray(content)
    place = rng.randrange(len(changed))
    kind = rng.randrange(6)
    if kind == 0:
        del changed[place:]
    elif kind == 1:
        changed[place:place] = rng.randbytes(rng.randrange(1, 9))
    elif kind == 2:
        del changed[place : place + rng.randrange(1, 40)]
    else:
        for _ in range(rng.choice([1, 2, 8, 40])):
            changed[rng.randrange(len(changed))] = rng.choice([0, 255, rng.randrange(256)])
    return bytes(changed)


def _on_command_line(path):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(["train", "--config", str(path), "--print_config"])
    if code:
        raise ValueError(said.getvalue().removesuffix("\n"))


READERS = {
    "weights.pt": read_weight_file,
    "old.bin": read_weight_file,
    "weights.safetensors": read_weight_file,
    "encoder.pth": lambda path: build_encoder("bundled:mobilenet_v2", weights=str(path)),
    "features.npz": lambda path: read_feature_pair(path, path),
    "packed.npz": lambda path: read_feature_pair(path, path),
    "last.ckpt": read_checkpoint,
    "config.yaml": read_settings,
    "command.yaml": _on_command_line,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A good file for every reader."""
    folder = tmp_path_factory.mktemp("whole")
    torch.save(WEIGHTS, folder / "weights.pt")
    torch.save(WEIGHTS, folder / "old.bin", _use_new_zipfile_serialization=False)
    torch.save(WEIGHTS, folder / "encoder.pth")
    save_file(WEIGHTS, folder / "weights.safetensors")
    np.savez(folder / "features.npz", embeddings=np.eye(3, 4), labels=["a", "b", "a"])
    np.savez_compressed(folder / "packed.npz", embeddings=np.eye(3, 4), labels=[1, 2, 3])
    write_checkpoint(folder / "last.ckpt", CHECKPOINT)
    for name in ("config.yaml", "command.yaml"):
        with open(find_config("dmwan-qd_caltech"), "rb") as config:
            (folder / name).write_bytes(config.read())
    return folder


@pytest.fixture
def tried():
    """Runs a reader; anything but an answer or one line of ours, within seconds, is a failure."""

    def run(read, *arguments):
        start = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read(*arguments)
            except ValueError as error:
                assert ":" in str(error), repr(error)  # noqa: PT017
                assert "\n" not in str(error), repr(error)  # noqa: PT017
                assert "weights_only" not in str(error)  # noqa: PT017
        assert time.monotonic() - start < 10

    return run


def _until(share):
    end = time.monotonic() + SECONDS * share
    number = 0
    while time.monotonic() < end or number < 5:
        yield random.Random(number)
        number += 1


@pytest.mark.parametrize("name", READERS)
def test_any_bytes(whole, tmp_path, tried, name):
    content = (whole / name).read_bytes()
    for rng in _until(0.7 / len(READERS)):
        (tmp_path / name).write_bytes(_mutated(content, rng))
        tried(READERS[name], tmp_path / name)


def test_any_values_in_a_checkpoint(tmp_path, tried):
    path = tmp_path / "checkpoints" / "last.ckpt"
    for rng in _until(0.1):
        content = {**CHECKPOINT, rng.choice(list(CHECKPOINT)): rng.choice(VALUES)}
        write_checkpoint(path, content)
        tried(lambda: find_begun(tmp_path, say=pytest.fail))


def test_any_values_in_the_description_of_a_model(tmp_path, tried):
    arguments = {"weights": None, "weighting": "pairwise", "image_size": 32}
    identity = ModelIdentity.of("dmwan", arguments, ("a", "b"))
    folder = export_model(build_model(identity), identity, tmp_path)
    whole = (folder / "model.json").read_text()
    for rng in _until(0.2):
        description = json.loads(whole)
        part = rng.choice([description, *[description["arguments"]] * 4])
        part[rng.choice([*part, "classes", "self"])] = rng.choice(VALUES)
        (folder / "model.json").write_text(json.dumps(description))
        tried(load_model, folder)
