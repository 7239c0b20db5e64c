from __future__ import annotations

import contextlib
import warnings
import zipfile

import numpy as np
import pytest
import torch

from zsbir_fast.retrieval.feature_files import read_feature_pair


def _save(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.fixture
def good(tmp_path):
    return _save(tmp_path / "good.npz", embeddings=np.eye(3, 4, dtype=np.float32), labels=[5, 2, 5])


def test_whole_numbers(good, tmp_path):
    other = _save(tmp_path / "g.npz", embeddings=np.ones((2, 4)), labels=np.array([2, 9], np.uint8))
    pair = read_feature_pair(good, other)
    assert pair.query_labels.tolist() == [5, 2, 5]
    assert pair.gallery_labels.tolist() == [2, 9]
    assert pair.names == {2: "2", 5: "5", 9: "9"}
    assert pair.queries.dtype == torch.float32


def test_text_labels_are_numbered_alike_in_both_files(tmp_path):
    q = _save(tmp_path / "q.npz", embeddings=np.ones((2, 4)), labels=["dog", "cat"])
    g = _save(tmp_path / "g.npz", embeddings=np.ones((3, 4)), labels=["cat", "zebra", "dog"])
    pair = read_feature_pair(q, g)
    assert pair.query_labels.tolist() == [1, 0]
    assert pair.gallery_labels.tolist() == [0, 2, 1]
    assert pair.names == {0: "cat", 1: "dog", 2: "zebra"}


def test_missing_key(good, tmp_path):
    bad = _save(tmp_path / "bad.npz", features=np.ones((2, 4)), labels=[1, 2])
    with pytest.raises(ValueError, match=r"'embeddings' \[n, D\] .*has features, labels and lacks"):
        read_feature_pair(bad, good)


def test_other_width(good, tmp_path):
    bad = _save(tmp_path / "bad.npz", embeddings=np.ones((2, 5)), labels=[1, 2])
    with pytest.raises(ValueError, match=r"must have the same width D, got D=4 in .* and D=5 in"):
        read_feature_pair(good, bad)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"embeddings": np.ones(3), "labels": [1]}, r"embeddings must be floating .*\[3\]"),
        ({"embeddings": np.ones((2, 4), int), "labels": [1, 2]}, "must be floating .*int64"),
        ({"embeddings": np.ones((2, 4)), "labels": [1]}, r"text \[2\], got int64 \[1\]"),
        ({"embeddings": np.ones((1, 4)), "labels": [0.5]}, "labels must be whole numbers or text"),
        ({"embeddings": np.ones((1, 4)), "labels": ["cat"]}, "text in both files or numbers in"),
    ],
)
def test_bad_arrays(good, tmp_path, arrays, text):
    bad = _save(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=text):
        read_feature_pair(bad, good)


def test_objects_are_not_unpickled(good, tmp_path):
    bad = _save(tmp_path / "b.npz", embeddings=np.ones((1, 4)), labels=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_feature_pair(bad, good)


def test_other_files(good, tmp_path):
    text = tmp_path / "x.npz"
    text.write_text("no archive")
    with pytest.raises(ValueError, match=r"file must be an \.npz with the arrays"):
        read_feature_pair(text, good)
    np.save(tmp_path / "single.npy", np.ones((2, 2)))
    with pytest.raises(ValueError, match="it holds a single array"):
        read_feature_pair(tmp_path / "single.npy", good)
    with pytest.raises(FileNotFoundError, match=r"file must exist, got .*absent"):
        read_feature_pair(tmp_path / "absent.npz", good)


@pytest.mark.parametrize("dtype", ["int8", "int16", "bool", ">f4", "longdouble"])
def test_types_that_torch_does_not_take_as_they_are(good, tmp_path, dtype):
    rows = np.array([[0, 1, 0, 1], [1, 0, 0, 0]]).astype(dtype)
    pair = read_feature_pair(_save(tmp_path / "x.npz", embeddings=rows, labels=[1, 2]), good)
    assert pair.queries.tolist() == rows.astype(float).tolist()
    assert pair.queries.dtype == (torch.float64 if dtype == "longdouble" else torch.float32)


def test_packed_bits_are_not_taken_for_numbers(good, tmp_path):
    bad = _save(tmp_path / "x.npz", embeddings=np.ones((1, 4), np.uint8), labels=[1])
    with pytest.raises(ValueError, match=r"int8 or int16, got uint8 \[1, 4\] .*unpackbits"):
        read_feature_pair(bad, good)


def test_labels_beyond_int64_do_not_wrap(tmp_path):
    big = np.array([2**63 + 5, 7, 2**63 + 6], np.uint64)
    q = _save(tmp_path / "q.npz", embeddings=np.ones((3, 4)), labels=big)
    g = _save(tmp_path / "g.npz", embeddings=np.ones((2, 4)), labels=np.array([7, -1]))
    pair = read_feature_pair(q, g)
    assert pair.query_labels.tolist() == [2, 1, 3]
    assert pair.gallery_labels.tolist() == [1, 0]
    assert pair.names == {0: "-1", 1: "7", 2: str(2**63 + 5), 3: str(2**63 + 6)}
    near = _save(tmp_path / "n.npz", embeddings=np.ones((2, 4)), labels=[2**53, 2**53 + 1])
    small = _save(tmp_path / "s.npz", embeddings=np.ones((1, 4)), labels=np.array([1], np.uint64))
    assert read_feature_pair(near, small).query_labels.tolist() == [2**53, 2**53 + 1]


def test_text_labels_are_class_names(tmp_path):
    names = ["hot dog", "pi\u00f1ata", "c++"]
    q = _save(tmp_path / "q.npz", embeddings=np.ones((3, 4)), labels=names)
    g = _save(
        tmp_path / "g.npz", embeddings=np.ones((3, 4)), labels=["Hot_Dog", "pin\u0303ata", "c#"]
    )
    pair = read_feature_pair(q, g)
    assert pair.names == {0: "c#", 1: "c++", 2: "hot dog", 3: "pi\u00f1ata"}
    assert pair.query_labels.tolist() == [2, 3, 1]
    assert pair.gallery_labels.tolist() == [2, 3, 0]
    two = _save(tmp_path / "two.npz", embeddings=np.ones((2, 4)), labels=["a b", "a-b"])
    with pytest.raises(ValueError, match=r"labels in .*two\.npz must differ .* got 'a b' and 'a-b"):
        read_feature_pair(q, two)


def _absurd_header(path, shape):
    with zipfile.ZipFile(path, "w") as archive:
        for name, claimed in (("embeddings", shape), ("labels", "(2,)")):
            head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {claimed}, }}".encode()
            head += b" " * (117 - len(head)) + b"\n"
            raw = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(16)
            archive.writestr(f"{name}.npy", raw)


@pytest.mark.parametrize("shape", ["(1000000000, 1000000000)", "(-1, 4)", "(9, 9)", "__import__"])
def test_absurd_headers_are_one_clear_line(good, tmp_path, shape):
    _absurd_header(tmp_path / "bad.npz", shape)
    with pytest.raises(ValueError, match=r"file must be an \.npz .*bad\.npz: ") as error:
        read_feature_pair(tmp_path / "bad.npz", good)
    assert "\n" not in str(error.value)


def test_empty_files(good, tmp_path):
    (tmp_path / "empty.npz").touch()
    np.savez(tmp_path / "nothing.npz")
    for name, text in (("empty", "an empty file"), ("nothing", "it has no array and lacks emb")):
        with pytest.raises(ValueError, match=text):
            read_feature_pair(tmp_path / f"{name}.npz", good)
    for shape in ((0, 4), (2, 0)):
        labels = np.zeros(shape[0], int)
        bad = _save(tmp_path / "bad.npz", embeddings=np.ones(shape), labels=labels)
        with pytest.raises(
            ValueError, match="embeddings must have a row and a column, got float64"
        ):
            read_feature_pair(good, bad)


def test_damaged_files_are_one_clear_error(good, tmp_path):
    raw = good.read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "bad.npz"
    for _ in range(150):
        damaged = bytearray(raw)
        for place in rng.integers(0, len(raw), rng.integers(1, 6)):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged[: rng.integers(1, len(raw) + 1)])
        with contextlib.suppress(ValueError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read_feature_pair(path, good)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"PK\x03\x04" + b"\x00" * 99, b"PK\x05\x06" + b"\x00" * 18]
)
def test_files_of_any_content(good, tmp_path, content):
    path = tmp_path / "any.npz"
    path.write_bytes(content)
    message = r"^read_feature_pair: file must be an \.npz with the arrays .*any\.npz: "
    with pytest.raises(ValueError, match=message) as told:
        read_feature_pair(good, path)
    assert "\n" not in str(told.value)


def test_every_damaged_byte_gives_one_clear_error_or_the_same_arrays(good, tmp_path):
    path, content = tmp_path / "bad.npz", good.read_bytes()
    whole = read_feature_pair(good, good)
    for place in range(0, len(content), 3):
        changed = bytearray(content)
        changed[place] ^= 0x41
        path.write_bytes(changed)
        try:
            pair = read_feature_pair(path, path)
        except ValueError as error:
            message = str(error)
        else:
            message = "read_feature_pair: the same"
            assert torch.equal(pair.queries, whole.queries)
            assert torch.equal(pair.query_labels, whole.query_labels)
        assert message.startswith("read_feature_pair: ")
        assert "\n" not in message
