"""Cases of names and text: splits, class text, encoders by name."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from case import Case
from inputs import Draw, described
from spoil import spoil

import zsbir_fast as zf
from zsbir_fast.text.prompts import fill_prompt

_PIECES = (
    "cat",
    "Dog",
    "hot-air",
    "_",
    " ",
    "-",
    "ñ",
    "é",
    "बाल",
    "ी",
    "+",
    "#",
    "c",
    "🐕",
    "(",
    ")",
)
_PIECES += ("\u200d", "İ", "ß", "\u00a0", "７", "x" * 300, "猫", ".", "/", "\\", "0")
_SPLITS = ("sketchy-25", "sketchy-21", "tuberlin-30", "quickdraw-30", "qd_caltech")


def _name(draw: Draw) -> str:
    name = "".join(draw.one(_PIECES) for _ in range(int(draw.rng.integers(1, 5))))
    return unicodedata.normalize(draw.one(("NFC", "NFD", "NFKC")), name)


def class_text(draw: Draw) -> Case:
    """Vectors of any names: of length 1, the same whatever else is in the list."""
    names = [f"{_name(draw)}z{i}" for i in range(draw.size(12, least=1))]
    good: dict[str, Any] = {"classes": names, "max_tokens": draw.one((1, 2, 8, 100))}
    if draw.chance(0.3):
        good["descriptions"] = {name: (f"A {name} has a tail, like a dog.",) for name in names[::2]}
    roles: dict[str, Any] = {"classes": "names", "source": "choice", "max_tokens": "count"}
    sentences = draw.chance(0.4)
    if sentences:
        pieces = [" ".join(draw.one(_PIECES) for _ in range(3)) for _ in names]
        good["descriptions"] = {
            name: (f"A long {name} has a tail.", f"It has {i} {piece} legs.")
            for i, (name, piece) in enumerate(zip(names, pieces, strict=True))
        }
        good |= {"source": "glove:sentences", "whole": draw.one(("name", "sentences"))}
        roles["whole"] = "choice"
    if draw.chance(0.3):
        arguments, expect, how = spoil(draw, {"source": "glove", **good}, roles)
        if how in ("max_tokens spoilt: None", "whole spoilt: None"):  # the source's default
            expect = "either"
        says = f"{described(**arguments)}; {how}"
        return Case(lambda: zf.ClassText(**arguments), says, ("ClassText",), expect)

    def check(text: zf.ClassText) -> str | None:
        if text.tokens.shape[:2] != text.mask.shape or len(text.global_) != len(names):
            return f"wrong value: shapes {text.tokens.shape}, {text.mask.shape}"
        if bool((text.global_.norm(dim=1) - 1).abs().max() > 1e-5):
            return "wrong value: a vector that is not of length 1"
        if bool((text.tokens[~text.mask] != 0).any()) or not bool(text.mask[:, 0].all()):
            return "wrong value: mask and tokens differ"
        norms = text.tokens[text.mask].norm(dim=1)
        if bool((norms - 1).abs().max() > 1e-5):
            return "wrong value: a token that is not of length 1"
        if sentences and good["max_tokens"] > 1 and bool((text.mask.sum(1) < 2).any()):
            return "wrong value: a class with one token"
        alone = zf.ClassText(names[-1:], **{k: v for k, v in good.items() if k != "classes"})
        same = torch.equal(alone.global_[0], text.global_[-1])
        return None if same else "wrong value: a vector depends on the other classes"

    return Case(lambda: zf.ClassText(**good), described(**good), ("ClassText",), check=check)


def load_split(draw: Draw) -> Case:
    """Published splits by right and by mistyped names."""
    name = draw.one(_SPLITS)
    if draw.chance(0.3):
        sizes = {"sketchy-25": 25, "sketchy-21": 21, "tuberlin-30": 30, "quickdraw-30": 30}

        def check(split: Any) -> str | None:
            good = len(split.unseen) == sizes.get(name, 10) and not {*split.seen} & {*split.unseen}
            return None if good else f"wrong value: {len(split.unseen)} unseen classes"

        return Case(lambda: zf.load_split(name), name, ("load_split",), check=check)
    letters = list(name)
    letters[int(draw.rng.integers(len(letters)))] = draw.one(("", "x", "_", "é", "\0"))
    wrong: Any = draw.one(("".join(letters), None, 3, b"sketchy-25", "", "x" * 500))
    expect = "either" if wrong in _SPLITS else "refusal"
    return Case(lambda: zf.load_split(wrong), repr(wrong)[:80], ("load_split",), expect)


def load_benchmark(draw: Draw) -> Case:
    """A benchmark by arguments that do not fit."""
    empty = Path("empty").absolute()
    empty.mkdir(exist_ok=True)
    good: dict[str, Any] = {"name": "mine", "root": empty, "layout": "auto", "unseen": ["cat"]}
    roles: dict[str, Any] = {"layout": "choice", "unseen": "names"}
    arguments, _, how = spoil(draw, good, roles)
    if draw.chance(0.3):
        arguments["root"] = draw.one(("/no/such/folder", "a\0b", "x" * 5000, "~nobody/x"))
    says = f"{described(**arguments)}; {how}"
    return Case(lambda: zf.load_benchmark(**arguments), says, ("load_benchmark",), "refusal")


def build_encoder(draw: Draw) -> Case:
    """Encoders that do not exist; nothing is fetched."""
    good: dict[str, Any] = {"name": "bundled:mobilenet_v2", "weights": None, "image_size": 64}
    wrong = [
        {"name": draw.one(("", "bundled", "bundled:", "x:y", "timm:", "timm:no_such_model", ":"))},
        {"name": draw.one((None, 3, b"bundled:mobilenet_v2", ["a"]))},
        {"name": draw.one(("timm:hf-hub:a/b", "open_clip:hf-hub:a/b", "open_clip:no-such-model"))},
        {"weights": draw.one(("no-tag", "none.safetensors", "a\0b", "x" * 5000, 3))},
        {"image_size": draw.one((0, -1, 10**9, 10**30, "x", 2.5))},
        {draw.one(("head", "freeze_batch_norm")): draw.one((None, 0, 1, "yes", 2.5))},
        {"head": True, "name": draw.one(("timm:convnextv2_atto.fcmae", "open_clip:ViT-B-32"))},
    ]
    arguments = {**good, **draw.one(wrong)}
    says = described(**arguments)
    names = ("build_encoder", "read_weight_file")
    return Case(lambda: zf.build_encoder(**arguments), says, names, "refusal")


def encoder_options(draw: Draw) -> Case:
    """What of an encoder is trained: settings that fit it, and some that do not."""
    modes = ("full", "norm", "frozen", "shallow_prompts", "deep_prompts")
    tuning: dict[str, Any] = {"mode": draw.one(modes), "prompt_tokens": 1 + draw.size(20)}
    tuning["per_modality"] = tuning["mode"] not in ("full", "frozen") and draw.chance(0.5)
    options: dict[str, Any] = {"name": "timm:test_vit", "weights": None, "image_size": 32}
    options["shared"] = tuning["per_modality"] or draw.chance(0.5)
    wrong: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"mode": draw.one(("", "lorra", None, 3, b"norm"))}, {}),
        ({draw.one(("lora_rank", "prompt_tokens")): draw.one((0, -1, 10**30, 1.5, "x", None))}, {}),
        (
            {draw.one(("lora_alpha", "lora_dropout")): draw.one((-1, 10**400, "x", None, np.nan))},
            {},
        ),
        ({"lora_targets": draw.one(([], "qkv", [3], [""], {"a": 1}))}, {}),
        ({"mode": "full", "per_modality": True}, {}),
        ({"mode": "norm", "per_modality": True}, {"shared": False}),
        ({"mode": "deep_prompts"}, {"name": "timm:resnet10t"}),
        ({"mode": "frozen", "per_modality": False}, {"freeze_batch_norm": False}),
        ({}, {draw.one(("shared", "tuning")): draw.one((None, 1, "yes"))}),
    ]
    bad = draw.chance(0.5)
    if bad:
        of_tuning, of_encoder = draw.one(wrong)
        tuning, options = {**tuning, **of_tuning}, {**options, **of_encoder}

    def call() -> Any:
        built = {"tuning": zf.TuningOptions(**tuning), **options}
        encoder = zf.EncoderOptions(**built).build_for_modalities().eval()
        images = torch.zeros(2, 3, 32, 32)
        with torch.no_grad():
            return encoder, encoder.both(images, images), encoder.plain("photo")(images)

    def check(result: Any) -> str | None:
        encoder, (sketch, photo), alone = result
        if not torch.equal(sketch.global_, photo.global_):
            return "both modalities do not start alike"
        if not torch.allclose(alone.tokens, photo.tokens, atol=1e-5):
            return "the plain encoder gives other tokens"
        trains = any(parameter.requires_grad for parameter in encoder.parameters())
        return None if trains == (tuning["mode"] != "frozen") else "another mode"

    names = ("TuningOptions", "EncoderOptions", "tune_encoder")
    says = described(**tuning, **options)
    return Case(call, says, names, "refusal" if bad else "value", None if bad else check)


def prompt(draw: Draw) -> Case:
    """Templates with and without a place for the name."""
    template = "".join(draw.one(("a photo of ", "{}", "{", "}", "{0}")) for _ in range(3))
    name = _name(draw)
    expect = "either" if template.count("{}") == 1 else "refusal"
    return Case(lambda: fill_prompt(template, name), f"{template!r}", ("fill_prompt",), expect)
