from __future__ import annotations

import pytest
import torch

from zsbir_fast.data.benchmarks import benchmark_from_lists, load_benchmark
from zsbir_fast.data.splits import load_split


@pytest.fixture(scope="module")
def bundled_benchmark():
    return load_benchmark()


def sets_of(benchmark):
    return (
        benchmark.train_sketches,
        benchmark.train_photos,
        benchmark.test_sketches,
        benchmark.test_photos,
    )


def test_the_bundled_benchmark_is_whole(bundled_benchmark):
    split = load_split("qd_caltech")
    assert bundled_benchmark.name == "qd_caltech"
    assert (bundled_benchmark.seen, bundled_benchmark.unseen) == (split.seen, split.unseen)
    assert [len(s) for s in sets_of(bundled_benchmark)] == [928, 2161, 233, 621]
    assert [s.modality for s in sets_of(bundled_benchmark)] == ["sketch", "photo"] * 2
    for images in sets_of(bundled_benchmark):
        folders = [path.parent.name for path in images.paths]
        assert folders == [images.classes[i] for i in images.labels.tolist()]
        assert images.check_images() is images
    assert bundled_benchmark.train_photos.classes == split.seen
    assert bundled_benchmark.test_photos.classes == split.unseen
    image, label = bundled_benchmark.test_photos[-1]
    assert (image.shape, image.dtype, label) == ((3, 128, 128), torch.float32, 9)
    assert bundled_benchmark.validation_sketches is None


def test_a_benchmark_shows_its_sizes(bundled_benchmark):
    assert str(bundled_benchmark) == (
        "Benchmark 'qd_caltech': train on 37 seen classes with 928 sketches and 2,161 photos,\n"
        "  retrieve among 10 unseen classes with 233 sketches and 621 photos"
    )
    assert repr(bundled_benchmark) == str(bundled_benchmark)
    assert str(bundled_benchmark.test_photos) == (
        "ImageSet(621 photos of 10 classes: 'airplane', 'cannon', 'car' and 7 more)"
    )
    assert str(load_split("qd_caltech")) == (
        "Split 'qd_caltech': 37 seen and 10 unseen classes, 233 queries, 621 gallery photos"
    )


def test_held_out_classes_leave_training_entirely(bundled_benchmark):
    train, validation = bundled_benchmark.hold_out(classes=5, seed=3)
    assert len(train.seen) == 32
    assert len(validation.unseen) == 5
    assert train.seen == validation.seen
    assert set(train.seen) | set(validation.unseen) == set(bundled_benchmark.seen)
    assert [c for c in bundled_benchmark.seen if c in train.seen] == list(train.seen)
    assert train.test_photos is bundled_benchmark.test_photos
    assert train.unseen == bundled_benchmark.unseen
    for images in (*sets_of(train)[:2], *sets_of(validation)):
        folders = [path.parent.name for path in images.paths]
        assert folders == [images.classes[i] for i in images.labels.tolist()]
    trained_on = {path.parent.name for path in train.train_photos.paths}
    tested_on = {path.parent.name for path in validation.test_photos.paths}
    assert trained_on == set(train.seen)
    assert tested_on == set(validation.unseen)
    assert len(train.train_photos) + len(validation.test_photos) == 2161
    again = bundled_benchmark.hold_out(classes=5, seed=3)[1]
    assert again.unseen == validation.unseen
    assert bundled_benchmark.hold_out(classes=5, seed=4)[1].unseen != validation.unseen


@pytest.mark.parametrize("classes", [0, 37, -1])
def test_held_out_classes_must_leave_some(bundled_benchmark, classes):
    with pytest.raises(ValueError, match=rf"classes must be in 1\.\.36, got {classes}"):
        bundled_benchmark.hold_out(classes=classes)


@pytest.mark.parametrize(
    ("name", "pattern", "folder"),
    [
        (
            "sketchy-25",
            ("sketch_tx_000000000000_ready_filelist_{}.txt", "all_photo_filelist_{}.txt"),
            "zeroshot1",
        ),
        (
            "sketchy-21",
            ("sketch_tx_000000000000_ready_filelist_{}.txt", "all_photo_filelist_{}.txt"),
            "zeroshot0",
        ),
        (
            "tuberlin-30",
            ("png_ready_filelist_{}.txt", "ImageResized_ready_filelist_{}.txt"),
            "zeroshot",
        ),
        ("quickdraw-30", ("sketch_{}.txt", "all_photo_{}.txt"), "zeroshot"),
    ],
)
def test_list_files_of_the_published_datasets(tmp_path, list_layout, name, pattern, folder):
    split = load_split(name)
    list_layout(tmp_path, split.seen, split.unseen, pattern, folder=folder)
    benchmark = load_benchmark(name, tmp_path)
    assert (benchmark.seen, benchmark.unseen) == (split.seen, split.unseen)
    assert len(benchmark.train_photos) == 2 * len(split.seen)
    assert len(benchmark.test_sketches) == 2 * len(split.unseen)
    for images in sets_of(benchmark):
        assert images.labels.tolist() == [i for i in range(len(images.classes)) for _ in "ab"]
        folders = [path.parent.name for path in images.paths]
        assert folders == [images.classes[i] for i in images.labels.tolist()]
    assert benchmark.test_sketches[3][0].shape == (3, 12, 10)


SKETCHY = ("sketch_tx_000000000000_ready_filelist_{}.txt", "all_photo_filelist_{}.txt")


def test_two_sketchy_splits_side_by_side_are_told_apart(tmp_path, list_layout):
    for name, folder in (("sketchy-25", "zeroshot1"), ("sketchy-21", "zeroshot2")):
        split = load_split(name)
        list_layout(tmp_path, split.seen, split.unseen, SKETCHY, folder=folder)
    for name in ("sketchy-25", "sketchy-21"):
        assert load_benchmark(name, tmp_path).unseen == load_split(name).unseen
    assert load_benchmark("sketchy-21", tmp_path.parent).unseen == load_split("sketchy-21").unseen
    with pytest.raises(ValueError, match=r"must hold the lists of one split, got .*zeroshot1"):
        load_benchmark("own", tmp_path)


def test_the_lists_order_of_classes_counts_and_the_spelling_is_the_splits(tmp_path, list_layout):
    split = load_split("sketchy-21")
    seen = [name.replace("_", " ") for name in reversed(split.seen)]
    list_layout(tmp_path, seen, split.unseen, SKETCHY)
    benchmark = load_benchmark("sketchy-21", tmp_path, layout="lists")
    assert benchmark.seen == tuple(reversed(split.seen))
    assert benchmark.train_photos.paths[0].parent.name == seen[0]


def test_without_class_lists_the_published_order_is_taken(tmp_path, list_layout):
    split = load_split("tuberlin-30")
    pattern = ("png_ready_filelist_{}.txt", "ImageResized_ready_filelist_{}.txt")
    list_layout(tmp_path, split.seen, split.unseen, pattern, folder="zeroshot")
    for name in ("cname_cid.txt", "cname_cid_zero.txt"):
        (tmp_path / "zeroshot" / name).unlink()
    assert load_benchmark("tuberlin-30", tmp_path).unseen == split.unseen
    with pytest.raises(FileNotFoundError, match=r"cname_cid\.txt and .* must lie beside the lists"):
        load_benchmark("own", tmp_path)


def test_validation_sketches_are_exposed_and_held_out_with_their_class(tmp_path, list_layout):
    list_layout(tmp_path, ["a", "b", "c"], ["d"], SKETCHY, parts=("test",))
    benchmark = load_benchmark("own", tmp_path)
    assert [p.name for p in benchmark.validation_sketches.paths[:2]] == ["test0.png", "test1.png"]
    assert benchmark.validation_sketches.classes == ("a", "b", "c")
    assert len(benchmark.train_sketches) == 6
    assert "6 photos (and 6 sketches for validation),\n  retrieve" in str(benchmark)
    train, held = benchmark.hold_out(classes=1)
    assert len(train.validation_sketches) == 4
    assert train.validation_sketches.classes == train.seen
    assert held.validation_sketches is None


def test_lists_may_lie_in_the_root(tmp_path, list_layout):
    list_layout(tmp_path, ["a"], ["b"], ("sketch_filelist_{}.txt", "photo_filelist_{}.txt"))
    for file in (tmp_path / "zeroshot1").iterdir():
        file.rename(tmp_path / file.name)
    assert load_benchmark("own", tmp_path).unseen == ("b",)


def test_a_missing_train_list_is_named(tmp_path, list_layout):
    list_layout(tmp_path, ["a"], ["b"], SKETCHY)
    (tmp_path / "zeroshot1" / "all_photo_filelist_train.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no such list file: .*all_photo_filelist_train"):
        load_benchmark("own", tmp_path)


def test_images_elsewhere_are_noticed_at_once(tmp_path, list_layout):
    list_layout(tmp_path, ["a"], ["b"], SKETCHY)
    (tmp_path / "photo").rename(tmp_path / "pictures")
    with pytest.raises(FileNotFoundError, match=r"paths in .* must start from .*, but .* missing"):
        load_benchmark("own", tmp_path)


def test_a_label_outside_the_class_list_is_located(tmp_path, list_layout):
    list_layout(tmp_path, ["a"], ["b"], SKETCHY)
    with (tmp_path / "zeroshot1" / SKETCHY[0].format("zero")).open("a") as file:
        file.write("s k/b/extra.png 1\n")
    with pytest.raises(ValueError, match=r"line 3 of .* in 0\.\.0 \(1 classes\), got 1 for 's k/b"):
        load_benchmark("own", tmp_path)


def test_class_lists_that_overlap_are_refused(tmp_path, list_layout):
    list_layout(tmp_path, ["a", "hot dog"], ["Hot_Dog"], SKETCHY)
    with pytest.raises(ValueError, match="must not overlap, got 'Hot_Dog' in both"):
        load_benchmark("own", tmp_path)


def test_lists_of_another_split_are_not_taken_for_it(tmp_path, list_layout):
    split = load_split("sketchy-21")
    list_layout(tmp_path, split.seen, split.unseen, SKETCHY)
    with pytest.raises(ValueError, match=r"25 unseen classes of 'sketchy-25' in .*, got .*: 'bat'"):
        load_benchmark("sketchy-25", tmp_path)
    list_layout(tmp_path, split.seen[:-1], split.unseen, SKETCHY)
    with pytest.raises(ValueError, match=r"the 104 classes .*, got 103, unknown among them: none"):
        load_benchmark("sketchy-21", tmp_path)
    list_layout(tmp_path, [*split.seen[:-1], "yeti"], split.unseen, SKETCHY)
    with pytest.raises(ValueError, match="got 104, unknown among them: 'yeti'"):
        load_benchmark("sketchy-21", tmp_path)


def test_the_cache_is_on_for_the_bundled_benchmark_only(tmp_path, list_layout, bundled_benchmark):
    list_layout(tmp_path, ["a"], ["b"], SKETCHY)
    own = load_benchmark("own", tmp_path)
    cached = load_benchmark("own", tmp_path, cache=True)
    for images, kept in (
        (own.test_photos, False),
        (cached.test_photos, True),
        (bundled_benchmark.test_photos, True),
    ):
        assert (images.read(0) is images.read(0)) is kept


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sketchy-25", {}, "root must be the folder of 'sketchy-25', got None; only 'qd_caltech'"),
        ("x", {"layout": "tree"}, "layout must be one of auto, lists, folders, got 'tree'"),
        ("x", {"seen": ["a"]}, "unseen must be given where seen is"),
        ("sketchy-25", {"unseen": ["a"]}, "unseen must be None for published splits"),
        ("x", {"unseen": ["a"], "layout": "lists"}, "got 'a' for 'x' with layout 'lists'"),
    ],
)
def test_contradictory_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=f"load_benchmark: .*{message}"):
        load_benchmark(name, **options)


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"root must be an existing folder, got .*nowhere"):
        load_benchmark("sketchy-25", tmp_path / "nowhere")


def test_validation_sketches_need_not_cover_every_class(tmp_path, list_layout):
    list_layout(tmp_path, ["a", "b"], ["d"], SKETCHY, parts=("test",))
    file = tmp_path / "zeroshot1" / SKETCHY[0].format("test")
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:1]))
    assert load_benchmark("own", tmp_path).validation_sketches.labels.tolist() == [0]


@pytest.mark.parametrize("root", ["x" * 300, "x" * 5000, "~nobody-here/x", "a\0b"])
def test_a_root_that_no_folder_can_have_is_refused_in_one_line(root):
    with pytest.raises(FileNotFoundError, match="root must be an existing folder, got ") as caught:
        load_benchmark("mine", root, unseen=["cat"])
    assert len(str(caught.value)) < 300


def test_a_root_that_is_no_path_is_a_type_error():
    with pytest.raises(TypeError, match="load_benchmark: root must be text or a Path, got int"):
        load_benchmark("mine", 3, unseen=["cat"])


def test_list_files_that_no_file_can_be_are_missing(tmp_path):
    lists = ("train_sketches", "train_photos", "test_sketches", "test_photos")
    with pytest.raises(FileNotFoundError, match=r"no such list file: .*\(4 of 4\)") as caught:
        benchmark_from_lists(
            "mine", tmp_path, seen=["cat"], unseen=["dog"], **dict.fromkeys(lists, "x" * 5000)
        )
    assert len(str(caught.value)) < 1500
