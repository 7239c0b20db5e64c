from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.data.image_spec import ImageSpec
from zsbir_fast.methods.contract import Method
from zsbir_fast.retrieval.embed import embed_images, embed_with, evaluating

SPEC = ImageSpec(16, (0.5,) * 3, (0.5,) * 3)


class Model(Method):
    """Mean colour of the four quarters, so that any mix-up of rows shows."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.dropout = nn.Dropout(0.9)
        self.frozen = nn.BatchNorm1d(12).eval()

    def image_spec(self):
        return SPEC

    def losses(self, batch, at):
        raise NotImplementedError

    def embed(self, images, modality):
        assert modality in ("sketch", "photo")
        pooled = nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)
        return self.dropout(self.scale * pooled)


@pytest.fixture(scope="module")
def photos():
    return load_benchmark("qd_caltech").test_photos.subset(torch.arange(0, 600, 60))


def test_rows_follow_the_images_whatever_the_batch_size(photos):
    model = Model()
    rows = embed_images(model, photos, batch_size=4)
    assert rows.shape == (10, 12)
    assert rows.dtype == torch.float32
    assert torch.equal(rows[7:8], embed_images(model, photos.subset(torch.tensor([7]))))
    assert torch.equal(rows, embed_images(model, photos, workers=2))
    assert torch.equal(rows, embed_with(model.eval().embed, photos, spec=SPEC))


def test_images_are_embedded_in_evaluation_mode_and_modes_come_back(photos):
    model = Model()
    model.train()
    model.frozen.eval()
    assert torch.equal(embed_images(model, photos), embed_images(model, photos))  # no dropout
    assert model.training
    assert not model.frozen.training


def test_the_model_is_moved_where_it_is_asked_to_run(photos):
    model = Model().to("meta")
    with pytest.raises(NotImplementedError):  # it stays where it is unless told otherwise
        embed_images(model, photos)


def test_modes_come_back_after_an_error():
    model = Model()
    with pytest.raises(ZeroDivisionError), evaluating(model):
        raise ZeroDivisionError
    assert model.training
    assert math.isclose(model.dropout.p, 0.9)


def test_nothing_to_embed(photos):
    empty = photos.subset(torch.arange(0))
    with pytest.raises(ValueError, match="images must hold at least one image, got none"):
        embed_images(Model(), empty)
