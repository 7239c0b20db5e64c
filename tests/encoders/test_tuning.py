"""What of an encoder is trained: counts by hand, prompts and LoRA by transcription, errors."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

import zsbir_fast as zf
from zsbir_fast.encoders.lora import LayeredAttention, merge_lora
from zsbir_fast.encoders.options import EncoderOptions, TuningOptions
from zsbir_fast.encoders.tuning import tune_encoder, untuned_state

VIT = "timm:test_vit"  # six blocks of width 64, one class token
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.fixture(params=["timm", "open_clip"])
def vit(request, two_block_clip):
    return VIT if request.param == "timm" else two_block_clip


def options(name, mode="full", **more):
    of_encoder = {key: more.pop(key) for key in ("shared", "freeze_batch_norm") if key in more}
    tuning = TuningOptions(mode, **more)
    return EncoderOptions(name, weights=None, image_size=32, tuning=tuning, **of_encoder)


def tuned(name, mode, **more):
    """A plain encoder and the same one tuned."""
    torch.manual_seed(0)
    plain = zf.build_encoder(name, image_size=32).eval()
    encoder = copy.deepcopy(plain)
    text = tune_encoder(encoder, TuningOptions(mode, **more))
    return plain, encoder.eval(), text


def close(found, expected, atol=1e-5):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=atol)


# What follows from width 64, 3 * 64 * 64 weights of a patch embedding, 16 patches, the hidden
# width 256 of open_clip and 192 of timm's, and 24 features. A norm has 128 parameters.
CLIP_BLOCK = 2 * 128 + (3 * 64 * 64 + 192) + (64 * 64 + 64) + (2 * 64 * 256 + 256 + 64)
CLIP = 3 * 64 * 64 + 64 + 17 * 64 + 128 + 2 * CLIP_BLOCK + 128 + 64 * 24
LORA = 8 * (64 + 192) + 8 * (64 + 64)  # of the attention of a block, rank 8


@pytest.mark.parametrize(
    ("mode", "of_clip", "of_vit", "text"),
    [
        ("norm", 6 * 128, 13 * 128, "LayerNorm only"),
        ("frozen", 0, 0, "nothing of the encoder"),
        ("lora", 2 * LORA, 6 * LORA, "LoRA of rank 8 on {layers} layers"),
        ("shallow_prompts", 10 * 64, 10 * 64, "10 prompts before the first block"),
        ("deep_prompts", 2 * 640, 6 * 640, "10 prompts before each of {blocks} blocks"),
    ],
)
def test_trained_parameters_are_those_of_a_count_by_hand(
    mode, of_clip, of_vit, text, two_block_clip
):
    for name, expected, blocks in ((two_block_clip, of_clip, 2), (VIT, of_vit, 6)):
        plain, encoder, said = tuned(name, mode)
        trained = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
        assert trained == expected
        assert said == text.format(layers=2 * blocks, blocks=blocks)
        whole = sum(p.numel() for p in encoder.parameters())
        added = expected if mode in ("lora", "shallow_prompts", "deep_prompts") else 0
        assert whole == sum(p.numel() for p in plain.parameters()) + added
        if name == two_block_clip:
            assert whole == CLIP + added
        of_both = options(name, mode, per_modality=True) if expected and mode != "frozen" else None
        if of_both is not None:
            both = of_both.build_for_modalities()
            assert sum(p.numel() for p in both.parameters() if p.requires_grad) == 2 * expected


def test_norms_of_convolutional_networks_are_trained_by_their_kinds():
    _, encoder, text = tuned("timm:resnet10t", "norm")
    assert text == "BatchNorm only"
    channels = sum(m.num_features for m in encoder.modules() if isinstance(m, nn.BatchNorm2d))
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) == 2 * channels
    assert not encoder.network.conv1[0].weight.requires_grad
    assert tuned("timm:test_convnext", "norm")[2] == "LayerNorm only"
    assert tuned("timm:test_efficientnet_gn", "norm")[2] == "GroupNorm only"


def tokens_by_hand(plain, prompts, *, prefix):
    """Pass tokens through the blocks one by one, with the prompts of each layer."""
    network = plain.network
    if hasattr(network, "blocks"):
        x = network.norm_pre(network._pos_embed(network.patch_embed(IMAGES)))
        blocks, last = network.blocks, network.norm
    else:
        x, blocks, last = network._embeds(IMAGES), network.transformer.resblocks, network.ln_post
    head, patches = x[:, :prefix], x[:, prefix:]
    for layer, block in enumerate(blocks):
        if layer < len(prompts):
            inner = prompts[layer].expand(len(x), -1, -1)
        x = block(torch.cat([head, inner, patches], dim=1))
        head, inner = x[:, :prefix], x[:, prefix : prefix + inner.shape[1]]
        patches = x[:, prefix + inner.shape[1] :]
    return last(torch.cat([head, patches], dim=1))


@pytest.mark.parametrize("mode", ["shallow_prompts", "deep_prompts"])
@torch.no_grad()
def test_prompts_join_after_the_class_token_and_leave_after_the_last_block(vit, mode):
    plain, encoder, _ = tuned(vit, mode, prompt_tokens=3)
    tokens = encoder.prompts.tokens
    bound = (6 / (3 * (16 * 16 if vit == VIT else 8 * 8) + 64)) ** 0.5
    assert 0.9 * bound < tokens.abs().max() <= bound
    nn.init.normal_(tokens)
    x = tokens_by_hand(plain, tokens, prefix=1)
    pooled = x[:, 0] if vit == VIT else x[:, 0] @ plain.network.proj
    patches = x[:, 1:] if vit == VIT else x[:, 1:] @ plain.network.proj
    found = encoder(IMAGES)
    close(found, (patches, pooled))
    assert found.tokens.shape == plain(IMAGES).tokens.shape
    assert (found.global_ - plain(IMAGES).global_).abs().max() > 0.1


@torch.no_grad()
def test_prompts_join_after_all_prefix_tokens():
    plain, encoder, _ = tuned("timm:deit_tiny_distilled_patch16_224", "deep_prompts")
    x = tokens_by_hand(plain, encoder.prompts.tokens, prefix=2)
    close([encoder(IMAGES).tokens], [x[:, 2:]])


def randomised(encoder):
    """Additions that add something; at the start the second factor is 0."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return encoder


@pytest.mark.parametrize("targets", [None, ["qkv", "mlp.fc1", "mlp.c_fc"]])
@torch.no_grad()
def test_lora_adds_a_product_and_merges_into_plain_weights(vit, targets):
    plain, encoder, _ = tuned(vit, "lora", lora_rank=4, lora_alpha=6.0, lora_targets=targets)
    close(encoder(IMAGES), plain(IMAGES))
    randomised(encoder)
    found = encoder(IMAGES)
    assert (found.global_ - plain(IMAGES).global_).abs().max() > 0.1
    # The definition, in NumPy: W + alpha / rank * B A.
    state = {name: value.numpy() for name, value in encoder.state_dict().items()}
    expected = plain.state_dict()
    for name, a in state.items():
        if "lora_A" in name:
            layer = name.partition(".lora_A")[0]
            b = state[name.replace("lora_A", "lora_B")]
            weight = f"{layer}.weight".replace("attn.qkv.weight", "attn.in_proj_weight")
            weight = weight.replace("attn.proj.weight", "attn.out_proj.weight")
            weight = f"{layer}.weight" if vit == VIT else weight
            expected[weight] = expected[weight] + torch.from_numpy(6.0 / 4 * np.matmul(b, a))
    plain.load_state_dict(expected)
    close(found, plain(IMAGES))
    merged = merge_lora(encoder)
    close(merged(IMAGES), found)
    close([merged.state_dict()[name] for name in expected], expected.values(), atol=1e-6)
    assert list(merged.state_dict()) == list(expected)  # the plain names, and nothing else
    assert [type(m) for m in merged.modules()] == [type(m) for m in plain.modules()]
    assert merge_lora(merged) is merged  # nothing is left to merge


@pytest.mark.parametrize("batch_first", [True, False])
@torch.no_grad()
def test_attention_in_layers_is_the_attention(batch_first):
    torch.manual_seed(0)
    whole = nn.MultiheadAttention(12, 3, batch_first=batch_first)
    nn.init.normal_(whole.in_proj_bias)
    x, mask = torch.randn(5, 4, 12), torch.randn(*([5, 5] if not batch_first else [4, 4]))
    for given in (None, mask):
        expected = whole(x, x, x, need_weights=False, attn_mask=given)[0]
        found = LayeredAttention(whole)(x, x, x, need_weights=False, attn_mask=given)
        torch.testing.assert_close(found[0], expected)
        assert found[1] is None
    back = LayeredAttention(whole).whole()
    assert list(back.state_dict()) == list(whole.state_dict())
    torch.testing.assert_close(back(x, x, x)[0], whole(x, x, x)[0])
    with pytest.raises(ValueError, match="one matrix for queries, keys and values"):
        LayeredAttention(nn.MultiheadAttention(12, 3, kdim=5))


def test_dropout_of_lora_is_in_training_alone():
    _, encoder, _ = tuned(VIT, "lora", lora_dropout=0.5)
    randomised(encoder)
    with torch.no_grad():
        torch.testing.assert_close(encoder(IMAGES), encoder(IMAGES))
        encoder.train()
        assert (encoder(IMAGES).global_ - encoder(IMAGES).global_).abs().max() > 1e-3


@pytest.mark.parametrize("mode", ["lora", "shallow_prompts", "deep_prompts"])
def test_the_untuned_state_is_the_plain_network(vit, mode):
    plain, encoder, _ = tuned(vit, mode)
    found = torch.func.functional_call(encoder, untuned_state(encoder), (IMAGES,))
    close(found, plain(IMAGES))


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("timm:resnet10t", "deep_prompts", "sequence of patch tokens for tuning.mode 'deep_prom"),
        ("bundled:mobilenet_v2", "shallow_prompts", "got a MobileNetV2 without"),
        ("timm:test_vit_relpos", "shallow_prompts", "got a VisionTransformerRelPos without"),
        ("timm:xcit_nano_12_p16_224", "deep_prompts", "got a Xcit without"),
        ("timm:resnet10t", "lora", "tuning.lora_targets must be ends of names of layers, such as"),
        ("timm:test_nfnet", "norm", "encoder must have a LayerNorm or BatchNorm or GroupNorm"),
    ],
)
def test_networks_that_a_mode_does_not_fit(name, mode, message):
    encoder = zf.build_encoder(name, image_size=None if "relpos" in name else 32)
    with pytest.raises(ValueError, match=f"^tune_encoder: .*{re.escape(message)}"):
        tune_encoder(encoder, TuningOptions(mode))


def test_targets_that_no_layer_has_are_named():
    with pytest.raises(ValueError, match=r"such as 'mlp\.fc2', got attn\.q, no\.such, which no"):
        tuned(VIT, "lora", lora_targets=["attn.q", "no.such"])


def test_networks_without_patch_tokens_or_a_map_are_refused():
    with pytest.raises(ValueError, match=r"^build_encoder: name must be .* a CrossVit of timm"):
        zf.build_encoder("timm:crossvit_9_240")


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"mode": "lorra"}, ValueError, "got 'lorra' (did you mean 'lora'?)"),
        ({"lora_rank": 0}, ValueError, "lora_rank must be in [1, 4096], got 0"),
        ({"lora_rank": 1.5}, TypeError, "lora_rank must be an integer, got 1.5"),
        ({"lora_alpha": 0}, ValueError, "lora_alpha must be above 0 and finite, got 0.0"),
        ({"lora_dropout": 1.0}, ValueError, "lora_dropout must be from 0 to below 1, got 1.0"),
        ({"lora_targets": []}, ValueError, "lora_targets must be None or a list of names, got []"),
        ({"lora_targets": "qkv"}, ValueError, "lora_targets must be None or a list of names"),
        ({"prompt_tokens": 0}, ValueError, "prompt_tokens must be in [1, 1000], got 0"),
        ({"per_modality": 1}, TypeError, "per_modality must be True or False, got 1"),
        ({"per_modality": True}, ValueError, "got 'full'; shared=False trains two encoders"),
        ({"mode": "frozen", "per_modality": True}, ValueError, "with per_modality=True, got 'fro"),
    ],
)
def test_tuning_options_out_of_range(given, kind, message):
    with pytest.raises(kind, match=f"^TuningOptions: .*{re.escape(message)}"):
        TuningOptions(**given)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        (
            {"tuning": TuningOptions("norm", per_modality=True), "shared": False},
            ValueError,
            "shared must be True with tuning.per_modality, got False",
        ),
        (
            {"tuning": TuningOptions("lora"), "freeze_batch_norm": False},
            ValueError,
            "freeze_batch_norm must be True with tuning.mode 'lora'",
        ),
        ({"tuning": "lora"}, TypeError, "tuning must be TuningOptions, got 'lora'"),
        ({"shared": None}, TypeError, "shared must be True or False, got None"),
    ],
)
def test_encoder_options_that_contradict(given, kind, message):
    with pytest.raises(kind, match=f"^EncoderOptions: {re.escape(message)}"):
        EncoderOptions(**given)
