"""One name for one thing: what an argument is called does not depend on the function."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import zsbir_fast as zf
from zsbir_fast._words import options_of
from zsbir_fast.losses.classification import CosineClassifier
from zsbir_fast.losses.cross_batch_memory import FeatureBank

PACKAGE = Path(zf.__file__).parent
# What else the same thing could be called, and is in other packages.
OTHER_NAMES = {
    "mining": "negative",
    "negatives": "negative or preset",
    "positives": "positive",
    "hinges": "preset",
    "similarity": "metric",
    "skip_self": "exclude_self",
    "leave_one_out": "exclude_self",
    "group": "process_group",
    "pg": "process_group",
    "dim": "width",
    "embedding_dim": "width",
    "embedding_size": "width",
    "num_classes": "classes",
    "num_workers": "workers",
    "tau": "temperature",
    "topk": "ks",
    "normalise": "normalize",
}
CALLED_FROM_OUTSIDE = {"quadruplet_hinges", "reduce_hinges"}  # their rows are the hinges


def parameters():
    """(where, name, annotation) of every argument that a public function or constructor takes."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (
                not node.name.startswith("_") or node.name == "__init__"
            ):
                for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                    kind = ast.unparse(argument.annotation) if argument.annotation else ""
                    yield f"{file.stem}.{node.name}", argument.arg, kind


def test_no_argument_has_another_name_of_the_same_thing():
    found = [
        f"{where}: {name} is called {OTHER_NAMES[name]} elsewhere"
        for where, name, _ in parameters()
        if name in OTHER_NAMES and where.partition(".")[2] not in CALLED_FROM_OUTSIDE
    ]
    assert not found, "\n".join(found)


def test_margin_is_one_number_and_margins_are_those_of_the_hinges():
    kinds = {name: set() for name in ("margin", "margins")}
    for _, name, kind in parameters():
        if name in kinds:
            kinds[name].add(kind)
    assert kinds["margin"] == {"float"}
    assert "float" not in kinds["margins"]


def test_options_that_other_packages_order_differently_are_given_by_name_and_shown():
    loss, sizes = zf.WeightedQuadrupletLoss(), {"size": 4, "width": 2}
    made = [
        loss,
        zf.CrossBatchMemory(loss, **sizes),
        zf.BatchAllTripletLoss(),
        zf.HardTripletMiner(),
        CosineClassifier(width=2, classes=3),
        FeatureBank(**sizes),
    ]
    for module in made:
        options = inspect.signature(type(module)).parameters.values()
        by_order = [p.name for p in options if p.kind is not p.KEYWORD_ONLY]
        assert by_order == (["loss"] if isinstance(module, zf.CrossBatchMemory) else [])
        assert all(hasattr(module, p.name) for p in options), f"{module} keeps all its options"
        assert options_of(module) in repr(module)
