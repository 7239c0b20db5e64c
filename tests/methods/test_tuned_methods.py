"""Methods with every tuning mode and with two encoders: one step, and models on disk."""

from __future__ import annotations

import copy
import re

import pytest
import torch

import zsbir_fast as zf
from zsbir_fast.encoders.options import EncoderOptions, TuningOptions
from zsbir_fast.methods.arguments import argument_names, flat_arguments
from zsbir_fast.methods.build import build_model
from zsbir_fast.methods.trained_parameters import TrainedParameters
from zsbir_fast.training.module import MethodModule
from zsbir_fast.training.run_config import RunConfig

CLASSES = ("cat", "dog", "piano", "car")
OPTIM = zf.OptimConfig(lr_backbone=0.01, lr_head=0.01)
AT = zf.Progress(step=0, epoch=20, total_steps=1, epochs=21)  # SBKA's teacher learns, too
GENERATOR = torch.Generator().manual_seed(1)
IMAGES = torch.randn(8, 3, 32, 32, generator=GENERATOR)
LABELS = torch.arange(8) // 2
IS_PHOTO = torch.arange(8) % 2 == 0

MODES = [
    ({"mode": "full"}, r""),
    ({"mode": "norm"}, r"norm\d?\.(weight|bias)"),
    ({"mode": "norm", "per_modality": True}, r"norm\d?\.(weight|bias)|photo_parts"),
    ({"mode": "frozen"}, r"nothing"),
    ({"mode": "lora", "lora_rank": 2}, r"lora_[AB]"),
    ({"mode": "lora", "lora_rank": 2, "per_modality": True}, r"lora_[AB]|photo_parts"),
    ({"mode": "shallow_prompts"}, r"prompts\.tokens"),
    ({"mode": "deep_prompts"}, r"prompts\.tokens"),
    ({"mode": "deep_prompts", "per_modality": True}, r"prompts\.tokens|photo_parts"),
    ({"mode": "full", "shared": False}, r""),
    ({"mode": "norm", "shared": False}, r"norm\d?\.(weight|bias)"),
]


def encoder(mode="full", *, shared=True, **tuning):
    return {
        "name": "timm:test_vit",
        "weights": None,
        "image_size": 32,
        "tuning": {"mode": mode, **tuning},
        "shared": shared,
    }


def arguments(method, tuning):
    of_method = {
        "dmwan": {"weighting": {"kind": "pairwise"}, "terms": {"distill": 0.5}},
        "clusterretri": {"width": 8, "ranking": {"clusters": 2}},
        "sbka": {"ranking": {"clusters": 2}},
    }
    return {"encoder": encoder(**tuning), **of_method[method]}


def make(method, tuning):
    torch.manual_seed(0)
    identity = zf.ModelIdentity.of(method, arguments(method, tuning), CLASSES)
    return build_model(identity), identity


def step(model):
    if isinstance(model, zf.DMWAN):
        batch = {"sketches": IMAGES, "photos": IMAGES.flip(3), "labels": LABELS}
    else:
        batch = {"images": IMAGES, "labels": LABELS, "is_photo": IS_PHOTO}
    optimizers = model.optimizers(OPTIM)
    losses = model.losses(batch, AT)
    for loss in losses.per_optimizer:
        loss.backward(retain_graph=True)
    for optimizer in optimizers:
        optimizer.step()
    return optimizers


@pytest.mark.parametrize("method", ["dmwan", "clusterretri", "sbka"])
@pytest.mark.parametrize(("tuning", "allowed"), MODES)
def test_a_step_moves_what_the_mode_trains_and_the_model_goes_to_disk(
    method, tuning, allowed, tmp_path
):
    model, identity = make(method, tuning)
    before = copy.deepcopy(dict(model.named_parameters()))
    optimizers = step(model)
    held = [p for optimizer in optimizers for g in optimizer.param_groups for p in g["params"]]
    assert all(p.requires_grad for p in held)
    assert len(held) == sum(p.requires_grad for p in model.parameters())
    inner = {n: p for n, p in model.named_parameters() if n.startswith("encoder.")}
    moved = {name for name, p in inner.items() if not torch.equal(p, before[name])}
    trained = {name for name, p in inner.items() if p.requires_grad}
    assert moved <= trained
    assert trained == {name for name in inner if re.search(allowed, name)}
    if allowed != "nothing":
        # All but the ImageNet head, which DM-WAN lacks, and biases that no gradient reaches.
        assert len(moved) > 0.8 * len(trained)
    outside = {n for n in before if n not in inner}
    moved_outside = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert outside & moved_outside
    zf.export_model(model, identity, tmp_path)
    again = zf.load_model(tmp_path)[0]
    model.eval()
    for modality in ("sketch", "photo"):
        assert torch.equal(again.embed(IMAGES, modality), model.embed(IMAGES, modality))
    apart = tuning.get("per_modality") or not tuning.get("shared", True)
    differs = (again.embed(IMAGES, "sketch") - again.embed(IMAGES, "photo")).abs().max() > 1e-5
    assert differs == bool(apart)


@pytest.mark.parametrize("method", ["dmwan", "clusterretri", "sbka"])
@pytest.mark.parametrize("mode", ["shallow_prompts", "lora"])
def test_the_frozen_copy_is_the_network_without_prompts(method, mode):
    model, _ = make(method, {"mode": mode})
    torch.manual_seed(0)
    plain = EncoderOptions("timm:test_vit", None, 32).build(head=method != "dmwan").eval()
    with torch.no_grad():
        expected = plain(IMAGES).global_
    step(model)
    found = model.frozen(model.encoder.of_photos, IMAGES)
    torch.testing.assert_close(found.global_, expected)
    assert (model.eval().encoder(IMAGES).global_ - expected).abs().max() > 1e-3


def test_two_encoders_of_dmwan_are_two():
    model, _ = make("dmwan", {"shared": False})
    one, _ = make("dmwan", {})
    parts = (sum(p.numel() for p in each.encoder.parameters()) for each in (model, one))
    assert next(parts) == 2 * next(parts)
    sketches, photos = (getattr(model.encoder, name) for name in ("sketch", "photo"))
    start = zip(sketches.parameters(), photos.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in start)
    with torch.no_grad():
        for parameter in sketches.parameters():
            parameter += 0.1
    model.eval()
    one.eval()
    torch.testing.assert_close(model.embed(IMAGES, "photo"), one.embed(IMAGES, "photo"))
    assert (model.embed(IMAGES, "sketch") - one.embed(IMAGES, "sketch")).abs().max() > 1e-3


def test_a_model_that_was_stored_before_there_were_modes_loads(tmp_path):
    model, identity = make("dmwan", {})
    zf.export_model(model, identity, tmp_path)
    old = copy.deepcopy(identity.to_dict())
    del old["arguments"]["encoder"]["tuning"], old["arguments"]["encoder"]["shared"]
    identity.require_same(old)  # a run that was begun then goes on
    read = zf.ModelIdentity.from_dict(old)
    again = build_model(read, stored=model.state_dict())
    assert torch.equal(again.eval().embed(IMAGES, "photo"), model.eval().embed(IMAGES, "photo"))


def test_settings_of_settings_have_dotted_names():
    names = argument_names(zf.DMWAN)
    assert {"encoder.tuning", "encoder.tuning.mode", "encoder.shared", "loss.preset"} <= set(names)
    _, identity = make("dmwan", {"mode": "lora", "lora_targets": ["attn.qkv"]})
    flat = flat_arguments(identity.arguments)
    assert flat["encoder.tuning.mode"] == "lora"
    assert flat["encoder.tuning.lora_targets"] == ["attn.qkv"]
    assert flat["encoder.tuning.prompt_tokens"] == 10  # the default
    assert flat_arguments({"encoder": EncoderOptions()})  # a group in its own type stays whole
    typed = zf.ModelIdentity.of("dmwan", {"encoder": EncoderOptions(
        tuning=TuningOptions("norm"))}, CLASSES)  # fmt: skip
    assert typed.arguments["encoder"]["tuning"]["mode"] == "norm"


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        ({"mod": "norm"}, "no argument 'encoder.tuning.mod' (did you mean 'mode'?)"),
        ({"lora_rank": "x"}, "argument 'encoder.tuning.lora_rank' of method dmwan must be int"),
        ({"mode": "nrm"}, "argument 'encoder.tuning.mode' of method dmwan must be one of 'full'"),
        (3, "argument 'encoder.tuning' of method dmwan must be an object of settings, got 3"),
    ],
)
def test_wrong_settings_of_settings_are_named(tuning, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        zf.ModelIdentity.of("dmwan", {"encoder": {"tuning": tuning}}, CLASSES)


def test_a_resumed_run_keeps_its_mode():
    _, identity = make("dmwan", {"mode": "norm"})
    _, other = make("dmwan", {"mode": "frozen"})
    with pytest.raises(ValueError, match=r"with encoder\.tuning\.mode='norm', got one with .*'fro"):
        identity.require_same(other.to_dict())


def test_numbers_are_said_in_one_line():
    model, _ = make("clusterretri", {"mode": "norm"})
    # 13 norms of 128; a projection of 64 to 8 and a classifier of 8 to 4; all else is frozen.
    ours, every = 13 * 128 + (64 * 8 + 8) + (8 * 4 + 4), sum(p.numel() for p in model.parameters())
    counted = TrainedParameters.of(model)
    of_encoder = every - (64 * 8 + 8) - (8 * 4 + 4)
    assert (counted.trained, counted.every) == (ours, every)
    assert str(counted) == (
        f"trains 2,220 of {every:,} parameters ({100 * 2220 / every:.3g} %), of the encoder 1,664 "
        f"of {of_encoder:,} ({100 * 1664 / of_encoder:.3g} %): LayerNorm only"
    )
    whole, _ = make("dmwan", {})
    counted = TrainedParameters.of(whole)
    assert str(counted) == (
        f"trains {counted.every:,} of {counted.every:,} parameters (100 %): all of the encoder"
    )


def test_a_condition_needs_one_encoder_for_both():
    for given in ({"shared": False}, {"tuning": TuningOptions("norm", per_modality=True)}):
        options = EncoderOptions("timm:seresnet18", weights=None, image_size=32, **given)
        with pytest.raises(ValueError, match=r"^ClusterRetri: condition must be False for an enc"):
            zf.ClusterRetri(CLASSES, encoder=options, condition=True)


def test_a_loss_that_moves_nothing_is_refused():
    """Nothing is trainable; or something is, and the loss does not depend on it."""
    options = EncoderOptions("timm:test_vit", None, 32, tuning=TuningOptions("frozen"))
    terms = zf.TermOptions(cls=0.0, align=0.0)
    pairwise = zf.WeightingOptions(kind="pairwise")
    model = zf.DMWAN(CLASSES, encoder=options, weighting=pairwise, terms=terms)
    with pytest.raises(ValueError, match=r"^parameter_groups: model must have a trainable param"):
        model.optimizers(OPTIM)
    identity = zf.ModelIdentity.of("dmwan", {"encoder": options, "terms": terms}, CLASSES)
    model = build_model(identity)
    module = MethodModule(model, OPTIM, RunConfig(), identity)
    module.optimizers = lambda: [torch.optim.SGD(model.pair_weighting.parameters(), lr=0.1)]
    batch = {"sketches": IMAGES, "photos": IMAGES.flip(3), "labels": LABELS}
    with pytest.raises(ValueError, match=r"^DMWAN\.losses must give losses that depend on a tra"):
        module.training_step(batch, 0)
