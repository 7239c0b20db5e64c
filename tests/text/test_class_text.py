from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from zsbir_fast.data import bundled
from zsbir_fast.data.splits import SPLIT_NAMES, load_split
from zsbir_fast.text.class_text import ClassText


def glove(name):
    with np.load(bundled.path("class_vectors") / "glove6b300_sketchy125.npz") as stored:
        row = stored["names"].tolist().index(name)
        vector = torch.from_numpy(stored["vectors"][row].astype(np.float32))
    return torch.nn.functional.normalize(vector, dim=0)


@pytest.mark.parametrize("name", SPLIT_NAMES)
def test_seen_classes_of_every_split_have_text(name):
    seen = load_split(name).seen
    text = ClassText(seen)
    count, length, width = text.tokens.shape
    assert (count, width) == (len(seen), 300)
    assert text.mask.shape == (count, length)
    assert text.tokens.dtype == text.global_.dtype == torch.float32
    assert text.mask.dtype == torch.bool
    assert text.mask[:, 0].all()
    assert text.mask.any(0).all()
    assert bool((text.mask[:, 1:] <= text.mask[:, :-1]).all())  # left-aligned
    norms = text.tokens.norm(dim=2)
    torch.testing.assert_close(norms, text.mask.float(), atol=1e-5, rtol=0)
    torch.testing.assert_close(text.tokens[:, 0], text.global_)
    assert [len(words) for words in text.words] == text.mask.sum(1).tolist()
    similarity = text.global_ @ text.global_.T - torch.eye(count)
    assert float(similarity.max()) < 0.99  # no two classes look alike


def test_the_first_token_is_the_class_and_the_others_are_in_its_description():
    text = ClassText(
        ["cat", "dog"],
        descriptions={"cat": ("Cats chase a MOUSE near the tree.", "Mice? No: one mouse.")},
    )
    assert text.words == [["cat", "mouse", "tree"], ["dog"]]
    torch.testing.assert_close(text.tokens[0], torch.stack([glove(w) for w in text.words[0]]))
    assert text.mask.tolist() == [[True, True, True], [True, False, False]]
    assert text.origins == ["vector", "vector"]
    shown = "ClassText(2 classes with up to 3 tokens of 300 numbers: 'cat', 'dog')"
    assert repr(text) == shown


def test_verbs_and_parts_of_words_are_no_tokens():
    text = ClassText(["cat"], descriptions={"cat": ("I saw a catfish present in a treetop.",)})
    assert text.words == [["cat"]]


def test_the_number_of_tokens_is_limited():
    described = {"cat": ("A tree, a tree, a mouse, an owl.",)}
    assert ClassText(["cat"], descriptions=described, max_tokens=2).words == [["cat", "tree"]]
    assert ClassText(["cat"], descriptions=described, max_tokens=1).tokens.shape == (1, 1, 300)


def test_names_without_a_vector_fall_back_in_the_stated_order():
    described = {"yeti": ("It hides behind a tree.",), "cat_tree_x": ("A mouse.",)}
    text = ClassText(["cat_tree_x", "yeti", "zzz"], descriptions=described)
    assert text.origins == ["words", "description", "hash"]
    both = torch.nn.functional.normalize(glove("cat") + glove("tree"), dim=0)
    torch.testing.assert_close(text.global_[0], both)
    torch.testing.assert_close(text.global_[1], glove("tree"))
    assert text.words == [["cat tree x", "mouse"], ["yeti"], ["zzz"]]
    again = ClassText(["ZZZ", "zzy"], descriptions={})
    torch.testing.assert_close(again.global_[0], text.global_[2])
    assert float(again.global_[0] @ again.global_[1]) < 0.3


def test_spelling_does_not_matter():
    a, b = ClassText(["alarm_clock"]), ClassText(["Alarm Clock"])
    torch.testing.assert_close(a.tokens, b.tokens)
    assert a.words == b.words


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    import open_clip

    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {
            "context_length": 9, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2,
        },
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("models")
    (folder / "zsbir-tiny-text.json").write_text(json.dumps(config))
    custom = {**config, "custom_text": True}
    (folder / "zsbir-tiny-custom.json").write_text(json.dumps(custom))
    open_clip.add_model_config(folder)
    return folder


@pytest.mark.parametrize("name", ["zsbir-tiny-text", "zsbir-tiny-custom"])
def test_open_clip_tokens_are_the_words_of_the_prompt(tiny_clip, name):
    import open_clip

    torch.manual_seed(0)
    network = open_clip.create_model(name).eval()
    torch.save(network.state_dict(), tiny_clip / f"{name}.pt")
    text = ClassText(
        ["cat", "hot-air_balloon"],
        source=f"open_clip:{name}",
        weights=str(tiny_clip / f"{name}.pt"),
        prompt="a {}",
    )
    assert text.words == [["a", "cat"], ["a", "hot", "-", "air", "balloon"]]
    assert text.tokens.shape == (2, 5, 24)
    assert text.mask.sum(1).tolist() == [2, 5]
    assert not text.tokens[0, 2:].any()
    assert text.origins == ["open_clip"] * 2
    with torch.no_grad():
        ids = open_clip.get_tokenizer(name)(["a cat", "a hot-air balloon"])
        torch.testing.assert_close(text.global_, network.encode_text(ids))
        # Attention is causal: the token "cat" is the end of the text that stops there.
        tower = getattr(network, "text", network)
        cut = ids[:1].clone()
        cut[0, 3:] = 0
        hidden = []
        tower.ln_final.register_forward_hook(lambda _m, _i, out: hidden.append(out))
        network.encode_text(cut)
        torch.testing.assert_close(text.tokens[0, 1], hidden[0][0, 2] @ tower.text_projection)
    assert not text.tokens.is_inference()
    assert not text.tokens.requires_grad


def test_sentences_beyond_the_context_length_are_refused(tiny_clip):
    message = r"every sentence must have at most 7 tokens for open_clip:zsbir-tiny-text, got 8 in "
    with pytest.raises(ValueError, match=f"^ClassText: {message}'a b c d e f g cat'"):
        ClassText(["cat"], source="open_clip:zsbir-tiny-text", prompt="a b c d e f g {}")
    text = ClassText(["cat"], source="open_clip:zsbir-tiny-text", prompt="a b c d e f {}")
    assert text.words == [[*"abcdef", "cat"]]


def test_open_clip_takes_several_sentences_of_a_class(tiny_clip):
    import open_clip

    torch.manual_seed(1)
    network = open_clip.create_model("zsbir-tiny-text").eval()
    torch.save(network.state_dict(), tiny_clip / "sentences.pt")
    options = {
        "source": "open_clip:zsbir-tiny-text",
        "weights": str(tiny_clip / "sentences.pt"),
        "descriptions": {"Cat": ("it has fur", " ", "four legs"), "bus": ("red paint",)},
    }
    text = ClassText(["cat", "bus"], **options)
    assert text.words == [["it", "has", "fur", "four", "legs"], ["red", "paint"]]
    assert text.mask.sum(1).tolist() == [5, 2]
    assert not text.tokens[1, 2:].any()
    with torch.no_grad():
        ids = open_clip.get_tokenizer("zsbir-tiny-text")(["it has fur", "four legs", "red paint"])
        features = network.encode_text(ids).numpy()
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    mean = unit[:2].mean(0)
    expected = np.stack([mean / np.linalg.norm(mean), unit[2]])
    np.testing.assert_allclose(text.global_, expected, rtol=1e-5, atol=1e-6)
    # A token is the same as where its sentence is alone.
    alone = ClassText(["x"], **{**options, "descriptions": {"x": ("four legs",)}})
    torch.testing.assert_close(text.tokens[0, 3:5], alone.tokens[0])
    short = ClassText(["cat", "bus"], **options, max_tokens=4, whole="name", prompt="a {}")
    assert short.words == [["it", "has", "fur", "four"], ["red", "paint"]]
    torch.testing.assert_close(short.tokens, text.tokens[:, :4])
    by_name = ClassText(["cat", "bus"], **{**options, "descriptions": None}, prompt="a {}")
    torch.testing.assert_close(short.global_, by_name.global_)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"source": "bert"},
            r"source must be 'glove', 'glove:sentences' or 'open_clip:<model>', got",
        ),
        ({"source": "glove:sentence"}, r"\(did you mean 'glove:sentences'\?\)"),
        (
            {"source": "glove", "prompts": "parts"},
            "prompts must be None where source 'glove' takes",
        ),
        (
            {"source": "glove", "whole": "name"},
            "whole must be None where source 'glove' takes no s",
        ),
        (
            {"source": "open_clip:ViT-B-32", "whole": "name"},
            "whole must be None where source 'open",
        ),
        (
            {"source": "glove:sentences", "whole": "names"},
            "whole must be one of name, sentences, g",
        ),
        ({"source": "glove:sentences", "prompts": "part"}, "prompts must be one of .*mean 'part"),
        (
            {"source": "glove:sentences", "prompts": "parts", "descriptions": {"cat": ("A.",)}},
            "prompts must be None where descriptions are given, got 'parts'",
        ),
        ({"source": "open_clip"}, "got 'open_clip'"),
        ({"source": "open_clip:nothing"}, "a model that open_clip knows, got 'open_clip:nothing'"),
        ({"source": "open_clip:ViT-B-32/x"}, "file or one of openai, .* for open_clip:ViT-B-32, g"),
        (
            {"source": "open_clip:ViT-B-32/openai"},
            "source must be open_clip:ViT-B-32-quickgelu for the weights 'openai', whose activ",
        ),
        ({"source": "open_clip:ViT-B-32/openai", "weights": "x"}, "weights must be None where so"),
        ({"source": "open_clip:ViT-B-32", "prompt": "a"}, "template must have {} exactly once"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
    ],
)
def test_unknown_sources_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ClassText(["cat"], **options)


def test_no_classes_are_refused():
    with pytest.raises(ValueError, match="ClassText: classes must be at least one, got none"):
        ClassText([])


def test_weights_that_do_not_load_are_named(tiny_clip):
    torch.save({"x": torch.zeros(1)}, tiny_clip / "other.pt")
    with pytest.raises(RuntimeError, match=r"weights .*other\.pt' of open_clip:zsbir-tiny-text c"):
        ClassText(["cat"], source="open_clip:zsbir-tiny-text", weights=str(tiny_clip / "other.pt"))


def test_weights_with_code_are_refused_without_advice_to_run_it(tiny_clip):
    torch.save({"x": print}, tiny_clip / "code.pt")
    with pytest.raises(RuntimeError, match="holds objects that would run code") as told:
        ClassText(["cat"], source="open_clip:zsbir-tiny-text", weights=str(tiny_clip / "code.pt"))
    assert "weights_only" not in str(told.value)


def test_given_features():
    tokens = torch.arange(12.0).reshape(2, 3, 2).double()
    mask = torch.tensor([[True, True, False], [True, False, False]])
    text = ClassText.from_tensors(["a", "b"], tokens, mask=mask)
    assert text.tokens.dtype == torch.float32
    assert text.tokens[0].tolist() == [[0, 1], [2, 3], [0, 0]]
    assert text.global_.tolist() == [[1, 2], [6, 7]]
    assert text.words == [["a", "a"], ["b"]]
    assert (text.classes, text.origins) == (("a", "b"), ["given", "given"])
    whole = ClassText.from_tensors(
        ["a"], tokens[:1], global_=torch.ones(1, 2), words=[["x", "y", "z"]]
    )
    assert whole.mask.all()
    assert whole.global_.tolist() == [[1, 1]]
    assert whole.words == [["x", "y", "z"]]


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        (torch.zeros(2, 3), {}, r"tokens must be float \[C, L, D\] for 2 classes, got torch.float"),
        (torch.zeros(1, 3, 4), {}, r"for 2 classes, got torch.float32 \[1, 3, 4\]"),
        (torch.zeros(2, 3, 4).int(), {}, "got torch.int32"),
        (torch.zeros(2, 0, 4), {}, r"at least one token and one column, got \[2, 0, 4\]"),
        (torch.zeros(2, 3, 0), {}, r"at least one token and one column, got \[2, 3, 0\]"),
        (torch.tensor([[[1.0]], [[torch.nan]]]), {}, "tokens must be finite .* others for 'b'"),
        (torch.full((2, 1, 1), 1e300, dtype=torch.float64), {}, "tokens must be finite in float32"),
        (
            torch.zeros(2, 3, 4),
            {"global_": torch.tensor([[torch.inf] * 4, [0.0] * 4])},
            "global_ must be finite .* for 'a'",
        ),
        (torch.zeros(2, 3, 4), {"mask": torch.ones(2, 3)}, r"mask must be bool \[2, 3\], got"),
        (torch.zeros(2, 3, 4), {"global_": torch.ones(2, 3)}, r"global_ must be \[2, 4\], got"),
        (torch.zeros(2, 3, 4), {"words": [["a"], ["b"]]}, r"one per token, \[3, 3\], got \[1, 1\]"),
        (
            torch.zeros(2, 3, 4),
            {"mask": torch.tensor([[True] * 3, [False] * 3])},
            "every class must have a token where global_ is None",
        ),
    ],
)
def test_given_features_that_do_not_fit_are_refused(tokens, options, message):
    with pytest.raises(ValueError, match=f"ClassText.from_tensors: .*{message}"):
        ClassText.from_tensors(["a", "b"], tokens, **options)


def test_names_that_differ_in_signs_have_vectors_of_their_own():
    names = [
        "c",
        "c++",
        "c#",
        "\u092c\u0947\u0932",
        "\u092c\u093e\u0932",
        "\U0001f431",
        "\U0001f436",
    ]
    text = ClassText(names, descriptions={})
    assert text.origins == ["hash"] * len(names)
    similarity = text.global_ @ text.global_.T - torch.eye(len(names))
    assert float(similarity.abs().max()) < 0.3


def test_composed_and_decomposed_names_are_one_class():
    composed, decomposed = "pi\u00f1ata", "pin\u0303ata"
    described = {decomposed: ("A dog.",)}
    assert ClassText([composed], descriptions=described).words[0][1:] == ["dog"]
    with pytest.raises(ValueError, match=r"ClassText: .* 'pi\\xf1ata' and 'pin\\u0303ata'"):
        ClassText([composed, decomposed])
    with pytest.raises(ValueError, match=r"from_tensors: classes must .* got 'Cat' and 'cat'"):
        ClassText.from_tensors(["Cat", "cat"], torch.ones(2, 1, 3))
    with pytest.raises(ValueError, match=r"classes of descriptions must .* got 'a b' and 'a_b'"):
        ClassText(["x"], descriptions={"a b": (), "a_b": ()})


def test_classes_that_text_cannot_tell_apart_are_named():
    with pytest.warns(UserWarning, match=r"2 classes have one and .* same: 'cat \(x\)', 'cat \(y"):
        ClassText(["cat (x)", "dog", "cat (y)"], descriptions={})


def test_what_is_no_tensor_is_named():
    with pytest.raises(TypeError, match="tokens must be a tensor, got ndarray"):
        ClassText.from_tensors(["a"], np.zeros((1, 2, 3)))
    with pytest.raises(TypeError, match="mask must be a tensor, got list"):
        ClassText.from_tensors(["a"], torch.zeros(1, 2, 3), mask=[[True, False]])


def test_padding_of_given_features_may_be_anything():
    tokens = torch.tensor([[[1.0], [torch.nan]]])
    text = ClassText.from_tensors(["a"], tokens, mask=torch.tensor([[True, False]]))
    assert text.tokens.tolist() == [[[1], [0]]]
    assert text.global_.tolist() == [[1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": None}, "classes must be a list of names, got NoneType"),
        ({"classes": "cat"}, "classes must be a list of names, got the text 'cat'"),
        ({"classes": ["cat", None]}, "classes must be text, got None"),
        ({"classes": b"cat"}, "classes must be text, got 99"),
        ({"source": None}, "source must be text, got None"),
        ({"source": ["glove"]}, r"source must be text, got \['glove'\]"),
        ({"weights": 3}, "weights must be text, got 3"),
        ({"prompt": 3}, "prompt must be text, got 3"),
        ({"max_tokens": "x"}, "max_tokens must be an integer, got 'x'"),
        ({"max_tokens": 2.5}, "max_tokens must be an integer, got 2.5"),
        ({"max_tokens": True}, "max_tokens must be an integer, got True"),
        ({"descriptions": ["cat"]}, r"descriptions must map .* got \['cat'\]"),
        ({"descriptions": {"cat": "It purrs."}}, "descriptions must map .* got 'It purrs.' for"),
    ],
)
def test_arguments_of_other_types_are_named(options, message):
    with pytest.raises(TypeError, match=f"^ClassText: {message}"):
        ClassText(**{"classes": ["cat"], **options})


def test_numpy_numbers_are_whole_numbers():
    assert ClassText(["cat"], max_tokens=np.int64(1)).tokens.shape == (1, 1, 300)
