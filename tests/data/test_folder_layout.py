from __future__ import annotations

import re

import pytest

from zsbir_fast.data.benchmarks import benchmark_from_lists, load_benchmark
from zsbir_fast.data.filelists import write_class_list, write_file_list
from zsbir_fast.data.splits import load_split


@pytest.mark.parametrize(
    ("name", "sketches", "photos", "spelling"),
    [
        ("sketchy-21", "sketch/tx_000000000000", "extended_photo", str),  # SEM-PCYC
        ("sketchy-25", "Sketchy/sketch/tx_000000000000", "EXTEND_image_sketchy", str.title),
        ("tuberlin-30", "sketches", "images", lambda n: n.replace(" ", "_").replace("-", " ")),
        ("quickdraw-30", "QuickDraw_sketches", "QuickDraw_images", lambda n: n.replace(" ", "-")),
    ],
)
def test_class_folders_of_the_published_splits(
    tmp_path, class_folders, name, sketches, photos, spelling
):
    split = load_split(name)
    folders = [spelling(c) for c in (*split.seen, *split.unseen)]
    class_folders(tmp_path / sketches, folders, images=1)
    class_folders(tmp_path / photos, folders, images=2, suffix=".JPG")
    benchmark = load_benchmark(name, tmp_path)
    assert (benchmark.seen, benchmark.unseen) == (split.seen, split.unseen)
    assert len(benchmark.train_sketches) == len(split.seen)
    assert len(benchmark.test_photos) == 2 * len(split.unseen)
    assert benchmark.test_photos.labels.tolist()[:4] == [0, 0, 1, 1]
    assert benchmark.test_photos.paths[2].parent.name == spelling(split.unseen[1])
    assert benchmark.test_photos.paths[2].name == "0.JPG"


def test_your_own_classes(tmp_path, class_folders):
    class_folders(tmp_path / "sketch", ["cat", "dog", "hot dog", "no photo"])
    class_folders(tmp_path / "photos", ["cat", "dog", "hot dog"], images=3)
    with pytest.warns(UserWarning, match=r"got only sketches of 'no photo' \(1\); these classes"):
        benchmark = load_benchmark("own", tmp_path, unseen=["Hot_Dog"])
    assert (benchmark.seen, benchmark.unseen) == (("cat", "dog"), ("Hot_Dog",))
    assert benchmark.test_photos.paths[0].parent.name == "hot dog"
    assert len(benchmark.train_photos) == 6
    with pytest.warns(UserWarning, match=r"1 class folders belong to no class .*: 'no photo'"):
        some = load_benchmark("own", tmp_path, seen=["dog", "hot dog"], unseen=["cat"])
    assert some.seen == ("dog", "hot dog")


def test_folders_that_are_named(tmp_path, class_folders):
    class_folders(tmp_path / "drawn", ["a", "b"], images=1)
    class_folders(tmp_path / "basic", ["a", "b"], images=1)
    class_folders(tmp_path / "more", ["b"], images=2)
    benchmark = load_benchmark(
        "own",
        tmp_path,
        unseen=["b"],
        sketch_folders=["drawn"],
        photo_folders=["basic", "more"],
    )
    assert [p.parent.parent.name for p in benchmark.test_photos.paths] == ["basic", "more", "more"]
    assert len(benchmark.train_photos) == 1


def test_folders_win_over_lists_when_asked_for(tmp_path, class_folders, list_layout):
    pattern = ("sketch_{}.txt", "all_photo_{}.txt")
    list_layout(tmp_path, ["a"], ["b"], pattern, roots=("sketch", "photo"))
    class_folders(tmp_path / "sketch", ["a", "b"], images=5)
    assert len(load_benchmark("own", tmp_path).test_sketches) == 2
    by_folder = load_benchmark("own", tmp_path, layout="folders", unseen=["b"])
    assert len(by_folder.test_sketches) == 5 + 2  # its own 5 and 2 of the lists


def test_other_files_and_hidden_folders_are_left_alone(tmp_path, class_folders):
    for place in ("sketch", "photo"):
        class_folders(tmp_path / place, ["a", "b", ".cache"])
        (tmp_path / place / "a" / "notes.txt").write_text("x")
        (tmp_path / place / "a" / ".hidden.png").write_text("x")
        (tmp_path / place / "list.txt").write_text("x")
    assert len(load_benchmark("own", tmp_path, unseen=["b"]).train_photos) == 2


def test_folders_of_no_class_are_told(tmp_path, class_folders):
    for place in ("sketch", "photo"):
        class_folders(tmp_path / place, ["a", "b", "yeti"])
    with pytest.warns(UserWarning, match="1 class folders belong to no class .*: 'yeti'"):
        load_benchmark("own", tmp_path, seen=["a"], unseen=["b"])


def test_missing_classes_and_images_are_named(tmp_path, class_folders):
    split = load_split("sketchy-21")
    class_folders(tmp_path / "sketch", [*split.seen, *split.unseen], images=1)
    class_folders(tmp_path / "photo", [*split.seen[1:], *split.unseen], images=1)
    missing = re.escape(f"must have a photo folder, got none for '{split.seen[0]}' (1 of 104")
    with pytest.raises(FileNotFoundError, match=missing):
        load_benchmark("sketchy-21", tmp_path)
    (tmp_path / "photo" / split.seen[0]).mkdir()
    with pytest.raises(ValueError, match=f"at least one photo, got none for '{split.seen[0]}'"):
        load_benchmark("sketchy-21", tmp_path)


def test_folders_spelt_alike_are_refused(tmp_path, class_folders):
    class_folders(tmp_path / "sketch", ["hot dog", "hot_dog"])
    with pytest.raises(ValueError, match=r"must differ by more than case, .* got 'hot"):
        load_benchmark("own", tmp_path, unseen=["hot dog"])


def test_overlapping_classes_are_refused(tmp_path, class_folders):
    for place in ("sketch", "photo"):
        class_folders(tmp_path / place, ["a", "b"])
    with pytest.raises(ValueError, match=r"seen and unseen .* must not overlap, got 'B' in both"):
        load_benchmark("own", tmp_path, seen=["a", "b"], unseen=["B"])


def test_your_own_folders_need_unseen_classes(tmp_path, class_folders):
    for place in ("sketch", "photo"):
        class_folders(tmp_path / place, ["a", "b"])
    with pytest.raises(ValueError, match="unseen must name the unseen classes, as 'own' is no pub"):
        load_benchmark("own", tmp_path)


@pytest.mark.parametrize(
    ("layout", "how"),
    [
        ("auto", "as file lists or class folders"),
        ("lists", "as file lists"),
        ("folders", "as class folders"),
    ],
)
def test_a_wrong_root_says_what_was_looked_for_and_found(tmp_path, class_folders, layout, how):
    class_folders(tmp_path / "drawings", ["cow"])
    (tmp_path / "readme.txt").touch()
    with pytest.raises(FileNotFoundError) as error:
        load_benchmark("sketchy-21", tmp_path, layout=layout)
    lines = str(error.value).splitlines()
    assert lines[0] == (
        f"load_benchmark: root must hold 'sketchy-21' {how}, got {tmp_path}, where nothing fits:"
    )
    assert f"{tmp_path}/zeroshot*/" in lines[1]
    assert "sketch/tx_000000000000" in lines[2]
    assert "extended_photo" in lines[3]
    assert lines[4] == f"  found in {tmp_path}: 'drawings/', 'readme.txt'"


def test_an_empty_root_is_said_to_be_empty(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"found in .*: nothing"):
        load_benchmark("sketchy-21", tmp_path)


@pytest.fixture
def own_lists(tmp_path, draw):
    """Four lists with paths below ``data``, and class lists."""
    for part, names in (("train", ["a", "b"]), ("test", ["c"])):
        write_class_list(tmp_path / f"{part}_classes.txt", names)
        for modality in ("sketches", "photos"):
            files = [f"{n}/{modality}/1.png" for n in names]
            for file in files:
                draw(tmp_path / "data" / file)
            write_file_list(tmp_path / f"{part}_{modality}.txt", files, range(len(names)))
    parts = ("train_sketches", "train_photos", "test_sketches", "test_photos")
    return tmp_path, {part: tmp_path / f"{part}.txt" for part in parts}


def test_lists_given_one_by_one(own_lists):
    folder, lists = own_lists
    for seen, unseen in (
        (["a", "b"], ["c"]),
        (folder / "train_classes.txt", str(folder / "test_classes.txt")),
    ):
        benchmark = benchmark_from_lists(
            "own",
            folder / "data",
            **lists,
            seen=seen,
            unseen=unseen,
            validation_sketches=lists["train_sketches"],
        )
        assert (benchmark.seen, benchmark.unseen) == (("a", "b"), ("c",))
        assert benchmark.train_photos.labels.tolist() == [0, 1]
        assert benchmark.test_sketches[0][0].shape == (3, 12, 10)
        assert len(benchmark.validation_sketches) == 2


def test_lists_given_one_by_one_are_checked(own_lists):
    folder, lists = own_lists
    with pytest.raises(FileNotFoundError, match=r"paths in .* must start from .*, but .* missing"):
        benchmark_from_lists("own", folder, **lists, seen=["a", "b"], unseen=["c"])
    with pytest.raises(ValueError, match=r"in 0\.\.0 \(1 classes\), got 1"):
        benchmark_from_lists("own", folder / "data", **lists, seen=["a"], unseen=["c"])
    with pytest.raises(ValueError, match="must not overlap"):
        benchmark_from_lists("own", folder / "data", **lists, seen=["a", "c"], unseen=["c"])
