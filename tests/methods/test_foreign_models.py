"""Model folders from strangers: nothing is fetched, memory is bounded, errors are one line."""

from __future__ import annotations

import json
import socket
import struct
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from zsbir_fast.cli.app import main
from zsbir_fast.data.npz_files import read_npz
from zsbir_fast.encoders.build import build_encoder
from zsbir_fast.encoders.mobilenet_v2 import read_uint8_weights
from zsbir_fast.encoders.weight_files import read_weight_file
from zsbir_fast.methods.build import build_model
from zsbir_fast.methods.identity import ModelIdentity
from zsbir_fast.methods.saving import export_model, load_model

CLASSES = ("cat", "dog", "owl")
WITH_TEXT = {"weighting__kind": "text"}
DESCRIBE = "build_model: identity must describe the dmwan model"
ARGUMENTS = {
    "encoder": {"weights": None, "image_size": 32},
    "weighting": {"kind": "pairwise"},
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    identity = ModelIdentity.of("dmwan", ARGUMENTS, CLASSES)
    return export_model(build_model(identity), identity, tmp_path_factory.mktemp("export"))


@pytest.fixture
def folder(exported, tmp_path):
    """A copy whose description may be replaced; the weights are shared."""
    (tmp_path / "model.safetensors").symlink_to(exported / "model.safetensors")
    (tmp_path / "model.json").write_text((exported / "model.json").read_text())
    return tmp_path


@pytest.fixture
def sockets(monkeypatch):
    """Every attempt to look a name up or to connect; each one fails."""
    tried = []

    def refuse(*arguments, **options):
        tried.append(arguments)
        raise OSError("no network in this test")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tried


def _describe(folder, *, drop=(), **changes):
    description = json.loads((folder / "model.json").read_text())
    for key in drop:
        del description[key]
    for key, value in changes.items():
        group, _, name = key.partition("__")
        part = description if key in ("format", "method", "arguments", "classes") else None
        if name:
            description["arguments"][group][name] = value
        else:
            (part or description["arguments"])[key] = value
    (folder / "model.json").write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"encoder__name": "open_clip:hf-hub:somebody/model"}, "that open_clip knows, got 'open_c"),
        ({"encoder__name": "open_clip:local-dir:/tmp"}, "a model that open_clip knows, got"),
        ({"encoder__name": "timm:hf-hub:somebody/model"}, "that timm knows, got 'timm:hf"),
        ({"encoder__name": "timm:hf_hub:somebody/resnet18"}, "must be a model that timm knows"),
        ({"encoder__name": "timm:local-dir:/tmp"}, "must be a model that timm knows"),
        ({"encoder__name": "open_clip:roberta-ViT-B-32"}, "model, got 152 missing"),
        ({**WITH_TEXT, "weighting__text_source": "open_clip:hf-hub:a/b"}, "must hold pair_w"),
        ({**WITH_TEXT, "weighting__text_source": "open_clip:ViT-B-32-quickgelu/openai"},
         "must hold pair_w"),
        ({"encoder__name": "timm:resnet10t"}, "of this dmwan model, got 84 missing"),
        ({"encoder__weights": "pretrained"}, None),
        ({"encoder__weights": "https://example.org/x.pt"}, None),
    ],
)  # fmt: skip
def test_nothing_is_fetched_where_weights_are_stored(folder, sockets, changes, text):
    _describe(folder, **changes)
    if text is None:
        load_model(folder)
    else:
        with pytest.raises(ValueError, match=text) as told:
            load_model(folder)
        assert "\n" not in str(told.value)
    assert sockets == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"encoder__name": "open_clip:ViT-bigG-14"},
            r"ask for more than [\d,]+ MB of memory, and",
        ),
        (
            {"loss__memory": 10**15},
            DESCRIBE,
        ),
        ({"encoder__image_size": 10**6}, "image_size must be at most 2048, got 1000000"),
        ({"encoder__image_size": -1}, "image_size must be at least 1, got -1"),
        ({"encoder__image_size": "big"}, DESCRIBE),
        (
            {"weighting__width": None, "encoder__name": None},
            DESCRIBE,
        ),
        ({"terms__cls": float("nan")}, "must not be negative, got nan"),
        ({"loss__margins": [1.0] * 1000}, DESCRIBE),
        ({"colour": 1}, "method dmwan has no argument 'colour'"),
        ({"text": 1}, "method dmwan has no argument 'text'"),
        (
            {"weighting__beta": {"a": 1}},
            r"argument 'weighting\.beta' of method dmwan must be one of 'uniform', .* got {'a': 1}",
        ),
        (
            {"encoder__tuning": {"mode": {"a": 1}}},
            r"'encoder\.tuning\.mode' must be a plain value or .* got a dict",
        ),
        (
            {"weighting__beta": [[1]]},
            r"'weighting\.beta' must be a plain value or .* got a list",
        ),
        ({"format": 9}, "ModelIdentity: format must be 2, got 9"),
        ({"method": None}, "ModelIdentity: method must be text, got None"),
        (
            {"method": "x"},
            "one of dmwan, cmaan, clusterretri, sbka, finetune, got 'x'",
        ),
        (
            {
                "method": "this:s"
            },  # an import path is a name like any other, and nothing is imported
            "method must be one of dmwan, cmaan, clusterretri, sbka, finetune, got 'this:s'",
        ),
        ({"arguments": [1]}, r"ModelIdentity: arguments must be an object, got \[1\]"),
        ({"classes": "cat"}, "ModelIdentity: classes must be a list of names, got 'cat'"),
        ({"classes": [1]}, "ModelIdentity: classes must be a list of names"),
        ({"classes": []}, "ModelIdentity: classes must be a list of names"),
        ({"classes": ["x"] * 10**5}, "got 1 of another shape"),
    ],
)
def test_descriptions_that_do_not_fit_the_weights(folder, changes, text):
    _describe(folder, **changes)
    with pytest.raises(ValueError, match=text) as told:
        load_model(folder)
    assert "\n" not in str(told.value)
    assert "this" not in sys.modules


def test_a_width_for_a_terabyte_is_refused_before_it_is_allocated(tmp_path):
    identity = ModelIdentity.of("dmwan", {**ARGUMENTS, "weighting": {"kind": "text"}}, CLASSES)
    folder = export_model(build_model(identity), identity, tmp_path)
    load_model(folder)
    _describe(folder, weighting__width=10**9)
    message = (
        r"its arguments ask for more than 1,\d\d\d,\d\d\d MB of memory, and its weights allow \d"
    )
    with pytest.raises(ValueError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "description must be an object, got list"),
        ("null", "description must be an object, got NoneType"),
        ('"model"', "description must be an object, got str"),
        ("{}", "format must be 2, got None"),
        ("", r"whose model\.json is no JSON"),
        ("[" * 100_000, r"whose model\.json is no JSON"),
        ("9" * 5000, r"whose model\.json is no JSON"),
        ("\x00", r"whose model\.json is no JSON"),
        ('{"a": "' + "x" * (17 << 20) + '"}', r"whose model\.json has 17,825,8\d\d bytes"),
    ],
)
def test_descriptions_that_are_none(folder, capsys, text, message):
    (folder / "model.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_model(folder)
    assert main(["eval", "--model", str(folder)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_flipped_bytes_of_the_weights_are_found(exported, tmp_path):
    for name in ("model.json", "model.safetensors"):
        content = bytearray((exported / name).read_bytes())
        content[-9] ^= name.endswith("tensors")
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged: its checksum is not the"):
        load_model(tmp_path)


def test_whole_numbers_in_place_of_weights(exported, tmp_path):
    state = load_file(exported / "model.safetensors")
    state["encoder.network.stem.bias"] = torch.ones(32, dtype=torch.int32)
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "model.json").write_text((exported / "model.json").read_text())
    _describe(tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    del description["sha256"]  # as an older export
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"1 of another type \(encoder\.network\.stem\.bias\)"):
        load_model(tmp_path)


def _header(entries):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".npz"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 8,
        struct.pack("<Q", 2**63) + b"{}",
        _header({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]}}) + b"1234",
        _header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}) + b"1234",
        _header([]),
        b"PK\x03\x04" + b"\x00" * 40,
        b"\x80\x02}q\x00.",
        b"\x93NUMPY\x01\x00v\x00{}",
    ],
    ids=["empty", "zeros", "long header", "absurd", "negative", "list", "zip", "pickle", "npy"],
)
def test_weight_files_of_any_content(tmp_path, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    function = "read_uint8_weights" if suffix == ".npz" else "(read_weight_file|build_encoder)"
    with pytest.raises(ValueError, match=rf"^{function}: (path|weights) must .*{path}") as told:
        build_encoder("bundled:mobilenet_v2", weights=str(path))
    assert "\n" not in str(told.value)
    assert "weights_only" not in str(told.value)


def test_weight_files_hold_tensors(tmp_path):
    torch.save({"a": torch.zeros(1).expand(10**12)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="bytes can hold, got 'a'"):
        read_weight_file(tmp_path / "w.pt")
    np.savez(tmp_path / "w.npz", layers_json=np.frombuffer(b'[{"name": "a"}, 1]', np.uint8))
    with pytest.raises(ValueError, match=r"quantised MobileNetV2, got .* \(KeyError: 'a:w'\)"):
        read_uint8_weights(tmp_path / "w.npz")


def test_arrays_that_claim_more_than_is_there(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    header += b" " * (117 - len(header)) + b"\n"
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    message = (
        r"^read: file must be npz, got .*a\.npy says float64 \[1000000000000\], which is not wh"
    )
    with pytest.raises(ValueError, match=message):
        read_npz(tmp_path / "x.npz", ["a"], expected="read: file must be npz")
    np.savez(tmp_path / "o.npz", a=np.array([{}], object))
    with pytest.raises(ValueError, match="read: file must be npz, got"):
        read_npz(tmp_path / "o.npz", ["a"], expected="read: file must be npz")
