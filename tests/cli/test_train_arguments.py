from __future__ import annotations

import pytest
from PIL import Image

from zsbir_fast.cli.app import main
from zsbir_fast.cli.parsing import find_config, shipped_configs
from zsbir_fast.cli.train import parse_settings
from zsbir_fast.runs.settings import check_settings, read_settings, write_settings

NAMES = [
    "clusterretri-qd_caltech.yaml",
    "clusterretri-sketchy-25.yaml",
    "clusterretri-tuberlin-30.yaml",
    "cmaan-qd_caltech.yaml",
    "cmaan-sketchy-25.yaml",
    "cmaan-tuberlin-30.yaml",
    "dmwan-qd_caltech.yaml",
    "dmwan-quickdraw-30.yaml",
    "dmwan-sketchy-21.yaml",
    "dmwan-sketchy-25-clip-b16.yaml",
    "dmwan-sketchy-25-clip-b32.yaml",
    "dmwan-sketchy-25-dinov2.yaml",
    "dmwan-sketchy-25-siglip.yaml",
    "dmwan-sketchy-25.yaml",
    "dmwan-tuberlin-30.yaml",
    "finetune-qd_caltech.yaml",
    "finetune-sketchy-25-clip-b32.yaml",
    "sbka-qd_caltech.yaml",
    "sbka-quickdraw-30.yaml",
    "sbka-sketchy-21.yaml",
    "sbka-sketchy-25.yaml",
    "sbka-tuberlin-30.yaml",
]


def test_shipped_configs():
    assert shipped_configs() == NAMES
    assert find_config("dmwan-sketchy-25") == find_config("dmwan-sketchy-25.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_shipped_config_parses_and_reads_alike(name):
    parsed, resume = parse_settings(["--config", name])
    read = read_settings(find_config(name))
    assert not resume
    check_settings(parsed)
    assert (read.method, read.data, read.optim, read.run) == (
        parsed.method,
        parsed.data,
        parsed.optim,
        parsed.run,
    )
    assert read.plain_model() == parsed.plain_model()
    types = [(type(v), type(vars(parsed.optim)[k])) for k, v in vars(read.optim).items()]
    assert all(a is b for a, b in types)  # a float in YAML must look like one
    assert name.removesuffix(".yaml").startswith(f"{parsed.method}-{parsed.data.name}")
    assert parsed.run.out == f"runs/{name.removesuffix('.yaml')}"


def test_options_override_the_config():
    argv = ["--config", "dmwan-qd_caltech", "--optim.lr_head", "0.5", "--data.root=/x", "--resume"]
    settings, resume = parse_settings([*argv, "--model.loss.margins", "[0.1, 0.2]"])
    assert (settings.optim.lr_head, settings.data.root, resume) == (0.5, "/x", True)
    assert settings.model["loss"]["margins"] == [0.1, 0.2]
    assert settings.flat()["optim.lr_head"] == 0.5


def test_implementation_and_memory_are_keys():
    argv = ["--config", "dmwan-qd_caltech", "--model.impl=reference", "--model.loss.memory=512"]
    settings, _ = parse_settings(argv)
    assert (settings.model["impl"], settings.model["loss"]["memory"]) == ("reference", 512)
    assert main(["train", *argv, "--model.impl=fast"]) == 2


def test_folders_are_keys():
    argv = ["--data.photo_folders", '["photo", "more photos"]', "--data.sketch_folders=[drawn]"]
    data = parse_settings(["--config", "dmwan-qd_caltech", *argv])[0].data
    assert data.places() == {
        "layout": "auto",
        "unseen": None,
        "sketch_folders": ["drawn"],
        "photo_folders": ["photo", "more photos"],
    }


def test_folders_reach_the_loader(tmp_path, capsys):
    (tmp_path / "photo").mkdir()
    root = f"--data.root={tmp_path}"
    argv = ["--config", "dmwan-qd_caltech", "--data.photo_folders=[foto]", "--data.name=own", root]
    for place in ("sketch", "photo"):
        for name in "ab":
            (tmp_path / place / name).mkdir(parents=True)
            Image.new("L", (4, 4)).save(tmp_path / place / name / "1.png")
    assert main(["train", *argv, "--data.unseen=[b]", f"--run.out={tmp_path / 'run'}"]) == 1
    assert "photo_folders must be folders below" in capsys.readouterr().err


def test_written_settings_are_a_config(tmp_path):
    settings, _ = parse_settings(
        ["--config", "dmwan-qd_caltech", "--model.loss.margins", "[0.1, 0.2]"]
    )
    write_settings(tmp_path / "config.yaml", settings)
    assert parse_settings(["--config", str(tmp_path / "config.yaml")])[0] == settings


@pytest.mark.parametrize(
    ("yaml", "key", "near"),
    [
        ("optim:\n  lr_bakbone: 1\n", "optim.lr_bakbone", "; did you mean 'optim.lr_backbone'?"),
        ("modle:\n  encoder: {}\n", "modle", "; did you mean 'model'?"),
        ("model:\n  encodr: {}\n", "model.encodr", "; did you mean 'model.encoder'?"),
        ("model:\n  terms: {clss: 1.0}\n", "model.terms.clss", "; did you mean 'model.terms.cls'?"),
        # of older layouts
        ("model:\n  lambda_cls: 1.0\n", "model.lambda_cls", "; did you mean"),
        ("model:\n  image_size: 64\n", "model.image_size", "; did you mean 'model.encoder.image_s"),
        ("learning_rate: 0.1\n", "learning_rate", "; see zsbir train --help"),
    ],
)
def test_a_key_that_is_none(tmp_path, capsys, yaml, key, near):
    config = tmp_path / "c.yaml"
    config.write_text(yaml)
    assert main(["train", "--config", str(config)]) == 2
    err = capsys.readouterr().err
    text = f"--config must have keys of this command, got {key!r} in {config}{near}"
    assert err.startswith(f"zsbir train: error: {text}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("yaml", "argv", "text"),
    [
        ("", ["--data.rot", "/x"], "did you mean 'data.root'?"),
        ("", ["--zzz"], "see zsbir train --help"),
        ("", ["--optim.lr_head", "fast"], 'Parser key "optim.lr_head": Expected a'),
        ("run:\n  precision: 8\n", [], 'Parser key "run.precision"'),
    ],
)
def test_wrong_key_or_value(tmp_path, capsys, yaml, argv, text):
    (tmp_path / "c.yaml").write_text(yaml or "method: dmwan\n")
    assert main(["train", "--config", str(tmp_path / "c.yaml"), *argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith("zsbir train: error: ")
    assert text in err
    assert err.count("\n") == 1


def test_unknown_config_lists_the_shipped_ones(capsys):
    assert main(["train", "--config", "dmwan-sketchi-25"]) == 2
    err = capsys.readouterr().err
    assert f"--config must be a file or one of {', '.join(NAMES)}" in err
    assert "(did you mean 'dmwan-sketchy-25.yaml'?)" in err


@pytest.mark.parametrize("name", ["data", "optim"])
def test_a_section_with_nothing_below_it(tmp_path, capsys, name):
    config = tmp_path / "config.yaml"
    given = {"data": "method: dmwan\ndata:\n", "optim": "data: {name: qd_caltech}\noptim:\n"}
    config.write_text(given[name])
    assert main(["train", "--config", str(config)]) == 2
    assert f"--{name} must be a group of options, got nothing below" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["run:\n  epochs: !!binary x\n", "? [a, b]\n: 1\n", "a: !!timestamp x\n", "a: *b\n"]
)
def test_yaml_that_cannot_be_built_is_one_line(tmp_path, capsys, text):
    config = tmp_path / "c.yaml"
    config.write_text(text)
    assert main(["train", "--config", str(config)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"zsbir train: error: --config must be a YAML config, got {config}: ")
    assert err.count("\n") == 1
