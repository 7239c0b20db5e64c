"""Binary codes: equal to a transcription in NumPy; Hamming distances counted in three ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import zsbir_fast as zf
from zsbir_fast.ranking import hamming, ranker
from zsbir_fast.ranking.codes import ITQ, CodeRanker

WIDTH = 24


def by_hand(sketches, photos, *, bits, learn_on, own_means, rounds, seed):
    """Signs [n, bits] of both sides, and the errors of quantisation, by the paper's equations."""
    sides = [F.normalize(x, dim=1).double().numpy() for x in (sketches, photos)]
    both = np.concatenate(sides)
    means = [x.mean(0) if own_means else both.mean(0) for x in sides]
    centred = [x - mean for x, mean in zip(sides, means, strict=True)]
    learnt = {"both": np.concatenate(centred), "sketches": centred[0], "photos": centred[1]}
    values, vectors = np.linalg.eigh(learnt[learn_on].T @ learnt[learn_on])
    v = learnt[learn_on] @ vectors[:, np.argsort(-values)[:bits]]
    r = np.linalg.svd(np.random.default_rng(seed).standard_normal((bits, bits)))[0]
    errors = []
    for _ in range(rounds):
        b = np.sign(v @ r)
        errors.append(np.linalg.norm(b - v @ r) ** 2)
        s, _, s_hat_t = np.linalg.svd(b.T @ v)
        r = s_hat_t.T @ s.T
    basis = vectors[:, np.argsort(-values)[:bits]]
    return [x @ basis @ r > 0 for x in centred], errors


def unpacked(codes, bits):
    return np.unpackbits(codes.numpy(), axis=1)[:, :bits].astype(bool)


@pytest.fixture
def data(generator):
    centres = torch.randn(5, WIDTH, generator=generator)
    labels = torch.arange(43) % 5, torch.arange(121) % 5
    rows = [centres[x] + torch.randn(len(x), WIDTH, generator=generator) for x in labels]
    return rows[0] + 0.5, rows[1] - 0.5, *labels


@pytest.mark.parametrize("learn_on", ["both", "sketches", "photos"])
@pytest.mark.parametrize("own_means", [False, True])
@pytest.mark.parametrize("bits", [5, WIDTH])
def test_codes_are_those_of_the_paper(data, learn_on, own_means, bits):
    sketches, photos, *_ = data
    options = {"bits": bits, "learn_on": learn_on, "own_means": own_means}
    expected, errors = by_hand(sketches, photos, **options, rounds=7, seed=3)
    assert (np.diff(errors) <= 1e-9).all()  # each round lowers the error of quantisation
    codes = ITQ.fit(sketches, photos, **options, rounds=7, seed=3)
    for rows, modality, signs in (
        (sketches, "sketch", expected[0]),
        (photos, "photo", expected[1]),
    ):
        assert (unpacked(codes.encode(rows, modality), bits) == signs).mean() > 0.999
    eye = codes.rotation.T @ codes.rotation
    torch.testing.assert_close(eye, torch.eye(bits), rtol=0, atol=1e-5)
    assert torch.equal(codes.sketch_mean, codes.photo_mean) is not own_means
    own, row = codes.encode(photos, "photo"), codes.encode(photos[7:8], "photo")
    assert torch.equal(own[7:8], row)


def test_the_published_routine(data):
    sketches, photos, *_ = data
    codes = ITQ.published(sketches, photos, seed=1)
    expected, _ = by_hand(
        sketches, photos, bits=WIDTH, learn_on="sketches", own_means=True, rounds=50, seed=1
    )
    assert (unpacked(codes.encode(photos, "photo"), WIDTH) == expected[1]).mean() > 0.99
    assert codes.name == (
        f"{WIDTH}-bit ITQ codes (learnt on sketches of the test, transductive; "
        "each modality's own mean)"
    )


def test_names_and_ties_are_told(data):
    codes = ITQ.fit(*data[:2], bits=16)
    assert codes.name == "16-bit ITQ codes (learnt on training features; one mean)"
    assert (
        "learnt on features of the test, transductive"
        in ITQ.fit(*data[:2], transductive=True, bits=9).name
    )
    by = zf.CodeRanker(codes)
    assert by.name == f"Hamming distance of {codes.name}, photos at equal distances tie"
    assert repr(by) == f"CodeRanker({codes.name})"
    result = by.evaluate(*data, ks=(5,))
    assert result.map_worst < result.map < result.map_best
    assert "ties expected" in result.definition
    with pytest.raises(TypeError, match="CodeRanker: codes must be an ITQ, got int"):
        CodeRanker(64)


@pytest.mark.parametrize("bits", [1, 8, 13, 24])
def test_ranking_is_by_the_hamming_distance(data, bits, monkeypatch):
    monkeypatch.setattr(ranker, "_BLOCK_BYTES", 4 * 121 * 7)
    sketches, photos, *_ = data
    codes = ITQ.fit(sketches, photos, bits=bits)
    q, g = (
        unpacked(codes.encode(rows, modality), bits)
        for rows, modality in ((sketches, "sketch"), (photos, "photo"))
    )
    expected = (q[:, None] != g[None]).sum(2)
    by = CodeRanker(codes)
    assert (by.scorer(photos)(sketches).numpy() == expected).all()
    found = by.search(sketches, photos, 9)
    assert (found.scores.numpy() == np.sort(expected, axis=1)[:, :9]).all()
    assert by.search(sketches[:0], photos, 9).rows.shape == (0, 9)
    result = by.evaluate(*data, ks=(5,))
    whole = zf.evaluate_ranking(
        torch.from_numpy(expected), *data[2:], larger_is_closer=False, ks=(5,)
    )
    assert torch.equal(result.columns, whole.columns)


@pytest.mark.parametrize("width", [1, 8, 11, 64])
def test_bits_are_counted_alike_in_every_way(width):
    rows = np.random.default_rng(0).integers(0, 256, (31, width), dtype=np.uint8)
    rows[0], rows[1] = 0, 255
    codes = torch.from_numpy(rows)
    bits = np.unpackbits(rows, axis=1)
    expected = (bits[:, None] != bits[None]).sum(2)
    assert (zf.hamming_distances(codes, codes).numpy() == expected).all()
    assert (hamming._by_products(codes, codes).numpy() == expected).all()
    words = hamming._words(codes)
    assert (sum(hamming._by_table(w).astype(int) for w in words) == bits.sum(1)).all()


def test_files(data, tmp_path):
    codes = ITQ.fit(*data[:2], bits=10, own_means=True, learn_on="photos", transductive=True)
    codes.save(tmp_path / "codes.safetensors")
    again = ITQ.load(tmp_path / "codes.safetensors")
    assert again.name == codes.name
    assert torch.equal(again.encode(data[1], "photo"), codes.encode(data[1], "photo"))
    assert torch.equal(again.encode(data[0], "sketch"), codes.encode(data[0], "sketch"))
    with pytest.raises(FileNotFoundError, match=r"ITQ\.load: no such file of codes"):
        ITQ.load(tmp_path / "none")
    content = (tmp_path / "codes.safetensors").read_bytes()
    (tmp_path / "cut").write_bytes(content[:-5])
    zf.NeighbourGraph.of(data[1], 3).save(tmp_path / "graph")
    for name in ("cut", "graph"):
        with pytest.raises(ValueError, match=r"ITQ\.load: path must be a file of codes .* got .*"):
            ITQ.load(tmp_path / name)


def test_bad_input_has_one_clear_error(data):
    sketches, photos, *_ = data
    nan = photos.clone()
    nan[4, 0] = float("nan")
    cases = [
        ((sketches, photos), {"bits": 25}, r"bits must be in \[1, 24\], got 25"),
        ((sketches, photos[:, 1:]), {}, r"photos must be \[m, 24\] like sketches, got \[121, 23\]"),
        ((sketches, nan), {}, "photos must be finite, got nan in row 4"),
        ((sketches[0], photos), {}, r"sketches must be \[n, D\], got shape \[24\]"),
        ((sketches[:0], photos), {}, "sketches must not be empty"),
        ((sketches[:1], photos), {"learn_on": "sketches", "bits": 8}, "sketches must have at leas"),
        ((sketches, photos), {"learn_on": "all"}, "learn_on must be one of both, sketches, photos"),
        ((sketches, photos), {"rounds": 0, "bits": 8}, "rounds must be at least 1, got 0"),
    ]
    for rows, options, text in cases:
        with pytest.raises(ValueError, match=f"ITQ.fit: {text}"):
            ITQ.fit(*rows, **options)
    codes = ITQ.fit(sketches, photos, bits=8)
    with pytest.raises(ValueError, match=r"ITQ.encode: features must be finite, got nan in row 4"):
        CodeRanker(codes).scorer(photos)(nan)
    with pytest.raises(ValueError, match=r"ITQ.encode: features must be \[n, 24\], got \[43, 23\]"):
        codes.encode(sketches[:, 1:], "sketch")
    with pytest.raises(ValueError, match=r"ITQ.encode: modality must be one of sketch, photo"):
        codes.encode(sketches, "image")
    with pytest.raises(TypeError, match=r"hamming_distances: queries must be uint8, got torch.fl"):
        zf.hamming_distances(sketches, photos)
    packed = codes.encode(photos, "photo")
    with pytest.raises(ValueError, match=r"queries must be \[n, 1\], got \[121, 2\]"):
        zf.hamming_distances(packed.repeat(1, 2), packed)
