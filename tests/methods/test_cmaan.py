"""CMAAN as a whole: its losses, embeddings, rankings and files, on tiny encoders."""

from __future__ import annotations

import re

import pytest
import torch
from torch.nn import functional as F

import zsbir_fast as zf
from zsbir_fast.methods.build import build_model
from zsbir_fast.methods.cmaan import model as module
from zsbir_fast.methods.cmaan.pairs import sequence

CLASSES = ("cat", "dog", "piano", "car")
START = zf.Progress(step=0, epoch=0, total_steps=1, epochs=1)
VIT = zf.EncoderOptions("timm:test_vit", weights=None, image_size=64, shared=False)
KINDS = {
    "text": {},
    "text of the anchor": {"exchange": {"negative_text": "anchor"}},
    "words": {"relation": {"match": "words"}},
    "images": {"exchange": {"partner": "image"}},
    "published": {"exchange": {"partner": "image", "style": "zse"}, "relation": {"raw_view": True}},
    "nothing": {"exchange": {"partner": "none"}},
    "before": {"relation": {"side": "pre_ca"}, "loss": {"tri_on": "post_ca"}},
    "one encoder": {"encoder": zf.EncoderOptions("timm:test_vit", weights=None, image_size=64)},
}
GROUPS = {
    "exchange": lambda **o: module.ExchangeOptions(**{"heads": 2, "hidden": 8, **o}),
    "relation": lambda **o: module.RelationOptions(**{"width": 8, **o}),
    "loss": module.CorrespondenceOptions,
    "text": lambda **o: module.ClassTextOptions(**{"width": 8, "heads": 2, "hidden": 8, **o}),
}


def model(**options):
    torch.manual_seed(0)
    made = {name: make(**options.pop(name, {})) for name, make in GROUPS.items()}
    return zf.CMAAN(CLASSES, **{"encoder": VIT, **made, **options})


def batch(count=8, size=64):
    g = torch.Generator().manual_seed(1)
    return {
        "sketches": torch.randn(count, 3, size, size, generator=g),
        "photos": torch.randn(count, 3, size, size, generator=g),
        "labels": torch.arange(count) // 2,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_is_trained_gets_a_gradient(kind):
    network = model(**KINDS[kind])
    losses = network.losses(batch(), START)
    assert losses.parts.keys() == {"tri", "rn"}
    expected = 2 * losses.parts["tri"] + 4 * losses.parts["rn"]
    torch.testing.assert_close(losses.per_optimizer[0], expected)
    losses.per_optimizer[0].backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert without == []


def by_hand(network, given):
    """The parts of a batch, pair by pair, from the modules alone."""
    with torch.no_grad():
        sketches = sequence(*network.encoder(given["sketches"], "sketch"))
        photos = sequence(*network.encoder(given["photos"], "photo"))
        noise = network._noise.draw(START.step, torch.zeros(len(photos), len(photos)))
        text = None if network.text is None else network.text()
        options, relation = network.exchange_options, network.relation_options
        tri, rn = [], []
        for i, label in enumerate(given["labels"].tolist()):
            others = (given["labels"] != label).nonzero()[:, 0].tolist()
            j = max(others, key=lambda other: float(noise[i, other]))
            other = label if options.negative_text == "anchor" else int(given["labels"][j])
            found = []
            for k, of_photo in ((i, label), (j, other)):
                texts = [
                    None if text is None else text.of(torch.tensor([c])) for c in (label, of_photo)
                ]
                pair = network.exchange(sketches[i : i + 1], photos[k : k + 1], *texts)
                before = sketches[i : i + 1], photos[k : k + 1]
                compared = (pair.sketches, pair.photos) if relation.side == "post_ca" else before
                if relation.match == "words":
                    reduced = [
                        w.tokens.masked_fill(~w.mask[:, :, None], 0)
                        for w in (pair.sketch_words, pair.photo_words)
                    ]
                else:
                    reduced = [network.reduction(x[:, 1:]) for x in compared]
                found.append((pair.sketches[0, 0], pair.photos[0, 0], network.relation(*reduced)))
            (sketch, photo, positive), (_, negative_photo, negative) = found
            near, far = (
                torch.linalg.vector_norm(sketch - x + 1e-6) for x in (photo, negative_photo)
            )
            tri.append(F.relu(near - far + network.loss.margin))
            rn.append(((positive - 0.99) ** 2 + (negative - 0.01) ** 2) / 2)
        return torch.stack(tri).mean(), torch.cat(rn).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_every_pair_alone(kind):
    network = model(**KINDS[kind]).eval()  # without dropout
    given = batch()
    parts = network.losses(given, START).parts
    network._noise._last = (-1, 0)  # the same draw again
    tri, rn = by_hand(network, given)
    torch.testing.assert_close(parts["tri"], tri, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts["rn"], rn, rtol=1e-5, atol=1e-6)


def test_terms_can_be_left_out_and_added():
    network = model(loss={"tri": 0.0, "cls": 0.5})
    assert network.losses(batch(), START).parts.keys() == {"rn", "cls"}
    network = model(loss={"rn": 0.0})
    assert network.losses(batch(), START).parts.keys() == {"tri"}


def test_a_batch_of_one_class_has_no_negatives():
    given = {**batch(), "labels": torch.zeros(8, dtype=torch.int64)}
    parts = model().losses(given, START).parts
    assert parts["tri"].item() == 0
    assert 0 < parts["rn"].item() < 1


@torch.no_grad()
def test_embeddings_are_the_encoders_global_features():
    network = model().eval()
    images = batch()["sketches"]
    for modality in ("sketch", "photo"):
        found = network.embed(images, modality)
        expected = F.normalize(network.encoder(images, modality).global_, dim=1)
        torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="modality must be"):
        network.embed(images, "drawing")
    assert network.ranker().name == "cosine"


def _mean_precision(scores, relevant):
    """mAP@all of scores without ties."""
    found = []
    for row, hits in zip(scores, relevant, strict=True):
        ranked = hits[row.argsort(descending=True)].float()
        precision = ranked.cumsum(0) / torch.arange(1, len(ranked) + 1)
        found.append((precision * ranked).sum() / ranked.sum())
    return float(torch.stack(found).mean())


@torch.no_grad()
@pytest.mark.parametrize("kind", ["text", "images", "published", "nothing", "before"])
def test_ranking_by_the_relation_network(kind, monkeypatch):
    monkeypatch.setattr(module, "_PAIRS", 3)
    network = model(**KINDS[kind], rank_by="relation").eval()
    given = batch()
    queries = network.embed(given["sketches"][:2], "sketch")
    gallery = network.embed(given["photos"], "photo")
    ranker = network.ranker()
    assert ranker.name == "relation network"
    found = ranker.scorer(gallery)(queries)
    sketches = sequence(*network.encoder(given["sketches"][:2], "sketch"))
    photos = sequence(*network.encoder(given["photos"], "photo"))
    exchanging = kind in ("images", "published")
    for i in range(2):
        for j in range(8):
            pair = sketches[i : i + 1], photos[j : j + 1]
            if exchanging:  # there is no text at retrieval, but there are both images
                pair = network.exchange(*pair, None, None)[:2]
            expected = network.relation(*(network.reduction(x[:, 1:]) for x in pair))
            torch.testing.assert_close(found[i, j], expected[0], rtol=1e-4, atol=1e-6)
    assert found.std() > 0
    result = ranker.evaluate(queries, gallery, given["labels"][:2], given["labels"], ks=(1,))
    relevant = given["labels"][:2, None] == given["labels"]
    assert result.map == pytest.approx(_mean_precision(found, relevant), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rank_by": "x"}, "rank_by must be one of embedding, relation, got 'x'"),
        (
            {"exchange": {"partner": "none"}, "relation": {"match": "words"}},
            "relation.match must be patches where exchange.partner is 'none'",
        ),
        (
            {"relation": {"match": "words"}, "rank_by": "relation"},
            "rank_by must be embedding where relation.match is 'words'",
        ),
        ({"loss": {"rn": 0}, "rank_by": "relation"}, "rank_by must be embedding where loss.rn is"),
        (
            {"relation": {"side": "pre_ca"}, "loss": {"tri_on": "pre_ca"}},
            "exchange.partner must be none where no term of the loss looks at tokens after",
        ),
        ({"patch_pyramid": True, "encoder": zf.EncoderOptions("timm:resnet10t", None, 64)},
         "patch_pyramid must be False for an encoder that is no ViT"),
        ({"exchange": {"heads": 5}}, "heads must divide the width 64, got 5"),
    ],
)  # fmt: skip
def test_arguments_that_exclude_each_other(options, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        model(**options)


@pytest.mark.parametrize("kind", ["text", "images"])
def test_a_stored_model_is_the_same_without_its_text(kind, tmp_path, monkeypatch):
    network = model(**KINDS[kind], centre=True).eval()
    with torch.no_grad():
        network.losses(batch(), START)  # the means
    arguments = {
        "encoder": {"name": "timm:test_vit", "weights": None, "image_size": 64, "shared": False},
        "exchange": {"heads": 2, "hidden": 8, **KINDS[kind].get("exchange", {})},
        "relation": {"width": 8},
        "text": {"width": 8, "heads": 2, "hidden": 8},
        "centre": True,
    }
    identity = zf.ModelIdentity.of("cmaan", arguments, CLASSES)
    zf.export_model(network, identity, tmp_path)
    monkeypatch.setattr("zsbir_fast.text.class_text.bundled_descriptions", None)  # not looked up
    loaded, _ = zf.load_model(tmp_path)
    for modality in ("sketch", "photo"):
        images = batch()["sketches"]
        with torch.no_grad():
            assert torch.equal(loaded.embed(images, modality), network.embed(images, modality))
    state = {k: v for k, v in network.state_dict().items() if k != "text.tokens"}
    if kind == "text":
        with pytest.raises(ValueError, match=r"but lack text\.tokens"):
            build_model(identity, stored=state)
