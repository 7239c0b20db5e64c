from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.retrieval.embed import embed_images, embed_pair, evaluating


class Model(nn.Module):
    """Mean colour of the four quarters, so that any mix-up of rows shows."""

    def __init__(self):
        super().__init__()
        self.encoder = SimpleNamespace(image_size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
        self.dropout = nn.Dropout(0.9)
        self.frozen = nn.BatchNorm1d(12).eval()

    def embed(self, images, modality):
        assert modality in ("sketch", "photo")
        return self.dropout(nn.functional.adaptive_avg_pool2d(images, 2).flatten(1))


@pytest.fixture(scope="module")
def photos():
    return load_benchmark("qd_caltech").test_photos.subset(torch.arange(0, 600, 60))


def test_rows_follow_the_images_whatever_the_batch_size(photos):
    model = Model().eval()
    rows = embed_images(model.embed, photos, encoder=model.encoder, batch_size=4)
    assert rows.shape == (10, 12)
    assert rows.dtype == torch.float32
    one = embed_images(model.embed, photos.subset(torch.tensor([7])), encoder=model.encoder)
    assert torch.equal(rows[7:8], one)
    assert torch.equal(rows, embed_images(model.embed, photos, encoder=model.encoder, workers=2))


def test_pair_is_embedded_in_evaluation_mode_and_modes_come_back(photos):
    model = Model()
    model.train()
    model.frozen.eval()
    first, second = embed_pair(model, photos, photos)
    assert torch.equal(first, second)  # no dropout
    assert model.training
    assert not model.frozen.training


def test_modes_come_back_after_an_error():
    model = Model()
    with pytest.raises(ZeroDivisionError), evaluating(model):
        raise ZeroDivisionError
    assert model.training
    assert math.isclose(model.dropout.p, 0.9)


def test_nothing_to_embed(photos):
    empty = photos.subset(torch.arange(0))
    with pytest.raises(ValueError, match="images must hold at least one image, got none"):
        embed_images(Model().embed, empty, encoder=Model().encoder)
