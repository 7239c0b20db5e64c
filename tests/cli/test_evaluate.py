"""``zsbir eval`` of a stored model: which benchmark it takes, and what it says of known classes."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from zsbir_fast.cli.app import main
from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.methods.build import build_model
from zsbir_fast.methods.identity import ModelIdentity
from zsbir_fast.methods.saving import export_model, load_model
from zsbir_fast.methods.settings import DataConfig
from zsbir_fast.ranking.choose import choose_rerank
from zsbir_fast.ranking.expansion import ExpandedRanker
from zsbir_fast.ranking.rerank import RerankOptions
from zsbir_fast.retrieval.embed import embed_images
from zsbir_fast.runs import rerank_choice
from zsbir_fast.runs.leaks import Leak
from zsbir_fast.runs.outcome import Outcome
from zsbir_fast.runs.run_report import write_run_report
from zsbir_fast.runs.settings import Settings, write_settings
from zsbir_fast.runs.unseen import embed_unseen

CLASSES = ["cat", "Hot_Dog", "owl", "bee", "fox"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on five classes: trained on two, chosen by one, two are unseen."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    for place in ("sketch", "photo"):
        for name in CLASSES:
            (folder / "data" / place / name).mkdir(parents=True)
            for i in range(2):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "data" / place / name / f"{i}.png")
    arguments = {
        "encoder": {"weights": None, "image_size": 32},
        "weighting": {"kind": "pairwise"},
    }
    identity = replace(
        ModelIdentity.of("dmwan", arguments, ["cat", "hot dog"]),
        chosen_by=("owl",),
        benchmark="pets",
    )
    torch.manual_seed(0)
    export_model(build_model(identity), identity, folder / "model")
    data = DataConfig(name="pets", root=str(folder / "data"), unseen=["bee", "fox"])
    write_settings(folder / "config.yaml", Settings(data=data))
    return folder


def on(run, *unseen):
    return ["--data.root", str(run / "data"), "--data.unseen", json.dumps(unseen)]


def test_name_and_root_are_those_of_the_run(run, capsys, monkeypatch):
    assert main(["eval", "--model", str(run / "model")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("dmwan on pets: 4 queries, 4 gallery items\n")
    assert "ZERO-SHOT" not in out
    monkeypatch.chdir(run / "model")
    assert main(["eval", "--model", "."]) == 0
    assert capsys.readouterr().out == out
    monkeypatch.setenv("HOME", str(run))
    assert main(["eval", "--model=~/model", "--data.root=~/data"]) == 0
    assert capsys.readouterr().out == out


def test_options_win_over_the_run(run, capsys):
    assert main(["eval", "--model", str(run / "model"), "--data.unseen", "[fox]"]) == 0
    assert capsys.readouterr().out.startswith("dmwan on pets: 2 queries, 2 gallery items\n")
    argv = ["eval", "--model", str(run / "model"), "--data.photo_folders", "[photos]"]
    assert main(argv) == 1
    assert "photo_folders must be folders below" in capsys.readouterr().err
    assert main(["eval", "--model", str(run / "model"), "--data.name", "sketchy25"]) == 1
    err = capsys.readouterr().err
    assert "root must be the folder of 'sketchy25' (did you mean 'sketchy-25'?), got None" in err


def test_a_model_on_its_own_knows_its_benchmark_or_asks(run, tmp_path, capsys):
    os.symlink(run / "model", tmp_path / "model")
    assert main(["eval", "--model", str(tmp_path / "model")]) == 1
    assert "root must be the folder of 'pets', got None" in capsys.readouterr().err
    (tmp_path / "old").mkdir()
    stored = json.loads((run / "model" / "model.json").read_text())
    del stored["benchmark"], stored["chosen_by"]
    (tmp_path / "old" / "model.json").write_text(json.dumps(stored))
    os.symlink(run / "model" / "model.safetensors", tmp_path / "old" / "model.safetensors")
    assert main(["eval", "--model", str(tmp_path / "old")]) == 1
    err = capsys.readouterr().err
    assert f"--data.name must name the benchmark, as neither {tmp_path / 'old'} nor" in err
    argv = ["eval", "--model", str(tmp_path / "old"), "--data.name", "x", *on(run, "bee", "owl")]
    assert main(argv) == 0


def test_classes_that_the_model_knows_are_an_error_that_names_them(run, tmp_path, capsys):
    argv = ["eval", "--model", str(run / "model"), *on(run, "Hot-Dog", "bee", "owl")]
    out = ["--out", str(tmp_path / "out")]
    assert main([*argv, *out]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "zsbir: error: embed_unseen: unseen classes must be new to the model, got 1 of 3 that "
        "it was trained on ('Hot-Dog') and 1 of 3 that its checkpoint was chosen by ('owl'); "
        "allow_seen=True (--allow-seen) goes on and says so in every output\n"
    )
    assert not (tmp_path / "out").exists()

    assert main([*argv, *out, "--allow-seen"]) == 0
    note = (
        "NOT ZERO-SHOT: the model was tested on 1 of 3 that it was trained on ('Hot-Dog') and 1 of "
        "3 that its checkpoint was chosen by ('owl')."
    )
    assert note in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["zero_shot"] is False
    assert metrics["seen_classes"] == ["Hot-Dog", "owl"]
    head, *rows = (tmp_path / "out" / "per_class.csv").read_text().splitlines()
    assert head.endswith(",seen")
    assert {row.split(",")[0]: row.rsplit(",")[-1] for row in rows} == {
        "Hot-Dog": "yes",
        "bee": "no",
        "owl": "yes",
    }


def test_names_of_any_script_are_printed_in_any_encoding(run, tmp_path, monkeypatch):
    for place in ("sketch", "photo"):
        shutil.copytree(run / "data" / place / "bee", tmp_path / place / "मधुमक्खी")
        shutil.copytree(run / "data" / place / "fox", tmp_path / place / "fox")
    stored = json.loads((run / "model" / "model.json").read_text(encoding="utf-8"))
    stored["classes"][0] = "मधुमक्खी"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text(json.dumps(stored), encoding="utf-8")
    os.symlink(run / "model" / "model.safetensors", tmp_path / "model" / "model.safetensors")
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    argv = ["eval", "--model", str(tmp_path / "model"), "--data.root", str(tmp_path)]
    argv += ["--data.name", "bees", "--data.unseen", '["मधुमक्खी"]', "--allow-seen"]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 0
    sys.stdout.flush()
    assert rb"trained on ('\u092e" in raw.getvalue()
    assert "मधुमक्खी" in (tmp_path / "out" / "per_class.csv").read_text(encoding="utf-8")


def test_a_zero_shot_result_stays_as_it_was(run, tmp_path):
    assert main(["eval", "--model", str(run / "model"), "--out", str(tmp_path)]) == 0
    assert not {"zero_shot", "seen_classes"} & set(
        json.loads((tmp_path / "metrics.json").read_text())
    )
    assert "seen" not in (tmp_path / "per_class.csv").read_text()


def test_the_same_in_python(run, tmp_path):
    model, identity = load_model(run / "model")
    leaky = load_benchmark("x", run / "data", unseen=["hot dog", "bee"])
    message = r"got 1 of 2 that it was trained on \('hot dog'\); allow_seen=True"
    with pytest.raises(ValueError, match=f"embed_unseen: .*{message}"):
        embed_unseen(model, leaky)
    found = embed_unseen(model, leaky, allow_seen=True)
    assert found.leak == Leak(("hot dog",), (), 2)
    honest = load_benchmark("x", run / "data", unseen=["fox", "owl"])
    assert embed_unseen(model, honest).leak.names == ()
    with pytest.raises(ValueError, match=r"that its checkpoint was chosen by \('owl'\)"):
        embed_unseen(model, honest, chosen_by=identity.chosen_by)

    outcome = Outcome(
        title="t", lead="l", of_what="x", results={"trained": found.evaluate()}, embedded=found
    )
    page = write_run_report(tmp_path / "report.html", outcome).read_text(encoding="utf-8")
    assert "NOT ZERO-SHOT: the model was tested on 1 of 2 that it was trained on" in page
    assert "2 classes, 1 of them known to the model" in page


def test_sketches_and_photos_of_other_classes_are_refused(run):
    model, _ = load_model(run / "model")
    one, two = (load_benchmark("x", run / "data", unseen=[name]) for name in ("fox", "bee"))
    with pytest.raises(ValueError, match="must have the same classes, got 'fox' and 'bee'"):
        embed_unseen(
            model, SimpleNamespace(test_sketches=one.test_sketches, test_photos=two.test_photos)
        )


def test_a_benchmark_cannot_be_made_with_a_leak(run):
    whole = load_benchmark("x", run / "data", unseen=["fox", "bee"])
    with pytest.raises(ValueError, match="must not overlap, got 'CAT' in both"):
        replace(whole, unseen=("CAT", "fox"))
    with pytest.raises(ValueError, match="test_photos must have the classes 'fox', 'bee' of"):
        replace(whole, test_photos=whole.train_photos)


def test_a_run_is_not_resumed_with_other_held_out_classes(run):
    _, identity = load_model(run / "model")
    identity.require_same(identity.to_dict())
    other = replace(identity, chosen_by=("fox",))
    with pytest.raises(ValueError, match=r"holds out the classes 'fox', got one that .* 'owl'"):
        other.require_same(identity.to_dict())


@pytest.mark.parametrize("text", ["", "[1, 2]", "data: {nam: x}", "a: [", "data: 3", "\0"])
def test_a_config_that_is_none_is_named(run, tmp_path, capsys, text):
    os.symlink(run / "model", tmp_path / "model")
    (tmp_path / "config.yaml").write_text(text)
    assert main(["eval", "--model", str(tmp_path / "model")]) == 1
    err = capsys.readouterr().err
    assert f"{tmp_path / 'config.yaml'}, beside the model, must be the config of its run" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "near"),
    [
        (["eval", "--protocol", "sakee"], "sake"),
        (["eval", "--data.layout", "list"], "lists"),
        (["train", "--method", "dmwam"], "dmwan"),
        (["train", "--run.precision", "bf16"], "bf16-mixed"),
        (["train", "--model.loss.preset", "domain-balanced"], "domain_balanced"),
        (["train", "--config", "dmwan-sketchy25"], "dmwan-sketchy-25.yaml"),
        (["bench", "batched-map"], "batched_map"),
    ],
)
def test_a_misspelt_choice_names_the_nearest(argv, near, capsys):
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert f"(did you mean {near!r}?)" in err
    assert err.count("\n") == 1


def test_int8_features(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in "qg":
        rows = rng.integers(-128, 128, (12, 6)).astype(np.int8)
        np.savez(tmp_path / f"{name}.npz", embeddings=rows, labels=np.arange(12) % 3)
    argv = ["eval", "--queries", str(tmp_path / "q.npz"), "--gallery", str(tmp_path / "g.npz")]
    assert main([*argv, "--ks", "5"]) == 0
    assert capsys.readouterr().out.startswith("embeddings: 12 queries, 12 gallery items\n")


def test_reranked_beside_the_plain_row(run, tmp_path, capsys):
    argv = ["eval", "--model", str(run / "model"), "--out", str(tmp_path)]
    how = ["--rerank.kind=expansion", "--rerank.augment=2", "--rerank.expand=2"]
    assert main([*argv, *how]) == 0
    by = "cosine, re-ranked (augmentation by 2 and expansion by 2 with weight 0.5, power 3)"
    text = capsys.readouterr().out
    assert f"\nre-ranked: {by}\n" in text
    assert [line.split()[0] for line in text.splitlines() if "0." in line][:2] == [
        "trained",
        "re-ranked",
    ]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["ranked_by"], metrics["reranked_by"]) == ("cosine", by)
    model, _ = load_model(run / "model")
    pets = load_benchmark("pets", run / "data", unseen=["bee", "fox"])
    embedded = embed_unseen(model, pets)
    expected = ExpandedRanker(augment=2, expand=2).evaluate(
        embedded.queries, embedded.gallery, embedded.query_labels, embedded.gallery_labels, ks=(4,)
    )
    assert metrics["re-ranked"]["map"] == expected.map
    assert metrics["trained"]["map"] == embedded.evaluate().map
    page = (tmp_path / "report.html").read_text()
    assert f"Re-ranked: {by}. It uses the other photos of the gallery" in page


def test_reranked_by_what_helps_on_seen_classes(run, tmp_path, capsys, monkeypatch):
    """Chosen on classes that the model was trained on, or on others if there are two."""
    candidates = [RerankOptions(kind="expansion", augment=a, expand=2) for a in (1, 2)]
    few = partial(choose_rerank, candidates=candidates, largest_loss=1.0)
    monkeypatch.setattr(rerank_choice, "choose_rerank", few)
    argv = ["eval", "--model", str(run / "model"), "--out", str(tmp_path), "--rerank.kind=auto"]
    assert main(argv) == 0
    model, _ = load_model(run / "model")
    pets = load_benchmark("pets", run / "data", unseen=["bee", "fox"])
    text, metrics = capsys.readouterr().out, json.loads((tmp_path / "metrics.json").read_text())
    stored = metrics["rerank_choice"]
    assert (stored["chosen_on"], stored["held_out_of_training"]) == (["Hot_Dog", "owl"], False)
    seen = [s.of_classes(["Hot_Dog", "owl"]) for s in (pets.train_sketches, pets.train_photos)]
    choice = few(*(embed_images(model, s) for s in seen), *(s.labels for s in seen))
    assert stored["trials"] == [
        {"by": t.by, "gain": t.gain, "worst_class": t.worst} for t in choice.trials
    ]
    embedded = embed_unseen(model, pets)
    ranker = choice.options.ranker(embedded.ranker, photos=4) or embedded.ranker
    expected = replace(embedded, ranker=ranker).evaluate(ks=(4,))
    assert metrics["re-ranked"]["map"] == expected.map
    by = metrics["reranked_by"]
    assert by == (ranker.name if choice.chosen else "cosine, not re-ranked")
    note = f"re-ranked: {by}, chosen on 2 seen classes that the model was trained on, never on"
    assert note in text
    assert note.removeprefix("re-ranked: ") in (tmp_path / "report.html").read_text()
    names = on(run, "bee")  # then owl and fox are seen, but the model was trained on neither
    assert main([*argv, *names]) == 0
    text, metrics = capsys.readouterr().out, json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["rerank_choice"]["chosen_on"] == ["fox", "owl"]
    assert metrics["rerank_choice"]["held_out_of_training"]
    assert "chosen on 2 seen classes held out of training, never on the unseen ones" in text


def test_no_setting_for_so_few_photos(run, capsys):
    assert main(["eval", "--model", str(run / "model"), "--rerank.kind=auto"]) == 0
    text = capsys.readouterr().out
    assert "\nre-ranked: cosine, not re-ranked, chosen on 2 seen classes that" in text
    assert "no setting fits so few photos" in text
    plain, again = (
        line.split()[1:] for line in text.splitlines() if line.startswith(("trained", "re-ranked "))
    )
    assert plain == again


def test_embeddings_from_files_have_no_seen_classes(tmp_path, capsys):
    np.savez(tmp_path / "q.npz", embeddings=np.eye(3), labels=np.arange(3))
    files = ["--queries", str(tmp_path / "q.npz"), "--gallery", str(tmp_path / "q.npz")]
    assert main(["eval", *files, "--rerank.kind=auto"]) == 1
    err = capsys.readouterr().err
    assert "--rerank.kind must be a rule with --queries and --gallery, got 'auto'" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("how", "text"),
    [
        (["--rerank.kind=expansion"], "augment must be in [0, 4], got 20"),
        (["--rerank.kind=k-reciprocal"], "k1 must be in [1, 3], got 20"),
        (["--rerank.kind=auto", "--metric=dot"], "kind must be none where embeddings are not"),
        (["--rerank.kind=icfrr"], "gallery_k must be in [1, 3], got 50"),
        (
            ["--rerank.kind=icfrr", "--metric=dot"],
            "RerankOptions: kind must be none where embeddings are not ranked by cosine or euclid",
        ),
    ],
)
def test_reranking_that_cannot_be(run, capsys, how, text):
    assert main(["eval", "--model", str(run / "model"), *how]) == 1
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1


def test_an_unknown_reranking(run, capsys):
    assert main(["eval", "--model", str(run / "model"), "--rerank.kind=expansoin"]) == 2
    assert "(did you mean 'expansion'?)" in capsys.readouterr().err
    with pytest.raises(ValueError, match="RerankOptions: kind must be one of none, auto, expan"):
        RerankOptions(kind="best")
