"""Cases of the token weighting, against products written out with einsum."""

from __future__ import annotations

import math
from typing import Any

import torch
from case import Case, close, first_complaint
from inputs import FLOATS, HALVES, Draw, described
from torch import Tensor

import zsbir_fast as zf
from api.gradients import fresh
from api.mining import IMPLS, spoilt
from zsbir_fast.encoders.encoder import Features as Encoded
from zsbir_fast.methods.dmwan.pair_weighting import PatchWeighting, TextWeighting

_ZERO_ROW = 1e-30  # docs: a pooled row without an entry of at least so much is zero


def token_weighting(draw: Draw) -> Case:
    """Scores, pooled rows and attention of pairs, or of all pairs."""
    dtype, scale = draw.one(FLOATS), draw.one((1.0, 1.0, 5.0, 1e-3, 1e-20, 100.0))
    classes, words = draw.size(8, least=1), draw.size(8)
    width, value_width = draw.size(40, least=1), draw.size(40, least=1)
    sketches, patches = draw.size(12), (draw.size(40, least=1), draw.size(40, least=1))
    every = draw.chance(0.3)
    photos = draw.size(12) if every else sketches

    def of(*shape: int) -> Tensor:
        return _normal(draw, shape, dtype, scale)

    good: dict[str, Any] = {
        "text": draw.layout(of(classes, words, width)),
        "text_mask": torch.from_numpy(
            draw.rng.random((classes, words)) < draw.one((0.0, 0.7, 1.0))
        ),
        "sketch_keys": draw.layout(of(sketches, patches[0], width)),
        "sketch_values": draw.layout(of(sketches, patches[0], value_width)),
        "photo_keys": draw.layout(of(photos, patches[1], width)),
        "photo_values": draw.layout(of(photos, patches[1], value_width)),
        "labels": draw.layout(torch.from_numpy(draw.rng.integers(0, classes, sketches))),
        "temperature": draw.one((1.0, 0.5, draw.number(0.05, 5))),
        "beta": draw.one(("uniform", "text_attention")),
        "all_pairs": every,
        "impl": draw.one(IMPLS),
    }
    if good["beta"] == "text_attention":
        good["text_global"] = of(classes, width)
    if not every:
        good["return_pooled"] = draw.chance(0.3)
        good["return_attention"] = draw.chance(0.3)
    features = ("text", "sketch_keys", "sketch_values", "photo_keys", "photo_values")
    roles: dict[str, Any] = dict.fromkeys(features, "features") | {
        "text_mask": "mask",
        "labels": "labels",
        "temperature": "number",
        "beta": "choice",
        "impl": "choice",
    }
    if draw.chance(0.25):
        return spoilt(draw, "token_weighting", zf.token_weighting, good, roles)
    slack = _slack(
        dtype, float(good["text"].detach().abs().amax()) if words and classes else 0.0, good
    )

    def check(result: Any) -> str | None:
        want = _weighted(good)
        if isinstance(result, Tensor):
            return first_complaint(
                close("scores", result, want["scores"], rtol=0, atol=slack),
                _backward(good, features),
            )
        pooled = slack * float(good["sketch_values"].detach().abs().max()) if sketches else slack
        complaints = [close("scores", result.scores, want["scores"], rtol=0, atol=slack)]
        for side in ("sketch", "photo"):
            got = getattr(result, f"{side}_pooled")
            complaints.append(
                close(f"{side}_pooled", got, want[f"{side}_pooled"], rtol=1e-3, atol=4 * pooled)
            )
            got = getattr(result, f"{side}_attention")
            if got is not None:
                complaints.append(
                    close(
                        f"{side}_attention", got, want[f"{side}_attention"], rtol=1e-3, atol=slack
                    )
                )
        return first_complaint(*complaints)

    return Case(
        lambda: zf.token_weighting(**good),
        described(**good),
        ("token_weighting",),
        "value",
        check,
        good,
    )


def pairwise_token_score(draw: Draw) -> Case:
    """Patches against patches."""
    dtype, scale = draw.one(FLOATS), draw.one((1.0, 1.0, 1e-20, 1e3, 1e-35))
    scale = max(scale, 1e-3) if dtype == torch.float16 else scale
    every, width = draw.chance(0.4), draw.size(60, least=1)
    sketches = draw.size(20)
    photos = draw.size(20) if every else sketches
    good: dict[str, Any] = {
        "sketch_tokens": draw.layout(
            _normal(draw, (sketches, draw.size(40, least=1), width), dtype, scale)
        ),
        "photo_tokens": draw.layout(
            _normal(draw, (photos, draw.size(40, least=1), width), dtype, scale)
        ),
        "all_pairs": every,
        "impl": draw.one(IMPLS),
    }
    names = ("sketch_tokens", "photo_tokens")
    roles: dict[str, Any] = dict.fromkeys(names, "features") | {"impl": "choice"}
    if draw.chance(0.25):
        return spoilt(draw, "pairwise_token_score", zf.pairwise_token_score, good, roles)

    def check(result: Tensor) -> str | None:
        a, b = (_unit(good[k].detach().double()) for k in names)
        if every:
            a, b = a[:, None], b[None]
        want = torch.einsum("...nd,...md->...nm", a, b).amax(-1).mean(-1)
        slack = 1e-12 if dtype == torch.float64 else 1e-5
        return first_complaint(
            close("scores", result, want, rtol=0, atol=slack),
            _backward_of(zf.pairwise_token_score, good, names),
        )

    return Case(
        lambda: zf.pairwise_token_score(**good),
        described(**good),
        ("pairwise_token_score",),
        "value",
        check,
        good,
    )


def alignment_weights(draw: Draw) -> Case:
    """Scores to weights."""
    rows, dtype = draw.size(60), draw.one((torch.float32, torch.float64))
    local, global_ = (torch.from_numpy(draw.rng.uniform(-1, 1, rows)).to(dtype) for _ in range(2))
    if draw.chance(0.1):
        local, global_ = -torch.ones_like(local), -torch.ones_like(local)
    good: dict[str, Any] = {
        "local": local,
        "global_": global_,
        "mix": draw.one((0.0, 0.5, 1.0)),
        "combine": draw.one(("sum", "product")),
        "temperature": draw.one((0.5, draw.number(1e-3, 10), 10.0 ** draw.number(-300, 0))),
        "form": draw.one(("softmax", "sigmoid", "mean", "raw")),
    }
    roles: dict[str, Any] = {
        "local": "features",
        "global_": "features",
        "mix": "number",
        "temperature": "number",
        "form": "choice",
        "combine": "choice",
    }
    if draw.chance(0.25):
        return spoilt(draw, "alignment_weights", zf.alignment_weights, good, roles)
    ordinary = good["temperature"] >= 1e-3

    def check(result: Tensor) -> str | None:
        if bool(result.isnan().any()):
            return "NaN: weights from finite input"
        return close("weights", result, _weights(good), rtol=1e-4, atol=1e-5) if ordinary else None

    return Case(
        lambda: zf.alignment_weights(**good),
        described(**good),
        ("alignment_weights",),
        "value" if ordinary else "either",
        check,
        good,
    )


def _class_text(draw: Draw, classes: int, width: int, mask: Tensor) -> zf.ClassText:
    return zf.ClassText.from_tensors(
        [f"class {i}" for i in range(classes)],
        _normal(draw, (classes, 3, width), torch.float32, 1.0),
        mask=mask,
        global_=_normal(draw, (classes, width), torch.float32, 1.0),
    )


def pair_weighting(draw: Draw) -> Case:
    """DM-WAN's two weightings of pairs: bounded scores, finite, and those of their parts."""
    batch, patches, width = draw.size(8), draw.size(20, least=1), draw.size(24, least=2)
    scale = draw.one((1.0, 1.0, 1e-10, 1e4))

    def side() -> Encoded:
        tokens = _normal(draw, (batch, patches, width), torch.float32, scale)
        return Encoded(tokens, tokens.mean(1))

    sketch, photo = side(), side()
    classes = draw.size(6, least=1)
    labels = torch.from_numpy(draw.rng.integers(0, classes, batch))
    impl = draw.one(IMPLS)
    if draw.chance(0.5):
        anchor = draw.one((0.0, 0.4, 1.0))
        text = _class_text(draw, classes, width, torch.ones(classes, 3) > 0)
        module: Any = PatchWeighting(text=text, anchor=anchor, impl=impl)
    else:
        mask = torch.from_numpy(draw.rng.random((classes, 3)) < 0.7)
        projections = draw.one(("learned", "identity"))
        of_text = width if projections == "identity" else 10
        module = TextWeighting(
            _class_text(draw, classes, of_text, mask),
            patch_width=width,
            width=16,
            temperature=1.0,
            beta=draw.one(("uniform", "text_attention")),
            sketch_text=_class_text(draw, classes, of_text, mask) if draw.chance(0.3) else None,
            projections=projections,
            global_block=draw.one(("attention", "global_feature")),
            text_layers=int(projections == "learned" and draw.chance(0.3)),
            impl=impl,
        )

    def check(result: Any) -> str | None:
        for name in ("local", "global_"):
            scores = getattr(result, name).detach()
            if scores.shape != (batch,) or not bool((scores.abs() <= 1 + 1e-5).all()):
                return f"wrong value: {name} is {scores}"
        return None

    says = f"{type(module).__name__}, {described(tokens=sketch.tokens, labels=labels)}, {impl}"
    return Case(lambda: module(sketch, photo, labels), says, ("token_weighting",), "value", check)


def _normal(draw: Draw, shape: tuple[int, ...], dtype: torch.dtype, scale: float) -> Tensor:
    values = torch.from_numpy(draw.rng.standard_normal(shape)) * scale
    if draw.chance(0.1) and values.numel():
        values[..., 0, :] = 0
    return values.clamp(-60000, 60000).to(dtype)


def _unit(x: Tensor) -> Tensor:
    largest = x.abs().amax(-1, keepdim=True)
    zero = largest < _ZERO_ROW
    x = torch.where(zero, 0.0, x / torch.where(zero, 1.0, largest))
    return x / torch.where(zero, 1.0, x.square().sum(-1, keepdim=True)).sqrt()


def _weighted(given: dict[str, Any]) -> dict[str, Tensor]:
    """Equations (1) to (3)."""
    names = ("text", "sketch_keys", "sketch_values", "photo_keys", "photo_values")
    text, *patches = (given[k].detach().double() for k in names)
    mask, labels, width = given["text_mask"], given["labels"], given["text"].shape[2]
    counts = mask.sum(1, keepdim=True)
    beta = mask.double() / counts.clamp_min(1)
    if given["beta"] == "text_attention":
        logits = torch.einsum("cld,cd->cl", text, given["text_global"].double()) / math.sqrt(width)
        logits = logits.masked_fill(~mask, -math.inf)
        beta = torch.where(counts > 0, logits.softmax(1).nan_to_num(), 0.0)
    words, valid = text[labels], mask[labels][:, :, None]
    temperature = math.sqrt(width) * given["temperature"]
    found: dict[str, Tensor] = {}
    for side, keys, values in (("sketch", *patches[:2]), ("photo", *patches[2:])):
        pairs = "bld,pnd->bpln" if given["all_pairs"] and side == "photo" else "bld,bnd->bln"
        attention = (torch.einsum(pairs, words, keys) / temperature).softmax(-1)
        attention = attention * (valid[:, None] if attention.ndim == 4 else valid)
        into = "bpln,pnv->bplv" if attention.ndim == 4 else "bln,bnv->blv"
        found[f"{side}_attention"] = attention
        found[f"{side}_pooled"] = torch.einsum(into, attention, values)
    first, second = _unit(found["sketch_pooled"]), _unit(found["photo_pooled"])
    if given["all_pairs"]:
        found["scores"] = torch.einsum("bl,blv,bplv->bp", beta[labels], first, second)
    else:
        found["scores"] = torch.einsum("bl,blv,blv->b", beta[labels], first, second)
    return found


def _slack(dtype: torch.dtype, largest: float, given: dict[str, Any]) -> float:
    """What rounding may move a score by: logits are rounded in the type of the sums."""
    width = given["text"].shape[2]
    keys = max(
        (
            float(given[k].detach().abs().max())
            for k in ("sketch_keys", "photo_keys")
            if given[k].numel()
        ),
        default=0.0,
    )
    logit = largest * keys * width / (math.sqrt(width) * given["temperature"])
    step = 2.0**-52 if dtype == torch.float64 else 2.0**-23
    return min(
        2.0,
        100 * step * (1 + logit) * (8 if dtype in HALVES else 1)
        + (0 if dtype == torch.float64 else 2e-5),
    )


def _backward(given: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return _backward_of(zf.token_weighting, given, names)


def _backward_of(function: Any, given: dict[str, Any], names: tuple[str, ...]) -> str | None:
    leaves = {k: given[k].detach().clone().requires_grad_() for k in names}
    scores = function(**{**fresh(given), **leaves})
    if not scores.requires_grad:
        return "no gradient: scores have no graph"
    scores.sum().backward()
    for name, leaf in leaves.items():
        if leaf.grad is None:
            return f"no gradient: of {name}"
        # A pooled row of nearly nothing has a gradient beyond float16.
        if bool(leaf.grad.isnan().any()) and leaf.dtype != torch.float16:
            return f"NaN: gradient by {name} from finite input"
    return None


def _weights(given: dict[str, Any]) -> Tensor:
    """Equations (6) and (7)."""
    local, global_ = given["local"].double(), given["global_"].double()
    r = given["mix"] * local + (1 - given["mix"]) * global_
    if given["combine"] == "product":
        r = (1 + local) * (1 + global_) / 4
    form, temperature = given["form"], given["temperature"]
    if form == "raw" or len(r) == 0:
        return r
    if form == "softmax":
        return len(r) * (r / temperature).softmax(0)
    if form == "sigmoid":
        r = (r / temperature).sigmoid()
    elif given["combine"] == "sum":
        r = (1 + r) / 2
    return r / r.mean() if float(r.mean()) > 0 else torch.ones_like(r)
