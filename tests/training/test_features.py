from __future__ import annotations

import numpy as np
import pytest
import torch

from zsbir_fast.training.features import read_feature_pair


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


def test_labels_beyond_int64_do_not_wrap(good, tmp_path):
    labels = np.array([1, 2**64 - 1], np.uint64)
    bad = _save(tmp_path / "bad.npz", embeddings=np.ones((2, 4)), labels=labels)
    with pytest.raises(ValueError, match=r"labels must be below 2\*\*63, got 18446744073709551615"):
        read_feature_pair(good, bad)
