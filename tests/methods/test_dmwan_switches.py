"""DM-WAN's switches: what learns, what is stored, and what does not go together."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch

from zsbir_fast.encoders.options import EncoderOptions
from zsbir_fast.methods.contract import Progress
from zsbir_fast.methods.dmwan.model import DMWAN
from zsbir_fast.methods.dmwan.options import QuadrupletOptions, TermOptions, WeightingOptions
from zsbir_fast.methods.settings import OptimConfig
from zsbir_fast.text.class_text import ClassText

START = Progress(step=0, epoch=0, total_steps=1, epochs=1)
CLASSES = ("cat", "dog", "piano", "car")
COUNTS = (3, 2, 1, 3)


def array(tensor):
    return tensor.detach().double().numpy()


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def wide_text(seed, counts=COUNTS):
    """As wide as the features of resnet10t."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.arange(3)[None] < torch.tensor(counts)[:, None]
    tokens, global_ = torch.randn(4, 3, 512, generator=g), torch.randn(4, 512, generator=g)
    return ClassText.from_tensors(CLASSES, tokens, mask=mask, global_=global_)


def model(*, loss=None, terms=None, **weighting_options):
    torch.manual_seed(0)
    given = {}
    if "text" in weighting_options:
        given = {k: weighting_options.pop(k) for k in ("text", "sketch_text")}
    return DMWAN(
        CLASSES,
        encoder=EncoderOptions("timm:resnet10t", weights=None, image_size=64),
        weighting=WeightingOptions(**{"width": 8, **weighting_options}),
        loss=QuadrupletOptions(**(loss or {})),
        terms=TermOptions(**(terms or {})),
        **given,
    )


def batch(count=8):
    g = torch.Generator().manual_seed(1)
    images = [torch.randn(count, 3, 64, 64, generator=g) for _ in range(2)]
    return {"sketches": images[0], "photos": images[1], "labels": torch.arange(count) // 2}


SWITCHES = {
    "identity": {"projections": "identity", "text": wide_text(1), "sketch_text": None},
    "two prompts": {
        "text_source": "open_clip:x",
        "sketch_prompt": "a drawing of a {}",
        "text": wide_text(1),
        "sketch_text": wide_text(2),
    },
    "global feature": {"global_block": "global_feature"},
    "transformer": {"text_source": "glove:sentences", "text_layers": 1},
    "product": {"combine": "product", "form": "mean"},
    "relation": {"kind": "pairwise", "pair_score": "relation", "terms": {"relation": 4.0}},
    "anchor": {"kind": "pairwise", "anchor": 0.5, "text": wide_text(1), "sketch_text": None},
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_learns_is_stored_and_loaded(switch):
    network = model(**SWITCHES[switch]).train()
    torch.manual_seed(1)
    losses = network.losses(batch(), START)
    losses.per_optimizer[0].backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
    weights = network.state_dict()
    options = {k: v for k, v in SWITCHES[switch].items() if k not in ("text", "sketch_text")}
    terms = TermOptions(**options.pop("terms", {}))
    arguments = {
        "encoder": EncoderOptions("timm:resnet10t", weights=None, image_size=64),
        "weighting": WeightingOptions(**{"width": 8, **options}),
        "terms": terms,
    }
    again = DMWAN(CLASSES, **DMWAN.complete(CLASSES, arguments, weights))
    again.load_state_dict(weights)
    given = list(batch().values())
    one, two = (m.eval().explain(*given) for m in (network, again))
    torch.testing.assert_close(one.weights, two.weights)
    assert float(one.weights.sum()) == pytest.approx(8, rel=1e-5)


def test_the_relation_term_is_part_of_the_loss():
    options = {"kind": "pairwise", "pair_score": "relation"}
    network = model(**options, terms={"relation": 4.0, "cls": 0.0, "align": 0.0}).eval()
    losses = network.losses(batch(), START)
    parts = losses.parts
    expected = parts["quadruplet"] + 4 * parts["relation"]
    torch.testing.assert_close(losses.per_optimizer[0], expected)
    relation = network.pair_weighting.relation
    gradient = torch.autograd.grad(
        parts["quadruplet"], list(relation.parameters()), allow_unused=True
    )
    assert all(g is None for g in gradient)  # weights are detached


def test_coefficients_and_random_negatives_reach_the_loss():
    network = model(
        kind="pairwise",
        loss={
            "coefficients": (1.0, 0.5, 0.0, 0.25, 0.0),
            "negative": "random",
            "sketch_negative": "random",
            "positive": "paired",
            "margins": 0.4,
        },
        terms={"cls": 0.0, "align": 0.0},
    ).eval()
    given = batch()
    torch.manual_seed(7)
    with torch.no_grad():
        loss = network.losses(given, START)
        sketch, photo = network.encoder.both(given["sketches"], given["photos"])
        pairs = network.pair_weighting(sketch, photo, given["labels"])
        torch.manual_seed(7)
        mined = network.quadruplet_loss.mine(sketch.global_, photo.global_, given["labels"])
    s, p = (array(x.global_) for x in (sketch, photo))
    s, p = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (s, p))
    quality = (array(pairs.local) + array(pairs.global_)) / 2
    weights = 8 * softmax(quality / 0.5)
    negative, other = mined.photo_negative.numpy(), mined.sketch_negative.numpy()
    labels = given["labels"].numpy()
    assert (labels[negative] != labels).all()
    assert (labels[other] != labels).all()
    target = np.linalg.norm(s - p, axis=1)

    def hinge(a, b):
        return np.maximum(target - np.linalg.norm(a - b, axis=1) + 0.4, 0)

    total = hinge(s, p[negative]) + 0.5 * hinge(s, s[other]) + 0.25 * hinge(p, p[negative])
    assert float(loss.per_optimizer[0]) == pytest.approx((weights * total).mean(), rel=1e-4)


def test_text_is_noted_for_the_user():
    noted = model(text_source="glove:sentences").notes()
    assert len(noted) == 1
    assert noted[0].startswith("text of 4 classes from glove:sentences: ")
    assert "tokens a class (least / median / most); no word unknown" in noted[0]
    assert model(kind="pairwise").notes() == []
    assert len(model(**SWITCHES["two prompts"]).notes()) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"terms": {"align": 0.0}}, "the projections of the weighting stay as they were drawn"),
        (
            {"terms": {"align": 0.0, "quadruplet": 0.0}, "detach": False},
            "because terms.quadruplet is 0 and terms.align is 0",
        ),
        (
            {"kind": "pairwise", "pair_score": "relation"},
            "the relation network stays as it was drawn, because weighting.detach is true and",
        ),
    ],
)
def test_weights_that_nothing_trains_are_told(options, message):
    with pytest.warns(UserWarning, match=f"^DMWAN: .*{message}"):
        model(**options).optimizers(OptimConfig())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"terms": {"align": 0.0}, "detach": False},
        {"terms": {"align": 0.0}, "kind": "pairwise"},
        {"terms": {"align": 0.0}, **SWITCHES["identity"]},
        SWITCHES["relation"],
    ],
)
def test_weights_that_learn_need_no_warning(options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(**options).optimizers(OptimConfig())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"projections": "none"}, "weighting.projections must be one of learned, identity, got"),
        (
            {"global_block": "cls"},
            "weighting.global_block must be one of attention, global_feature",
        ),
        ({"pair_score": "zse"}, "weighting.pair_score must be one of best_match, relation, got"),
        ({"combine": "mean"}, "weighting.combine must be one of sum, product, got 'mean'"),
        ({"kind": "pairwise", "anchor": 1.5}, "weighting.anchor must be in [0, 1], got 1.5"),
        ({"text_layers": -1}, "weighting.text_layers must be at least 0, got -1"),
        ({"text_layers": 1, "text_heads": 3}, "TextTransformer: heads must divide width, got 3 fo"),
        (
            {"combine": "product", "mix": 0.3},
            "weighting.mix must be 0.5 for weighting.combine='product', which has no shares, got 0",
        ),
        (
            {"projections": "identity", "text_layers": 2},
            "weighting.text_layers must be 0 for weighting.projections='identity', as a new",
        ),
        (
            {"projections": "identity"},
            "weighting.projections must be 'learned' where text and patches differ in width, 300 "
            "and 512, got 'identity'",
        ),
        (
            {"sketch_prompt": "a drawing of a {}"},
            "weighting.sketch_prompt must be None unless weighting.text_source is 'open_clip:<model"
            ">' without prompts, got 'a drawing of a {}' for 'glove'",
        ),
        (
            {"sketch_prompt": "a {}", "text_source": "open_clip:x", "prompts": "parts"},
            "weighting.sketch_prompt must be None unless",
        ),
        (
            {"kind": "pairwise", "projections": "identity"},
            "weighting.projections must be 'learned' for weighting.kind='pairwise', got 'identity'",
        ),
        (
            {"kind": "pairwise", "text_layers": 1},
            "weighting.text_layers must be 0 for weighting.kind='pairwise', got 1",
        ),
        (
            {"pair_score": "relation"},
            "weighting.pair_score must be 'best_match' for weighting.kind='text', got 'relation'",
        ),
        ({"anchor": 0.5}, "weighting.anchor must be 0.0 for weighting.kind='text', got 0.5"),
        (
            {"kind": "pairwise", "anchor": 0.5},
            "weighting.anchor must be 0 where text and images differ in width, 300 and 512, as",
        ),
        (
            {"kind": "pairwise", "terms": {"relation": 4.0}},
            "terms.relation must be 0 unless weighting.pair_score is 'relation', got 4.0",
        ),
        ({"terms": {"relation": -1.0}}, "terms.relation must not be negative, got -1.0"),
        (
            {**SWITCHES["two prompts"], "sketch_text": wide_text(2, (3, 1, 1, 3))},
            "weighting.sketch_prompt must give every class as many tokens as weighting.prompt, got "
            "1 and 2 for 'dog'",
        ),
        (
            {**SWITCHES["two prompts"], "sketch_text": None},
            "sketch_text must be given with text for weighting.sketch_prompt",
        ),
        (
            {"text": wide_text(1), "sketch_text": wide_text(2)},
            "sketch_text must be None without weighting.sketch_prompt",
        ),
        ({"prompts": "parts"}, "ClassText: prompts must be None where source 'glove' takes no"),
        ({"loss": {"sketch_negative": "none"}}, "sketch_negative must be 'anchor', 'positive' or"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        model(**options)
