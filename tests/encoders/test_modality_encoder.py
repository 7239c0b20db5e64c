"""One call for sketches and photos: shared, in parts, or two encoders."""

from __future__ import annotations

import copy

import pytest
import torch

import zsbir_fast as zf
from zsbir_fast.encoders.modality_condition import ModalityCondition
from zsbir_fast.encoders.options import EncoderOptions, TuningOptions

VIT = "timm:test_vit"
SKETCHES, PHOTOS = torch.randn(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(7))


def build(name, mode="full", *, shared=True, per_modality=False, head=False):
    torch.manual_seed(0)
    tuning = TuningOptions(mode, per_modality=per_modality)
    options = EncoderOptions(name, weights=None, image_size=32, tuning=tuning, shared=shared)
    return options.build_for_modalities(head=head)


def plain(name):
    torch.manual_seed(0)
    return zf.build_encoder(name, image_size=32)


APART = [
    *((mode, {"per_modality": True}) for mode in ("norm", "lora", "deep_prompts")),
    ("shallow_prompts", {"per_modality": True}),
    ("full", {"shared": False}),
    ("lora", {"shared": False}),
]


@pytest.mark.parametrize("name", [VIT, "timm:resnet10t", "bundled:mobilenet_v2"])
def test_a_shared_encoder_is_the_plain_one_bit_for_bit(name):
    encoder, expected = build(name), plain(name)
    assert not encoder.tells_apart
    assert list(encoder.state_dict()) == list(expected.state_dict())
    for mode in (True, False):
        encoder.train(mode)
        expected.train(mode)
        whole = expected(torch.cat([SKETCHES, PHOTOS]))
        found = encoder.both(SKETCHES, PHOTOS)
        for parts, of_whole in zip(zip(*found, strict=True), whole, strict=True):
            assert torch.equal(torch.cat(parts), of_whole)
        is_photo = torch.tensor([False, True, True])
        assert torch.equal(encoder.mixed(PHOTOS, is_photo).global_, expected(PHOTOS).global_)
        for modality in (None, "sketch", "photo"):
            assert torch.equal(encoder(PHOTOS, modality).tokens, expected(PHOTOS).tokens)
    assert (encoder.width, encoder.image_size, encoder.spec) == (
        expected.width,
        expected.image_size,
        expected.spec,
    )
    assert encoder.takes(64) == expected.takes(64)
    trained = [name for name, p in encoder.named_parameters() if p.requires_grad]
    assert trained == [name for name, _ in expected.named_parameters()]


def test_frozen_batch_norm_stays_in_evaluation_mode():
    encoder = build("timm:resnet10t", shared=False).train()
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 2 * sum(
        isinstance(m, torch.nn.BatchNorm2d) for m in plain("timm:resnet10t").modules()
    )
    assert not any(norm.training for norm in norms)
    assert encoder.training


@pytest.mark.parametrize(("mode", "how"), APART)
def test_both_modalities_start_alike_and_learn_apart(mode, how, two_block_clip):
    name = two_block_clip if mode != "deep_prompts" else VIT
    encoder = build(name, mode, **how)
    assert encoder.tells_apart
    with torch.no_grad():
        torch.testing.assert_close(
            encoder(PHOTOS, "sketch").global_, encoder(PHOTOS, "photo").global_
        )
        start = encoder(PHOTOS, "sketch")
    before = copy.deepcopy(encoder.state_dict())
    trained = [p for p in encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.3)
    encoder(PHOTOS, "photo").global_.square().mean().backward()
    optimizer.step()
    moved = {n for n, value in encoder.state_dict().items() if not torch.equal(value, before[n])}
    assert moved
    beginning = "photo." if not how.get("shared", True) else "photo_parts."
    assert all(each.startswith(beginning) for each in moved)
    with torch.no_grad():
        assert torch.equal(encoder(PHOTOS, "sketch").tokens, start.tokens)
        change = encoder(PHOTOS, "photo").global_ - start.global_
        assert change.abs().max() > 1e-6


@pytest.mark.parametrize(("mode", "how"), [APART[0], APART[4]])
def test_mixed_batches_keep_the_order_of_their_images(mode, how):
    encoder = build(VIT, mode, **how).eval()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if name.startswith("photo"):
                parameter += 0.1
    images, is_photo = torch.cat([SKETCHES, PHOTOS]), torch.tensor([1, 0, 0, 1, 0, 1]) == 1
    of_sketches, of_photos = encoder(images, "sketch"), encoder(images, "photo")
    for found, sketch, photo in zip(
        encoder.mixed(images, is_photo), of_sketches, of_photos, strict=True
    ):
        flags = is_photo.view(-1, *[1] * (found.ndim - 1))
        torch.testing.assert_close(found, torch.where(flags, photo, sketch))
        assert not torch.allclose(sketch, photo, atol=1e-2)
    for flag, alone in ((True, of_photos), (False, of_sketches)):
        found = encoder.mixed(images, torch.full((6,), flag))
        torch.testing.assert_close(found.global_, alone.global_)
    sketches, photos = encoder.both(SKETCHES, PHOTOS)
    torch.testing.assert_close(sketches.tokens, encoder(SKETCHES, "sketch").tokens)
    torch.testing.assert_close(photos.tokens, encoder(PHOTOS, "photo").tokens)


@pytest.mark.parametrize(
    ("mode", "how"), [*APART, ("deep_prompts", {}), ("full", {}), ("lora", {})]
)
def test_plain_encoders_embed_alike_and_go_through_export(mode, how, two_block_clip):
    encoder = build(two_block_clip, mode, **how).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    names = set(plain(two_block_clip).state_dict())
    for modality in ("sketch", "photo"):
        alone = encoder.plain(modality)
        assert set(alone.state_dict()) - {"prompts.tokens"} == names
        with torch.no_grad():
            expected = encoder(PHOTOS, modality)
            for found, wanted in zip(alone(PHOTOS), expected, strict=True):
                torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    program = torch.export.export(alone, (PHOTOS,)).module()
    with torch.no_grad():
        torch.testing.assert_close(program(PHOTOS).global_, expected.global_, rtol=0, atol=1e-5)
    if encoder.tells_apart:
        other = encoder.plain("sketch")(PHOTOS).global_
        assert (other - expected.global_).abs().max() > 1e-3


def test_the_head_behind_photos_has_their_norms():
    """Its norm and its layer, on a network whose head has both."""
    encoder = build("timm:mobilenetv4_conv_small_035", "norm", per_modality=True, head=True).eval()
    global_ = torch.randn(2, encoder.width)
    with torch.no_grad():
        before = encoder.logits(global_)
        for parameter in encoder.photo_parts:
            parameter += 0.5
        alone = encoder.plain("photo")
        assert (encoder.logits(global_) - before).abs().max() > 1e-3
        torch.testing.assert_close(encoder.logits(global_), alone.logits(global_))
        torch.testing.assert_close(encoder.of_photos.logits(global_), before)


def test_a_modality_must_be_said_where_it_matters():
    encoder = build(VIT, "norm", per_modality=True)
    with pytest.raises(ValueError, match=r"^ModalityEncoder: modality must be one of sketch"):
        encoder(PHOTOS)
    with pytest.raises(ValueError, match=r"^ModalityEncoder\.plain: modality must be one of"):
        encoder.plain("drawing")
    conditional = build("timm:seresnet18")
    conditional.condition = ModalityCondition(conditional)
    with pytest.raises(ValueError, match=r"^ModalityEncoder\.plain: .* got one with a ModalityC"):
        conditional.plain("photo")
