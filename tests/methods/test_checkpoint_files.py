"""Checkpoints that are damaged, empty or of strangers are refused in one line."""

from __future__ import annotations

import io
import random
import zipfile

import pytest
import torch

from zsbir_fast.methods.checkpoint_files import read_checkpoint, write_checkpoint

ANY = {"zsbir": {"method": "dmwan"}, "state_dict": {"w": torch.arange(3000.0)}}
NOT_ONE = "read_checkpoint: path must be a checkpoint written by zsbir, got"


@pytest.fixture
def written(tmp_path):
    write_checkpoint(tmp_path / "last.ckpt", ANY)
    return tmp_path / "last.ckpt"


def test_a_checkpoint_is_an_archive_that_torch_reads(written):
    assert torch.equal(torch.load(written, weights_only=True)["state_dict"]["w"], torch.arange(3e3))
    assert zipfile.ZipFile(written).testzip() is None
    assert read_checkpoint(written)["zsbir"] == {"method": "dmwan"}


def test_any_flipped_bit_is_found(written):
    content = written.read_bytes()
    places = [*range(0, len(content), 97), *range(len(content) - 100, len(content))]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << random.Random(place).randrange(8)
        written.write_bytes(changed)
        with pytest.raises(ValueError, match=NOT_ONE) as told:
            read_checkpoint(written)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("size", [0, 1, 100, -1, -64, -77, -79, -2000])
def test_a_cut_off_file_is_refused(written, size):
    content = written.read_bytes()
    written.write_bytes(content[:size])
    with pytest.raises(ValueError, match=NOT_ONE) as told:
        read_checkpoint(written)
    assert ("it is empty" in str(told.value)) == (size == 0)


def test_a_file_saved_again_by_torch_is_checked_by_the_sums_of_its_archive(written):
    torch.save(ANY, written)
    assert read_checkpoint(written)["zsbir"] == {"method": "dmwan"}
    content = bytearray(written.read_bytes())
    content[len(content) // 2] ^= 4
    written.write_bytes(content)
    with pytest.raises(ValueError, match=r"it is damaged: the checksum of .*data/0 differs"):
        read_checkpoint(written)


class _Code:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize("content", [{**ANY, "more": _Code()}, _Code(), {"zsbir": print}])
def test_code_is_refused_without_advice_to_run_it(written, content):
    anything = io.BytesIO()
    torch.save(content, anything)
    written.write_bytes(anything.getvalue())
    with pytest.raises(ValueError, match="holds objects that would run code") as told:
        read_checkpoint(written)
    assert "weights_only" not in str(told.value)
    assert "\n" not in str(told.value)


def test_a_compressed_archive_is_refused(written):
    packed = written.with_name("packed.ckpt")
    with zipfile.ZipFile(written) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ValueError, match=r"got .*packed\.ckpt \(it is compressed\)"):
        read_checkpoint(packed)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([1, 2], "does not say which model it belongs to"),
        ({"zsbir": []}, "does not say which model it belongs to"),
        ({"zsbir": {}}, "must hold a dict of tensors, got a NoneType"),
        ({"zsbir": {}, "state_dict": {"w": 1}}, "a dict of tensors, got 'w': int"),
        (
            {"zsbir": {}, "state_dict": {"w": torch.zeros(1).expand(10**12)}},
            r"of tensors that its [\d,]+ bytes can hold, got 'w' \[1000000000000\]",
        ),
        ({"zsbir": {}, "state_dict": {"w": torch.zeros(9, device="meta")}}, "bytes can hold"),
        ({"zsbir": {}, "state_dict": {"w": torch.eye(2).to_sparse()}}, "it holds sparse tensors"),
    ],
)
def test_other_contents(written, content, text):
    torch.save(content, written)
    with pytest.raises(ValueError, match=text):
        read_checkpoint(written)
