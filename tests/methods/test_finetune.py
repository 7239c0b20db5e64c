"""The plain baseline: its two losses, its embeddings and its file."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import zsbir_fast as zf

CLASSES = ("cat", "dog", "piano", "car")
START = zf.Progress(step=0, epoch=0, total_steps=1, epochs=1)
ENCODER = {"name": "timm:test_vit", "weights": None, "image_size": 32}


def model(**options):
    torch.manual_seed(0)
    encoder = zf.EncoderOptions(**{**ENCODER, **options.pop("encoder", {})})
    return zf.FineTune(CLASSES, encoder=encoder, **options).eval()


def batch():
    g = torch.Generator().manual_seed(1)
    return {
        "sketches": torch.randn(8, 3, 32, 32, generator=g),
        "photos": torch.randn(8, 3, 32, 32, generator=g),
        "labels": torch.arange(8) // 2,
    }


def features(network, given):
    with torch.no_grad():
        return tuple(
            F.normalize(network.encoder(given[f"{kind}s" if kind == "photo" else "sketches"],
                                        kind).global_, dim=1).double()
            for kind in ("sketch", "photo")
        )  # fmt: skip


def test_contrastive_loss_is_that_of_a_loop():
    network, given = model(temperature=0.2), batch()
    rows = torch.cat(features(network, given))
    labels = given["labels"].repeat(2).tolist()
    losses = []
    for i, row in enumerate(rows):
        logits = {j: float(row @ other) / 0.2 for j, other in enumerate(rows) if j != i}
        total = torch.tensor(list(logits.values())).logsumexp(0)
        positives = [logits[j] - total for j in logits if labels[j] == labels[i]]
        losses.append(-sum(positives) / len(positives))
    found = network.losses(batch(), START)
    assert found.parts == {}
    assert found.per_optimizer[0].item() == pytest.approx(float(sum(losses) / 16), abs=1e-5)


def test_triplet_loss_is_that_of_a_loop():
    network, given = model(loss="triplet", margin=0.7), batch()
    sketches, photos = features(network, given)
    labels = given["labels"]
    losses = []
    for row, label in zip(sketches, labels, strict=True):
        distances = 1 - photos @ row
        same = labels == label
        losses.append(max(0.0, float(distances[same].max() - distances[~same].min()) + 0.7))
    found = network.losses(batch(), START).per_optimizer[0]
    assert found.item() == pytest.approx(sum(losses) / 8, abs=1e-5)
    found.backward()
    assert all(p.grad is not None for p in network.encoder.parameters())


def test_a_stored_model_embeds_alike(tmp_path):
    network = model(centre=True, encoder={"shared": False})
    network.losses(batch(), START)
    arguments = {"encoder": {**ENCODER, "shared": False}, "centre": True}
    zf.export_model(network, zf.ModelIdentity.of("finetune", arguments, CLASSES), tmp_path)
    loaded, _ = zf.load_model(tmp_path)
    for modality in ("sketch", "photo"):
        with torch.no_grad():
            found = loaded.embed(batch()["sketches"], modality)
            assert torch.equal(found, network.embed(batch()["sketches"], modality))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"loss": "x"}, "FineTune: loss must be one of contrastive, triplet, got 'x'"),
        ({"temperature": 0}, "FineTune: temperature must be"),
        ({"margin": -1}, "FineTune: margin must"),
    ],
)
def test_options_that_cannot_be(options, text):
    with pytest.raises(ValueError, match=text):
        model(**options)
