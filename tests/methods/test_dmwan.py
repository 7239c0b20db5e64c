"""DM-WAN: its losses, weights, gradients, inference and checkpoints, on tiny encoders."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.data.transforms import eval_transform
from zsbir_fast.encoders.encoder import Features
from zsbir_fast.encoders.options import EncoderOptions
from zsbir_fast.losses import weighted_quadruplet
from zsbir_fast.methods.contract import Progress
from zsbir_fast.methods.dmwan import pair_weighting
from zsbir_fast.methods.dmwan.model import DMWAN
from zsbir_fast.methods.dmwan.options import QuadrupletOptions, TermOptions, WeightingOptions
from zsbir_fast.methods.dmwan.pair_weighting import PatchWeighting, TextWeighting

START = Progress(step=0, epoch=0, total_steps=1, epochs=1)
CLASSES = ("cat", "dog", "piano", "car")


def class_text():
    g = torch.Generator().manual_seed(0)
    return SimpleNamespace(
        summary="text",
        tokens=torch.randn(4, 3, 10, generator=g),
        mask=torch.tensor([[True] * n + [False] * (3 - n) for n in (3, 2, 1, 0)]),
        global_=torch.randn(4, 10, generator=g),
        words=[["cat", "fur", "tail"], ["dog", "tail"], ["piano"], []],
    )


def grouped(**options):
    """DM-WAN's arguments from ``group__name`` keys."""
    kinds = {
        "encoder": EncoderOptions,
        "weighting": WeightingOptions,
        "loss": QuadrupletOptions,
        "terms": TermOptions,
    }
    arguments, groups = {}, {}
    for key, value in options.items():
        group, _, name = key.partition("__")
        if name:
            groups.setdefault(group, {})[name] = value
        else:
            arguments[key] = value
    return arguments | {group: kinds[group](**held) for group, held in groups.items()}


def model(**options):
    torch.manual_seed(0)
    defaults = {
        "encoder__name": "timm:resnet10t",
        "encoder__weights": None,
        "encoder__image_size": 64,
        "weighting__width": 16,
    }
    return DMWAN(CLASSES, **grouped(**{"text": class_text(), **defaults, **options}))


def losses_of(network, given):
    """The loss and its parts by name."""
    losses = network.losses(given, START)
    return {"loss": losses.per_optimizer[0], **losses.parts}


def batch(count=8):
    g = torch.Generator().manual_seed(1)
    return {
        "sketches": torch.randn(count, 3, 64, 64, generator=g),
        "photos": torch.randn(count, 3, 64, 64, generator=g),
        "labels": torch.arange(count) // 2,
    }


EVERYTHING = {"terms__contrastive": 0.3, "terms__distill": 0.7, "centre": True}


def test_the_loss_is_the_weighted_sum_of_its_parts():
    losses = losses_of(model(**EVERYTHING, terms__quadruplet=2.0, terms__cls=0.25), batch())
    factors = {"quadruplet": 2.0, "cls": 0.25, "align": 1.0, "contrastive": 0.3, "distill": 0.7}
    assert set(losses) == {"loss", "weight_max", "quality", *factors}
    expected = sum(factor * losses[name] for name, factor in factors.items())
    torch.testing.assert_close(losses["loss"], expected)
    assert losses["quadruplet"] > 0


def test_parts_without_a_factor_are_absent():
    network = model(terms__cls=0.0, terms__align=0.0)
    losses = losses_of(network, batch())
    assert set(losses) == {"loss", "quadruplet", "weight_max", "quality"}
    torch.testing.assert_close(losses["loss"], losses["quadruplet"])
    assert network.classifier is None


@pytest.mark.parametrize("weighting", ["text", "pairwise"])
def test_both_implementations_learn_alike(weighting):
    """Several steps on real images: the loss curves are the same to rounding.

    Kernels sum in another order, about 1e-6 relative per value; a few steps of training multiply
    that, the more so as a different choice among nearly equal negatives changes a step.
    """
    bundled = load_benchmark("qd_caltech")
    images = []
    for those in (bundled.train_sketches, bundled.train_photos):
        rows = [i for c in range(4) for i in (those.labels == c).nonzero()[:2, 0].tolist()]
        part = those.subset(rows).with_transform(
            eval_transform(32, mean=(0.5,) * 3, std=(0.5,) * 3, modality=those.modality)
        )
        images.append(torch.stack([part[i][0] for i in range(8)]))
    given = {"sketches": images[0], "photos": images[1], "labels": torch.arange(8) // 2}
    curves = {}
    for impl in ("fused", "reference"):
        network = model(
            weighting__kind=weighting,
            impl=impl,
            encoder__image_size=32,
            encoder__name="timm:test_vit",
        )
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
        curves[impl] = []
        for _ in range(6):
            losses = losses_of(network, given)
            optimizer.zero_grad()
            losses["loss"].backward()
            optimizer.step()
            curves[impl].append(float(losses["loss"].detach()))
    assert curves["fused"] == pytest.approx(curves["reference"], rel=1e-3)
    assert curves["fused"][0] == pytest.approx(curves["reference"][0], rel=1e-5)
    assert curves["fused"][-1] < curves["fused"][0]


def test_impl_reaches_every_operator(monkeypatch):
    seen = []

    def note(module, name):
        original = getattr(module, name)

        def wrapped(*args, **options):
            seen.append((name, options["impl"]))
            return original(*args, **options)

        monkeypatch.setattr(module, name, wrapped)

    for name in ("mine_quadruplets", "quadruplet_loss"):
        note(weighted_quadruplet, name)
    for name in ("token_weighting", "pairwise_token_score"):
        note(pair_weighting, name)
    for weighting in ("text", "pairwise"):
        losses_of(model(weighting__kind=weighting, impl="reference"), batch())
    assert {name for name, _ in seen} == {
        "mine_quadruplets",
        "quadruplet_loss",
        "token_weighting",
        "pairwise_token_score",
    }
    assert {impl for _, impl in seen} == {"reference"}


def test_memory_gives_further_negatives():
    plain = model(terms__cls=0.0, terms__align=0.0).eval()
    remembering = model(terms__cls=0.0, terms__align=0.0, loss__memory=20, loss__margins=2.0)
    remembering.encoder.eval()  # batch statistics would blur the comparison
    plain.quadruplet_loss.margins = 2.0
    first, second = batch(), {**batch(), "sketches": batch()["sketches"].flip(0)}
    with torch.no_grad():
        expected = [losses_of(plain, b)["loss"] for b in (first, second)]
        got = [losses_of(remembering, b)["loss"] for b in (first, second)]
    torch.testing.assert_close(got[0], expected[0])
    assert got[1] > expected[1]
    assert len(remembering.memory.photos) == 16
    state = remembering.state_dict()
    other = model(terms__cls=0.0, terms__align=0.0, loss__memory=20)
    other.load_state_dict(state)
    assert torch.equal(other.memory.photos.features, remembering.memory.photos.features)
    assert model().memory is None


def test_pairs_are_explained_by_words_and_patches():
    network, given = model(weighting__temperature=0.1).eval(), batch()
    explained = network.explain(*given.values())
    with torch.no_grad():
        sketch, photo = network.encoder(given["sketches"]), network.encoder(given["photos"])
        pairs = network.pair_weighting(sketch, photo, given["labels"])
    torch.testing.assert_close(explained.local, pairs.local)
    torch.testing.assert_close(explained.global_, pairs.global_)
    quality = (pairs.local + pairs.global_) / 2
    torch.testing.assert_close(explained.weights, 8 * (quality / 0.1).softmax(0))
    assert explained.answers.words[0] == ["cat", "fur", "tail"]
    assert explained.answers.words[4] == ["piano"]
    assert explained.answers.words[7] == []
    for maps in (explained.answers.sketch, explained.answers.photo):
        assert maps.shape == (8, 3, 4)
        for words, rows in zip(explained.answers.words, maps, strict=True):
            expected = torch.tensor([1.0] * len(words) + [0.0] * (3 - len(words)))
            torch.testing.assert_close(rows.sum(1), expected)


def test_pairs_without_text_are_explained_by_matches():
    network, given = model(weighting__kind="pairwise", text=None).eval(), batch()
    answers = network.explain(*given.values()).answers
    assert answers.words == [["best match"]] * 8
    with torch.no_grad():
        sketch = F.normalize(network.encoder(given["sketches"]).tokens, dim=2)
        photo = F.normalize(network.encoder(given["photos"]).tokens, dim=2)
    cosines, best = (sketch @ photo.mT).max(2)
    fit = cosines.clamp_min(0)
    torch.testing.assert_close(answers.sketch[:, 0], fit / fit.sum(1, keepdim=True))
    counts = torch.stack([row.bincount(minlength=4) for row in best]).float()
    torch.testing.assert_close(answers.photo[:, 0], counts / 4)


def test_the_quadruplet_part_uses_the_weights_of_the_chosen_pairs():
    network = model(loss__positive="hardest", weighting__temperature=0.02).eval()
    given = batch()
    labels = given["labels"]
    with torch.no_grad():
        sketch, photo = network.encoder(given["sketches"]), network.encoder(given["photos"])
        mined = network.quadruplet_loss.mine(sketch.global_, photo.global_, labels)
        assert mined.positive.tolist() != list(range(8))  # else this test shows nothing
        chosen = Features(*(x[mined.positive] for x in photo))
        pairs = network.pair_weighting(sketch, chosen, labels)
        quality = (pairs.local + pairs.global_) / 2
        weights = 8 * (quality / 0.02).softmax(0)
        args = (sketch.global_, photo.global_, labels)
        weighted = network.quadruplet_loss(*args, weights)
        losses = losses_of(network, given)
    torch.testing.assert_close(losses["quadruplet"], weighted)
    torch.testing.assert_close(losses["weight_max"], weights.max())
    torch.testing.assert_close(losses["quality"], quality.mean())
    assert not torch.isclose(weighted, network.quadruplet_loss(*args))


@pytest.mark.parametrize("detach", [True, False])
def test_projections_learn_from_the_quadruplets_only_without_detaching(detach):
    network = model(weighting__detach=detach, terms__align=0.0, terms__cls=0.0)
    losses_of(network, batch())["loss"].backward()
    gradient = network.pair_weighting.value.weight.grad
    assert (gradient is None) == detach
    assert network.encoder.network.conv1[0].weight.grad.abs().sum() > 0


def test_the_alignment_loss_trains_every_projection():
    network = model(terms__quadruplet=0.0, terms__cls=0.0)
    losses_of(network, batch())["loss"].backward()
    for name, parameter in network.pair_weighting.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_local_and_global_blocks():
    text = class_text()
    torch.manual_seed(0)
    weighting = TextWeighting(text, patch_width=6, width=4, temperature=1.0, beta="uniform")
    features = [Features(torch.randn(8, 5, 6), torch.randn(8, 6)) for _ in range(2)]
    labels = batch()["labels"]
    pairs = weighting(*features, labels)
    # The global block: attention of the class text over the patches, by its definition.
    query = weighting.query(F.layer_norm(text.global_, (10,)))[labels][:, None]
    patches = [F.layer_norm(f.tokens, (6,)) for f in features]
    pooled = [
        ((query @ weighting.key(x).mT / 2).softmax(2) @ weighting.value(x))[:, 0] for x in patches
    ]
    torch.testing.assert_close(pairs.global_, torch.cosine_similarity(*pooled))
    torch.testing.assert_close(pairs.pooled[1][0], pooled[0])
    # Class 3 has no word: the whole text stands in for it.
    torch.testing.assert_close(pairs.local[6:], pairs.global_[6:])
    assert (pairs.local[:6] != pairs.global_[:6]).all()
    same = weighting(features[0], features[0], labels)
    torch.testing.assert_close(same.local, torch.ones(8))


def test_pairwise_weighting_needs_no_text():
    network = model(weighting__kind="pairwise", text=None)
    assert not list(network.pair_weighting.parameters())
    losses = losses_of(network, batch())
    losses["loss"].backward()
    assert losses["align"] > 0
    tokens = torch.randn(2, 5, 3)
    features = Features(tokens, tokens.mean(1))
    pairs = PatchWeighting()(features, features, torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(pairs.local, torch.ones(2))
    torch.testing.assert_close(pairs.global_, torch.ones(2))


def test_embeddings_are_the_encoders_alone():
    network = model().eval()
    images = batch()["photos"]
    with torch.no_grad():
        embeddings = network.embed(images, "photo")
        expected = F.normalize(network.encoder(images).global_, dim=1)
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings, expected)
    torch.testing.assert_close(network.embed(images, "sketch"), embeddings)


def test_centring_subtracts_the_running_mean_of_the_modality():
    network = model(centre=True, weighting__kind="pairwise").eval()
    means = {"sketches": [], "photos": []}
    for step in range(3):
        given = {k: v * (step + 1) if v.is_floating_point() else v for k, v in batch().items()}
        with torch.no_grad():
            losses_of(network, given)
            for name, collected in means.items():
                features = network.encoder(given[name]).global_
                collected.append(F.normalize(features, dim=1).mean(0))
    images = batch()["sketches"]
    with torch.no_grad():
        plain = F.normalize(network.encoder(images).global_, dim=1)
        for modality, collected in zip(("sketch", "photo"), means.values(), strict=True):
            weights = torch.tensor([0.95**2, 0.95, 1.0])
            mean = (weights[:, None] * torch.stack(collected)).sum(0) / weights.sum()
            expected = F.normalize(plain - mean, dim=1)
            torch.testing.assert_close(network.embed(images, modality), expected)


def test_mirroring_sums_an_image_and_its_mirror_image():
    network, images = model(mirror=True).eval(), batch()["photos"]
    with torch.no_grad():
        both = network.embed(images, "photo")
        torch.testing.assert_close(network.embed(images.flip(3), "photo"), both)
        network.embedding.mirror = False
        one, other = (network.embed(x, "photo") for x in (images, images.flip(3)))
    assert not torch.allclose(one, other, atol=1e-3)
    torch.testing.assert_close(both, F.normalize(one + other, dim=1))


def test_the_mirror_image_may_be_larger():
    network = model(mirror=True, mirror_scale=1.25).eval()
    images = torch.randn(2, 3, 64, 64)
    larger = torch.nn.functional.interpolate(
        images.flip(3), (80, 80), mode="bilinear", align_corners=False, antialias=True
    )
    with torch.no_grad():
        both = network.embed(images, "photo")
        one, other = (F.normalize(network.encoder(x).global_, dim=1) for x in (images, larger))
    torch.testing.assert_close(both, F.normalize(one + other, dim=1))
    assert "mirror_scale=1.25" in repr(network)


def test_distillation_compares_photos_with_the_untrained_encoder():
    network = model(terms__distill=1.0).eval()
    given = batch()
    assert float(losses_of(network, given)["distill"].detach()) == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        before = network.encoder(given["photos"]).global_
        for parameter in network.encoder.parameters():
            parameter.mul_(1 + 0.2 * torch.randn(parameter.shape))
        after = network.encoder(given["photos"]).global_
        distill = losses_of(network, given)["distill"]
    expected = (1 - torch.cosine_similarity(before, after)).mean()
    assert expected > 0.001
    torch.testing.assert_close(distill, expected)


def test_distillation_leaves_the_encoders_state_alone():
    network = model(terms__distill=1.0, encoder__freeze_batch_norm=False).train()
    running = network.encoder.network.bn1.running_mean
    losses_of(network, batch())
    seen = running.clone()
    network.frozen(network.encoder, batch()["photos"] * 9)
    torch.testing.assert_close(running, seen)
    assert network.encoder.training
    assert network.encoder.network.bn1.training


def test_a_checkpoint_holds_one_encoder_and_restores_the_embeddings(tmp_path):
    network = model(**EVERYTHING)
    losses_of(network, batch())
    state = network.state_dict()
    assert not [key for key in state if key.startswith("frozen")]
    torch.save(state, tmp_path / "model.pt")
    other = model(**EVERYTHING, encoder__name="timm:resnet10t")
    with torch.no_grad():
        other.encoder.network.conv1[0].weight.zero_()
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    images = batch()["sketches"]
    with torch.no_grad():
        torch.testing.assert_close(
            other.eval().embed(images, "sketch"), network.eval().embed(images, "sketch")
        )


def test_a_few_steps_lower_the_loss():
    network = model(terms__cls=1.0, encoder__freeze_batch_norm=False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    history = []
    for _ in range(12):
        losses = losses_of(network, batch())
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        history.append(float(losses["loss"].detach()))
    assert math.isfinite(history[-1])
    assert history[-1] < 0.6 * history[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"terms__align": -1.0}, "DMWAN: terms.align must not be negative, got -1.0"),
        ({"loss__memory": -1}, "DMWAN: loss.memory must not be negative, got -1"),
        ({"loss__memory": 70_000}, "CrossBatchMemory: size must be in [1, 65536], got 70000"),
        ({"mirror_scale": 0.2}, "UnitEmbedding: mirror_scale must be in 0.25..4, got 0.2"),
        (
            {
                "encoder__name": "timm:vit_tiny_patch16_224",
                "encoder__image_size": 32,
                "mirror_scale": 1.5,
            },
            "DMWAN: mirror_scale must be 1 for an encoder that takes images of 32 pixels alone, "
            "got 1.5",
        ),
        ({"impl": "fast"}, "impl must be one of fused, reference, got 'fast'"),
        (
            {"loss__negative": "all"},
            "DMWAN: loss.negative must be one of hardest, semihard",
        ),
        (
            {"weighting__kind": "none"},
            "weighting.kind must be one of text, pairwise, got 'none'",
        ),
        (
            {
                "text": SimpleNamespace(
                    summary="", tokens=torch.zeros(3, 1, 2), mask=torch.ones(3, 1) > 0, global_=None
                )
            },
            "DMWAN: text must have tokens of 4 classes, got 3",
        ),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        model(**options)


def test_an_unknown_modality_is_named():
    with pytest.raises(ValueError, match="embed: modality must be one of sketch, photo, got"):
        model().embed(batch()["photos"], "image")
