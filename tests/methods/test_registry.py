from __future__ import annotations

import pytest

import zsbir_fast as zf
from zsbir_fast.methods import registry
from zsbir_fast.methods.registry import method_class, method_names


@pytest.fixture(autouse=True)
def _unregistered(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


def test_methods_of_the_package_of_others_and_of_a_program(offer, toy):
    assert method_names() == ["dmwan", "cmaan", "clusterretri", "sbka"]
    assert method_class("dmwan") is zf.DMWAN
    offer(mine="Toy")
    zf.register_method("ours", toy.Toy)
    zf.register_method("ours", toy.Toy)  # once more changes nothing
    assert method_names() == ["dmwan", "cmaan", "clusterretri", "sbka", "mine", "ours"]
    assert method_class("mine").__name__ == "Toy"
    assert method_class("ours") is toy.Toy


def test_two_methods_of_one_name(offer, toy):
    class Other(toy.Toy):
        pass

    zf.register_method("toy", toy.Toy)
    for name, method in (("toy", Other), ("dmwan", toy.Toy)):
        text = f"register_method: name must be new, got '{name}', which is taken"
        with pytest.raises(ValueError, match=text):
            zf.register_method(name, method)
    offer("first", same="Toy", dmwan="Toy")
    offer("second", same="Toy")
    text = "name must be its own, got 'same', which second_toy:Toy and first_toy:Toy have"
    with pytest.raises(ValueError, match=text):
        method_class("same")
    with pytest.raises(ValueError, match="got 'dmwan', which zsbir_fast and first_toy:Toy have"):
        method_class("dmwan")


def test_a_method_without_a_needed_member(offer, toy):
    text = "'bare' must have the members image_spec, losses, which .*NoTeacher lacks"
    with pytest.raises(ValueError, match=f"register_method: method {text}"):
        zf.register_method("bare", toy.NoTeacher)
    offer(bare="NoTeacher")
    with pytest.raises(ValueError, match=f"method_class: method {text}"):
        method_class("bare")


def test_what_is_no_method(offer):
    with pytest.raises(TypeError, match=r"must be a class made from zsbir_fast\.Method, got 3"):
        zf.register_method("three", 3)
    offer(size="SIZE", gone="Nothing")
    with pytest.raises(TypeError, match=r"must be a class made from zsbir_fast\.Method, got 16"):
        method_class("size")
    text = "'gone' must be loadable from toys_toy:Nothing, but .*has no attribute 'Nothing'"
    with pytest.raises(ValueError, match=text):
        method_class("gone")
