"""Methods that do not keep to the contract: one line says which member, and what it gave."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

import zsbir_fast as zf
from zsbir_fast.cli.app import main
from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.methods import registry
from zsbir_fast.methods.build import build_model
from zsbir_fast.runs.explain import explain_seen_pairs
from zsbir_fast.runs.unseen import embed_unseen
from zsbir_fast.training.data_module import RunData


@pytest.fixture(autouse=True)
def _unregistered(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


@pytest.fixture
def changed(toy):
    """The toy method with other members."""

    def make(**members):
        return type("Careless", (toy.Toy,), members)

    return make


def _build(method):
    zf.register_method("careless", method)
    return build_model(zf.ModelIdentity.of("careless", {"teacher": "edges"}, ["cat", "dog"]))


@pytest.mark.parametrize(
    ("members", "text"),
    [
        (
            {"image_spec": lambda self: 16},
            "Careless.image_spec must give a zsbir_fast.ImageSpec, got 16",
        ),
        (
            {"classes": property(lambda self: ["cat"], lambda self, names: None)},
            "Careless.classes must be a tuple of the given 2 classes, got ['cat']",
        ),
    ],
)
def test_a_model_is_checked_before_it_is_trained(changed, members, text):
    with pytest.raises(TypeError, match=re.escape(text)):
        _build(changed(**members))


@pytest.mark.parametrize(
    ("embed", "text"),
    [
        (lambda self, images, modality: images, "got [6, 3, 16, 16]"),
        (lambda self, images, modality: images.flatten(1).mean(0, keepdim=True), "got [1, 768]"),
        (lambda self, images, modality: (images,), "got a tuple"),
    ],
)
def test_embeddings_of_another_shape(changed, few_classes, embed, text):
    model = _build(changed(embed=embed))
    photos = load_benchmark("few", few_classes, unseen=["piano", "cup"]).test_photos
    with pytest.raises(ValueError, match=rf"embed must give \[6, D\] for 6 .*{re.escape(text)}"):
        zf.embed_images(model, photos, batch_size=6)


class _Nameless(zf.Ranker):
    def scorer(self, gallery):
        return lambda queries: queries @ gallery.T


@pytest.mark.parametrize("given", ["cosine", None, _Nameless()])
def test_what_is_no_ranker(changed, few_classes, given):
    model = _build(changed(ranker=lambda self: given))
    benchmark = load_benchmark("few", few_classes, unseen=["piano", "cup"])
    with pytest.raises(TypeError, match=r"Careless\.ranker must give a zsbir_fast\.Ranker with na"):
        embed_unseen(model, benchmark)


@pytest.mark.parametrize("given", [lambda q, g: (q @ g.T).numpy(), lambda q, g: (q @ g.T, 1)])
def test_scores_that_are_no_tensor(given):
    ranker = zf.ScoreRanker(given, name="mine")
    with pytest.raises(ValueError, match=r"score must give a tensor \[2, 3\] for .*'mine', got a "):
        ranker.search(torch.ones(2, 4), torch.ones(3, 4), 1)


def test_scores_of_a_method_can_be_searched_only_if_finite():
    ranker = zf.ScoreRanker(lambda q, g: (q @ g.T) / 0, name="mine")
    assert not ranker.scorer(torch.ones(3, 4))(torch.ones(2, 4)).is_inference()
    with pytest.raises(ValueError, match=r"ScoreRanker\.search: scores must be finite, got inf in"):
        ranker.search(torch.ones(2, 4), torch.ones(3, 4), 1)


def test_what_is_no_explanation(changed, few_classes):
    zf.register_method("careless", changed(explain=lambda self, *batch: 3))
    benchmark = load_benchmark("few", few_classes, unseen=["piano", "cup"])
    identity = zf.ModelIdentity.of("careless", {"teacher": "edges"}, benchmark.seen)
    text = r"Careless\.explain must give a PairExplanation or None, got 3"
    with pytest.raises(TypeError, match=text):
        explain_seen_pairs(build_model(identity), benchmark)


def test_what_is_no_plan_of_batches():
    with pytest.raises(TypeError, match=r"plan must be a zsbir_fast\.BatchPlan, got None"):
        RunData(None, epoch_batches=1, epochs=1, seed=0)


def test_constructors_with_other_arguments(toy):
    class Anything(toy.Toy):
        def __init__(self, classes, **more):
            super().__init__(classes, **more)

    class Renamed(toy.Toy):
        def __init__(self, names, *, teacher: str):
            super().__init__(names, teacher=teacher)

    for method, shown in ((Anything, r"\(classes, \*\*more\)"), (Renamed, r"\(names, \*, teacher")):
        text = (
            rf"must be built as {method.__name__}\(classes, \*\*arguments\) with .* got .*{shown}"
        )
        with pytest.raises(ValueError, match=text):
            zf.register_method("careless", method)


def test_arguments_that_no_file_can_hold(toy):
    class Placed(toy.Toy):
        def __init__(self, classes, *, teacher: str, where: Path = Path("here")):
            super().__init__(classes, teacher=teacher)

    zf.register_method("careless", Placed)
    text = r"argument 'where' of method careless must be a plain value .* got PosixPath\('here'\)"
    with pytest.raises(ValueError, match=text):
        zf.ModelIdentity.of("careless", {"teacher": "edges"}, ["cat", "dog"])


def test_a_broken_method_of_others_is_not_in_the_way(offer, capsys):
    offer(broken="Nothing")
    assert main(["train", "--model.encodr.name=x"]) == 2
    assert "method dmwan, got none (did you mean 'encoder.name'?)" in capsys.readouterr().err
    assert main(["train", "--help"]) == 0


def test_a_module_that_ends_the_program_is_named(offer, capsys):
    folder = offer("leavers", leaver="Toy")
    (folder / "leavers_toy.py").write_text("raise SystemExit(0)\n")
    assert main(["train", "--method=leaver"]) == 2
    assert "method 'leaver' must be loadable from leavers_toy:Toy" in capsys.readouterr().err


def test_a_run_in_float64(toy, few_classes, tmp_path):
    zf.register_method("toy", toy.Toy)
    out = tmp_path / "run"
    argv = [
        "--method=toy",
        "--model.teacher=edges",
        "--data.name=few",
        f"--data.root={few_classes}",
    ]
    argv += ["--data.unseen=[piano, cup]", "--data.validation_classes=2", f"--run.out={out}"]
    argv += ["--data.classes_per_batch=2", "--run.epochs=1", "--run.steps_per_epoch=2"]
    argv += ["--run.progress=false", "--run.accelerator=cpu", "--run.precision=64-true"]
    assert main(["train", *argv]) == 0
    argv = ["--model", str(out / "model"), "--out", str(tmp_path / "eval")]
    assert main(["eval", *argv]) == 0
    trained, again = (
        json.loads((folder / "metrics.json").read_text())["trained"]["map"]
        for folder in (out, tmp_path / "eval")
    )
    assert trained == again
