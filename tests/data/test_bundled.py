from __future__ import annotations

import re

import pytest
from PIL import Image

from zsbir_fast.data import bundled
from zsbir_fast.data.filelists import read_class_list, read_file_list


def test_every_part_states_its_sources():
    for name in bundled.NAMES:
        assert (bundled.path(name) / "SOURCES.md").stat().st_size > 500


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match=r"name must be one of qd_caltech, .*, got 'sketchy'"):
        bundled.path("sketchy")


def test_a_missing_part_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(bundled, "_ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"weights must be part of the installation"):
        bundled.path("weights")


def test_the_benchmark_is_small_enough_to_ship():
    files = [f for f in bundled.path("qd_caltech").rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 15.2e6
    assert not {f.suffix for f in files} - {".png", ".jpg", ".txt", ".csv", ".md"}


def test_all_that_is_bundled_keeps_the_wheel_small():
    sizes = {
        name: sum(f.stat().st_size for f in bundled.path(name).rglob("*") if f.is_file())
        for name in bundled.NAMES
    }
    assert sizes["weights"] < 8.3e6
    assert sum(sizes.values()) < 26e6


def test_the_lists_name_every_bundled_image_once():
    root = bundled.path("qd_caltech")
    listed: list[str] = []
    for modality in ("sketch", "photo"):
        for part, classes in (("train", "cname_cid.txt"), ("zero", "cname_cid_zero.txt")):
            names = read_class_list(root / "zeroshot" / classes)
            found = read_file_list(
                root / "zeroshot" / f"{modality}_filelist_{part}.txt", classes=len(names)
            )
            listed += found.paths
            for path, label in zip(*found, strict=True):
                assert path.split("/")[1] == names[label]
    on_disk = {
        f.relative_to(root).as_posix() for m in ("sketch", "photo") for f in root.glob(f"{m}/*/*")
    }
    assert len(listed) == len(set(listed)) == 3943
    assert set(listed) == on_disk


def test_images_have_the_stated_size_and_mode():
    root = bundled.path("qd_caltech")
    for pattern, mode in (("sketch/*/*.png", "L"), ("photo/*/*.jpg", "RGB")):
        for path in sorted(root.glob(pattern))[::97]:
            with Image.open(path) as image:
                assert (image.size, image.mode) == ((128, 128), mode)


def test_texts_do_not_speak_of_files_that_are_not_shipped():
    text = (bundled.path("qd_caltech") / "SOURCES.md").read_text()
    for name in re.findall(r"^- `([\w./]+)`", text, re.MULTILINE):
        assert (bundled.path("qd_caltech") / name).exists(), name
