"""Weight files that torch would warn of, or whose words have no end."""

from __future__ import annotations

import pickle
import warnings

import pytest
import torch
from safetensors.torch import save_file

from zsbir_fast.data.npz_files import read_npz
from zsbir_fast.encoders.weight_files import misfits, read_weight_file


@pytest.mark.parametrize("archive", [True, False])
def test_what_torch_wrote_is_read(tmp_path, archive):
    path = tmp_path / "w.pt"
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7)}
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=archive)
    found = read_weight_file(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize(
    ("value", "protocol", "message"),
    [
        (torch.ones(2).to_sparse(), 2, "it holds sparse tensors"),
        (torch.ones(2), 3, "it is pickled with protocol 3, and not 2"),
        (torch.ones(2), 4, "it is pickled with protocol 4, and not 2"),
    ],
)
def test_what_torch_warns_of_is_refused_without_its_warning(
    tmp_path, archive, value, protocol, message
):
    path = tmp_path / "w.pt"
    torch.save({"a": value}, path, pickle_protocol=protocol, _use_new_zipfile_serialization=archive)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match=rf"^read_weight_file: .*w\.pt \(.*({message})"):
            read_weight_file(path)
    assert caught == []


def test_plain_pickles_are_refused_before_torch_sees_them(tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(pickle.dumps({"a": 1}, protocol=4))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match=r"w\.pt \(it is empty, damaged, or holds objects"):
            read_weight_file(path)
    assert caught == []


def test_names_without_end_are_cut(tmp_path):
    name = "x" * 5000
    assert (
        len(misfits(torch.nn.Linear(1, 1), {name + str(i): torch.ones(1) for i in range(9)})) < 900
    )
    save_file({name: torch.ones(2, dtype=torch.int32)}, tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(data.replace(b'"I32"', b'"I99"'))
    with pytest.raises(ValueError, match="which is empty, damaged or") as caught:
        read_weight_file(tmp_path / "w.safetensors")
    assert len(str(caught.value)) < 600


def test_the_words_of_zipfile_are_cut(tmp_path):
    import numpy as np

    path = tmp_path / "q.npz"
    np.savez(path, **{"x" * 5000: np.ones(1)})
    with pytest.raises(
        ValueError, match=r"q\.npz: it has x+\.\.\. \(5,0\d\d characters\)"
    ) as caught:
        read_npz(path, ("embeddings",), expected="read: file must be an .npz")
    assert len(str(caught.value)) < 500
