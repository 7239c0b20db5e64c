"""The blocks of DM-WAN's weighting and their switches, against the equations in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zsbir_fast.encoders.encoder import Features
from zsbir_fast.losses.gathering import Share
from zsbir_fast.methods.dmwan.pair_weighting import PatchRelation, PatchWeighting, TextWeighting
from zsbir_fast.methods.dmwan.weighting import next_of_another_class, relation_loss
from zsbir_fast.ops.token_weighting import alignment_weights
from zsbir_fast.text.class_text import ClassText

CLASSES = ("cat", "dog", "piano", "car")
COUNTS = (3, 2, 1, 3)


def text(seed, *, width=6, counts=COUNTS):
    g = torch.Generator().manual_seed(seed)
    mask = torch.arange(3)[None] < torch.tensor(counts)[:, None]
    tokens, global_ = torch.randn(4, 3, width, generator=g), torch.randn(4, width, generator=g)
    return ClassText.from_tensors(CLASSES, tokens, mask=mask, global_=global_)


def features(seed, *, patches=5, width=6, batch=4):
    g = torch.Generator().manual_seed(seed)
    return Features(
        torch.randn(batch, patches, width, generator=g), torch.randn(batch, width, generator=g)
    )


LABELS = torch.tensor([0, 1, 2, 3])


def array(tensor):
    return tensor.detach().double().numpy()


def standardised(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def cosine(a, b):
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def weights_of(module):
    return None if isinstance(module, torch.nn.Identity) else array(module.weight)


def projected(x, weight):
    return x if weight is None else x @ weight.T


def pooled(query, image, key, value, temperature):
    """Equations (1) and (2) for one query [D] and the patches of one image [N, D]."""
    patches = standardised(image)
    keys, values = projected(patches, key), projected(patches, value)
    attention = softmax(keys @ query / (np.sqrt(len(query)) * temperature))
    return attention @ values


def transcription(module, photo_text, sketch_text, sketch, photo, *, beta="uniform"):
    """Local scores, and global scores of the attention block, spelled out for every pair."""
    w = {name: weights_of(getattr(module, name)) for name in ("query", "key", "value")}
    local, global_ = [], []
    for row, label in enumerate(LABELS.tolist()):
        sides, betas = [], []
        for source, image in ((sketch_text, sketch), (photo_text, photo)):
            words = array(source.tokens[label])[array(source.mask[label]).astype(bool)]
            queries = projected(standardised(words), w["query"])
            whole = projected(standardised(array(source.global_[label])), w["query"])
            patches = array(image.tokens[row])
            rows = [
                pooled(q, patches, w["key"], w["value"], module.temperature)
                for q in (*queries, whole)
            ]
            sides.append(np.stack(rows))
            logits = queries @ whole / np.sqrt(len(whole))
            betas.append(softmax(logits) if beta != "uniform" else np.full(len(words), 1))
        cosines = cosine(*sides)
        weight = sum(b / b.sum() for b in betas) / 2
        local.append((weight * cosines[:-1]).sum())
        global_.append(cosines[-1])
    return np.array(local), np.array(global_)


def weighting(photo_text, **options):
    torch.manual_seed(0)
    defaults = {"patch_width": 6, "width": 4, "temperature": 0.7, "beta": "uniform"}
    return TextWeighting(photo_text, **{**defaults, **options})


@pytest.mark.parametrize("impl", ["fused", "reference"])
@pytest.mark.parametrize("beta", ["uniform", "text_attention"])
@pytest.mark.parametrize("projections", ["learned", "identity"])
@pytest.mark.parametrize("two", [False, True])
def test_blocks_are_those_of_the_equations(projections, beta, two, impl):
    photo_text = text(1)
    sketch_text = text(2) if two else None
    module = weighting(
        photo_text, sketch_text=sketch_text, projections=projections, beta=beta, impl=impl
    )
    assert bool(list(module.parameters())) == (projections == "learned")
    sketch, photo = features(3), features(4, patches=7)
    pairs = module(sketch, photo, LABELS)
    local, global_ = transcription(
        module, photo_text, sketch_text or photo_text, sketch, photo, beta=beta
    )
    np.testing.assert_allclose(array(pairs.local), local, atol=1e-5)
    np.testing.assert_allclose(array(pairs.global_), global_, atol=1e-5)
    assert np.abs(local - global_).min() > 1e-3


def test_two_texts_pass_gradients_as_one_does():
    photo_text = text(1)
    grads = []
    for sketch_text in (None, photo_text):
        module = weighting(photo_text, sketch_text=sketch_text)
        pairs = module(features(3), features(4), LABELS)
        (pairs.local.sum() + 2 * pairs.global_.sum() + pairs.pooled[0][0].sum()).backward()
        grads.append([p.grad for p in module.parameters()])
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_two_texts_are_explained_by_their_own_attention():
    photo_text, sketch_text = text(1), text(2)
    module = weighting(photo_text, sketch_text=sketch_text)
    answers = module.explain(features(3), features(4), LABELS)
    of_sketch = weighting(sketch_text).explain(features(3), features(4), LABELS)
    of_photo = weighting(photo_text).explain(features(3), features(4), LABELS)
    torch.testing.assert_close(answers.sketch, of_sketch.sketch)
    torch.testing.assert_close(answers.photo, of_photo.photo)
    assert not torch.allclose(of_sketch.sketch, of_photo.sketch)


@pytest.mark.parametrize("projections", ["learned", "identity"])
def test_the_global_block_may_compare_global_features(projections):
    module = weighting(text(1), projections=projections, global_block="global_feature")
    sketch, photo = features(3), features(4)
    pairs = module(sketch, photo, LABELS)
    whole = weights_of(module.whole)
    rows = [projected(standardised(array(f.global_)), whole) for f in (sketch, photo)]
    np.testing.assert_allclose(array(pairs.global_), cosine(*rows), atol=1e-5)
    for got, expected in zip(pairs.pooled[1], rows, strict=True):
        np.testing.assert_allclose(array(got), expected, atol=1e-5)
    local, _ = transcription(module, text(1), text(1), sketch, photo)
    np.testing.assert_allclose(array(pairs.local), local, atol=1e-5)
    assert {n.split(".")[0] for n, _ in module.named_parameters()} == (
        {"query", "key", "value", "whole"} if projections == "learned" else set()
    )


def test_the_transformer_stands_between_text_and_projection():
    photo_text = text(1)
    module = weighting(photo_text, text_layers=2, text_heads=2).eval()
    sketch, photo = features(3), features(4)
    with torch.no_grad():
        words = torch.nn.functional.layer_norm(photo_text.tokens, (6,))
        seen = module.transformer(words, photo_text.mask)
        queries, whole = module.query(seen.tokens), module.query(seen.global_)
    pairs = module(sketch, photo, LABELS)
    w = {name: weights_of(getattr(module, name)) for name in ("key", "value")}
    for row, label in enumerate(LABELS.tolist()):
        sides = [
            np.stack(
                [
                    pooled(q, array(image.tokens[row]), w["key"], w["value"], 0.7)
                    for q in array(torch.cat([queries[label, : COUNTS[label]], whole[label, None]]))
                ]
            )
            for image in (sketch, photo)
        ]
        cosines = cosine(*sides)
        assert float(pairs.local[row].detach()) == pytest.approx(cosines[:-1].mean(), abs=1e-5)
        assert float(pairs.global_[row].detach()) == pytest.approx(cosines[-1], abs=1e-5)
    pairs.local.sum().backward()
    assert all(p.grad is not None for p in module.transformer.parameters())


def test_quality_may_be_a_product():
    local, global_ = torch.tensor([0.5, -0.2, 0.9]), torch.tensor([0.1, 0.4, -1.0])
    r = np.array([0.75 * 0.55, 0.4 * 0.7, 0.0])
    expected = {
        "raw": r,
        "mean": r / r.mean(),
        "softmax": 3 * softmax(r / 0.2),
        "sigmoid": (1 / (1 + np.exp(-r / 0.2))) / (1 / (1 + np.exp(-r / 0.2))).mean(),
    }
    for form, weights in expected.items():
        got = alignment_weights(local, global_, combine="product", form=form, temperature=0.2)
        np.testing.assert_allclose(got, weights, rtol=1e-5, err_msg=form)
    nothing = alignment_weights(local, -torch.ones(3), combine="product", form="mean")
    assert nothing.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="alignment_weights: combine must be one of sum, product"):
        alignment_weights(local, global_, combine="mean")


def test_the_class_anchor_joins_the_global_score_of_the_second_reading():
    class_text = text(1)
    sketch, photo = features(3), features(4)
    module = PatchWeighting(text=class_text, anchor=0.3)
    pairs = module(sketch, photo, LABELS)
    whole = array(class_text.global_)[LABELS.numpy()]
    s, p = array(sketch.global_), array(photo.global_)
    expected = 0.7 * cosine(s, p) + 0.3 * (cosine(s, whole) + cosine(p, whole)) / 2
    np.testing.assert_allclose(array(pairs.global_), expected, atol=1e-6)
    plain = PatchWeighting()(sketch, photo, LABELS)
    torch.testing.assert_close(pairs.local, plain.local)
    assert not list(module.parameters())


def relation_score(module, sketch, photo):
    """Convolution, cosines and network of one pair [N, D], written out."""
    convolution, network = module.reduction.convolution, module.network.layers
    weight, bias = array(convolution.weight), array(convolution.bias)
    side, step = int(np.sqrt(len(sketch))), convolution.stride[0]

    def reduced(tokens):
        grid = tokens.reshape(side, side, -1)
        cells = [
            np.einsum("oikl,kli->o", weight, grid[y : y + step, x : x + step]) + bias
            for y in range(0, side - step + 1, step)
            for x in range(0, side - step + 1, step)
        ]
        return np.stack(cells)

    a, b = reduced(sketch), reduced(photo)
    x = cosine(a[:, None], b[None]).reshape(-1)
    for index in (0, 3, 6):
        x = array(network[index].weight) @ x + array(network[index].bias)
        x = np.maximum(x, 0) if index < 6 else x
    return 1 / (1 + np.exp(-x[0]))


def test_the_relation_score_and_its_loss():
    torch.manual_seed(0)
    relation = PatchRelation(6, 64).eval()  # 8 x 8 patches become 4 x 4
    assert relation.reduction.count == 16
    module = PatchWeighting(relation=relation)
    sketch, photo = features(3, patches=64), features(4, patches=64)
    labels = torch.tensor([0, 0, 2, 0])
    pairs = module(sketch, photo, labels)
    s, p = array(sketch.tokens), array(photo.tokens)
    expected = np.array([relation_score(relation, s[i], p[i]) for i in range(4)])
    np.testing.assert_allclose(array(pairs.local), expected, atol=1e-5)
    assert np.ptp(expected) > 1e-4
    # The next photo of another class: 2 for sketches 0, 1 and 3 (round the end), 3 for sketch 2.
    others = [2, 2, 3, 2]
    wrong = np.array([relation_score(relation, s[i], p[j]) for i, j in enumerate(others)])
    right = (((expected - 0.99) ** 2).sum() + ((wrong - 0.01) ** 2).sum()) / 8
    loss = relation_loss(module, pairs.local, sketch, photo, labels, Share.alone(4))
    assert float(loss.detach()) == pytest.approx(right, rel=1e-5)
    one_class = torch.zeros(4, dtype=torch.int64)
    alone = relation_loss(module, pairs.local, sketch, photo, one_class, Share.alone(4))
    assert float(alone.detach()) == pytest.approx(((expected - 0.99) ** 2).mean(), rel=1e-5)


def test_the_next_row_of_another_class():
    assert next_of_another_class(torch.tensor([1, 1, 2, 3, 1])).tolist() == [2, 2, 3, 4, 2]
    assert next_of_another_class(torch.tensor([5, 5])).tolist() == [-1, -1]
    assert next_of_another_class(torch.tensor([5])).tolist() == [-1]
