"""The options of DM-WAN: all of the loss's, shown by the model."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from zsbir_fast.encoders.options import EncoderOptions
from zsbir_fast.losses.weighted_quadruplet import WeightedQuadrupletLoss
from zsbir_fast.methods.dmwan.model import DMWAN
from zsbir_fast.methods.dmwan.options import QuadrupletOptions, WeightingOptions


def model(*, loss, mirror=False):
    return DMWAN(
        ("cat", "dog", "piano", "car"),
        encoder=EncoderOptions("timm:resnet10t", weights=None, image_size=64),
        weighting=WeightingOptions(kind="pairwise"),
        loss=QuadrupletOptions(**loss),
        mirror=mirror,
    )


def test_a_model_shows_its_options():
    lines = [line.strip() for line in repr(model(mirror=True, loss={"memory": 9})).splitlines()]
    assert lines[:2] == ["DMWAN(", "4 classes"]
    assert lines[2].startswith(
        "WeightingOptions(kind='pairwise', text_source='glove', prompts=None"
    )
    assert "global_block='attention'" in lines[2]
    assert lines[3].startswith("QuadrupletOptions(preset='domain_balanced', positive='hardest'")
    assert lines[4].startswith("TermOptions(quadruplet=1.0, cls=0.5, ")
    assert "(embedding): UnitEmbedding(centre=False, mirror=True)" in lines
    assert "width=512, image_size=64, freeze_batch_norm=True" in lines


def test_every_option_of_the_loss_is_an_option_of_the_method():
    of_loss = set(inspect.signature(WeightedQuadrupletLoss).parameters)
    ours = {field.name for field in dataclasses.fields(QuadrupletOptions)}
    assert ours - {"memory"} == of_loss - {"gather", "process_group", "impl"}
    given = {
        "preset": "full",
        "negative": "semihard",
        "sketch_negative": "positive",
        "coefficients": [1.0, 0.5, 0.5, 0.25, 0.25],
        "margins": [0.1, 0.2, 0.3, 0.4, 0.5],
        "distance": "squared_euclidean",
        "normalize": False,
        "reduction": "mean_nonzero",
        "cross_modal_share": 0.3,
    }
    loss = model(loss=given).quadruplet_loss
    assert {name: getattr(loss, name) for name in given} == given


def test_a_reduction_that_leaves_many_losses_is_refused():
    with pytest.raises(ValueError, match=r"loss\.reduction must be mean, mean_nonzero or sum, got"):
        model(loss={"reduction": "none"})
