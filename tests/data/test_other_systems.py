"""Datasets as other systems and other hands leave them."""

from __future__ import annotations

import codecs
import shutil
import unicodedata

import pytest
from PIL import Image

from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.data.file_tree import FileTree
from zsbir_fast.data.filelists import read_class_list, read_file_list, write_file_list

LISTS = ("sketch_filelist_{}.txt", "photo_filelist_{}.txt")
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "piñata") for form in ("NFC", "NFD"))


def both(class_folders, root, classes, **options):
    for place in ("sketch", "photo"):
        class_folders(root / place, classes, **options)
    return root


# ----------------------------------------------------------------- class names


@pytest.mark.parametrize(
    "names", [("बेल", "बाल"), ("c++", "c#"), ("\U0001f431", "\U0001f436"), ("é", "e")]
)
def test_the_photos_of_another_class_are_never_taken(tmp_path, class_folders, names):
    both(class_folders, tmp_path, [*names, "cat"])
    for unseen, seen in (names, names[::-1]):
        benchmark = load_benchmark("own", tmp_path, unseen=[unseen])
        assert {path.parent.name for path in benchmark.test_photos.paths} == {unseen}
        assert {path.parent.name for path in benchmark.train_photos.paths} == {seen, "cat"}
    shutil.rmtree(tmp_path / "photo" / names[0])
    with pytest.raises(FileNotFoundError, match="must have a photo folder, got none for"):
        load_benchmark("own", tmp_path, seen=["cat", names[1]], unseen=[names[0]])


def test_composed_and_decomposed_names_are_one_class(tmp_path, class_folders):
    class_folders(tmp_path / "sketch", [COMPOSED, "cat"])
    class_folders(tmp_path / "photo", [DECOMPOSED, "cat"])
    for name in (COMPOSED, DECOMPOSED):
        benchmark = load_benchmark("own", tmp_path, unseen=[name])
        assert benchmark.seen == ("cat",)
        assert len(benchmark.test_sketches) == len(benchmark.test_photos) == 2
    class_folders(tmp_path / "photo", [COMPOSED])
    with pytest.raises(ValueError, match=r"class folders in .*photo must .*\\u0303.*\\xf1"):
        load_benchmark("own", tmp_path, unseen=[COMPOSED])


def test_the_nearest_folder_is_named(tmp_path, class_folders):
    both(class_folders, tmp_path, ["zebra", "cat"])
    with pytest.raises(FileNotFoundError, match=r"for 'zebbra' \(did you mean 'zebra'\?\) \(1 of"):
        load_benchmark("own", tmp_path, unseen=["zebbra"])


def test_a_text_is_no_list_of_classes(tmp_path, class_folders):
    both(class_folders, tmp_path, ["a", "b"])
    with pytest.raises(TypeError, match="unseen classes must be a list of names, got the text 'b'"):
        load_benchmark("own", tmp_path, unseen="b")
    with pytest.raises(TypeError, match="photo_folders must be a list of folders, got 'photo'"):
        load_benchmark("own", tmp_path, unseen=["b"], photo_folders="photo")


def test_classes_of_one_modality_are_named(tmp_path, class_folders):
    class_folders(tmp_path / "sketch", ["a", "b", "drawn"])
    class_folders(tmp_path / "photo", ["a", "b", "seen 1", "seen 2"])
    message = (
        r"must have sketches and photos, got only sketches of 'drawn' \(1\); only photos of "
        r"'seen 1', 'seen 2' \(2\); these classes are left out"
    )
    with pytest.warns(UserWarning, match=message):
        assert load_benchmark("own", tmp_path, unseen=["b"]).seen == ("a",)
    with pytest.warns(UserWarning, match=r"3 class folders .*: 'drawn', 'seen 1', 'seen 2'"):
        load_benchmark("own", tmp_path, seen=["a"], unseen=["b"])
    for name in ("seen 1", "seen 2"):
        shutil.rmtree(tmp_path / "photo" / name)
    with pytest.raises(FileNotFoundError, match="must have a photo folder, got none for 'drawn'"):
        load_benchmark("own", tmp_path, seen=["a", "drawn"], unseen=["b"])


def test_classes_of_one_modality_in_lists_are_named(tmp_path, list_layout):
    list_layout(tmp_path, ["a", "b"], ["c"], LISTS)
    photos = tmp_path / "zeroshot1" / "photo_filelist_train.txt"
    write_file_list(photos, ["photo/a/train0.jpg"], [0])
    with pytest.raises(ValueError, match=r"at least one photo, got none in .* for 'b' \(1 of 2"):
        load_benchmark("own", tmp_path)


# ------------------------------------------------------------------ file names


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".ppm", ".pgm", ".avif", ".PNG", ".img", ""])
def test_every_image_is_taken_whatever_its_name(tmp_path, class_folders, draw, suffix):
    if suffix == ".avif" and suffix not in Image.registered_extensions():
        pytest.skip("this Pillow was built without AVIF")
    both(class_folders, tmp_path, ["a", "b"])
    kind = {".jfif": ".jpg", ".jpe": ".jpg", ".PNG": ".png", ".img": ".gif", "": ".png"}
    image = draw(tmp_path / f"x{kind.get(suffix, suffix)}")
    image.rename(tmp_path / "photo" / "b" / f"7{suffix}")
    photos = load_benchmark("own", tmp_path, unseen=["b"]).test_photos
    assert [path.name for path in photos.paths] == ["0.png", "1.png", f"7{suffix}"]
    assert photos[2][0].shape == (3, 12, 10)


def test_what_is_left_out_of_a_class_folder_is_named(tmp_path, class_folders, draw):
    both(class_folders, tmp_path, ["a", "b"])
    (tmp_path / "photo" / "b" / "sketch.svg").write_text("<svg/>")
    (tmp_path / "photo" / "b" / "empty").touch()
    draw(tmp_path / "photo" / "b" / "2019" / "1.png")
    for name in ("Thumbs.db", "desktop.ini", "notes.txt", ".DS_Store"):
        (tmp_path / "photo" / "b" / name).write_text("x")
    message = r"hold images, got 3 other entries, .*: '.*b/2019', '.*b/empty', '.*b/sketch\.svg'$"
    with pytest.warns(UserWarning, match=message):
        assert len(load_benchmark("own", tmp_path, unseen=["b"]).test_photos) == 2


# ------------------------------------------------------------ folders of photos


@pytest.mark.parametrize("extension", ["extended_photo", "EXTEND_image_sketchy"])
@pytest.mark.parametrize("base", ["photo", "photo/tx_000000000000", "images"])
def test_sketchys_photos_and_their_extension_are_joined(tmp_path, class_folders, base, extension):
    class_folders(tmp_path / "sketch", ["a", "b"])
    class_folders(tmp_path / base, ["a", "b"], images=3)
    class_folders(tmp_path / extension, ["a", "b"], images=2, suffix="x.jpg")
    benchmark = load_benchmark("own", tmp_path, unseen=["b"])
    names = [path.name for path in benchmark.test_photos.paths]
    assert names == ["0.png", "1.png", "2.png", "0x.jpg", "1x.jpg"]
    assert len(benchmark.train_photos) == 5


def test_folders_that_are_left_out_are_named(tmp_path, class_folders):
    for place in ("sketch", "sketches", "extended_photo", "photo", "images"):
        class_folders(tmp_path / place, ["a", "b"])
    with pytest.warns(UserWarning, match="left out") as caught:
        benchmark = load_benchmark("own", tmp_path, unseen=["b"])
    assert len(benchmark.test_photos) == 2
    sketches, photos = (str(warning.message) for warning in caught)
    assert "'sketch' taken, 'sketches' left out; sketch_folders chooses others" in sketches
    alike = "(4 of its 4 files are named alike)"
    assert f"'extended_photo' taken, 'photo' {alike}, 'images' {alike} left out" in photos
    load_benchmark(
        "own", tmp_path, unseen=["b"], sketch_folders=["sketch"], photo_folders=["photo"]
    )


def test_a_folder_with_two_names_is_one(tmp_path, class_folders):
    both(class_folders, tmp_path, ["a", "b"])
    (tmp_path / "images").symlink_to(tmp_path / "photo")
    assert len(load_benchmark("own", tmp_path, unseen=["b"]).test_photos) == 2


def test_folders_that_are_given_must_be_right(tmp_path, class_folders):
    both(class_folders, tmp_path, ["a", "b"])
    (tmp_path / "other" / "x").mkdir(parents=True)
    options = {"seen": ["a"], "unseen": ["b"]}
    with pytest.raises(FileNotFoundError, match=r"photo_folders must be .*, got 'foto', which is"):
        load_benchmark("own", tmp_path, **options, photo_folders=["photo", "foto"])
    with pytest.raises(ValueError, match=r"got 'other', where no class fits: 'x'"):
        load_benchmark("own", tmp_path, **options, sketch_folders=["sketch", "other"])


def test_a_root_may_begin_at_home(tmp_path, class_folders, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    both(class_folders, tmp_path / "data", ["a", "b"])
    benchmark = load_benchmark("own", "~/data", unseen=["b"], photo_folders=["~/data/photo"])
    assert benchmark.test_photos[0][1] == 0
    (tmp_path / "names.txt").write_text("cat 0\n")
    assert read_class_list("~/names.txt") == ("cat",)


# ----------------------------------------------------------------------- lists


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ],
)
def test_lists_in_every_encoding_of_windows(tmp_path, mark, encoding):
    path = tmp_path / "list.txt"
    path.write_bytes(mark + "piñata/1.png 0  \r\n\r\ncat/2.png\t1\r\n".encode(encoding))
    assert read_file_list(path) == (("piñata/1.png", "cat/2.png"), (0, 1))


@pytest.mark.parametrize("raw", ["cat 0\n".encode("utf-16-le"), "piñata 0\n".encode("cp1252")])
def test_lists_in_other_encodings_are_refused(tmp_path, raw):
    (tmp_path / "list.txt").write_bytes(raw)
    with pytest.raises(ValueError, match=r"list\.txt must be UTF-8 text, got: "):
        read_class_list(tmp_path / "list.txt")


@pytest.mark.parametrize(
    "written",
    [
        "{}",
        ".\\{}",
        "D:\\Data\\Sketchy\\{}",
        "D:/Data/Sketchy/{}",
        "\\\\server\\share\\Sketchy\\{}",
        "/home/someone/Sketchy/{}",
    ],
)
def test_lists_with_paths_of_another_machine(tmp_path, list_layout, written):
    list_layout(tmp_path, ["a", COMPOSED], ["c"], LISTS)
    expected = load_benchmark("own", tmp_path).train_photos.paths
    for file in (tmp_path / "zeroshot1").glob("*filelist*"):
        lines = file.read_text().splitlines()
        if "/" in written and "\\" not in written:
            text = "\n".join(written.format(line) for line in lines)
        else:
            text = "\r\n".join(written.format(line.replace("/", "\\")) for line in lines)
        file.write_text(unicodedata.normalize("NFD", text) + "\r\n")
    assert load_benchmark("own", tmp_path).train_photos.paths == expected


def test_missing_files_of_a_list_are_counted_and_named(tmp_path, list_layout):
    list_layout(tmp_path, ["a", "b"], ["c"], LISTS)
    for number in (0, 1):
        (tmp_path / "photo" / "b" / f"train{number}.jpg").unlink()
    message = r"train\.txt must start from .*, but 2 of 4 files are missing: 'photo/b/train0.jpg', "
    with pytest.raises(FileNotFoundError, match=message):
        load_benchmark("own", tmp_path)


def test_missing_lists_are_counted_and_named(tmp_path, list_layout):
    list_layout(tmp_path, ["a"], ["b"], LISTS)
    for name in LISTS:
        (tmp_path / "zeroshot1" / name.format("train")).unlink()
    with pytest.raises(FileNotFoundError, match=r"list file: '.*sketch_.*', '.*photo_.*' \(2 of 4"):
        load_benchmark("own", tmp_path)


def test_paths_are_found_only_where_one_file_fits(tmp_path, draw):
    for name in ("Photo/Cat/1.JPG", "photo/cat/1.png", "photo/cat/A.png", "photo/cat/a.png"):
        draw(tmp_path / name)
    tree = FileTree(tmp_path)
    assert tree.find("photo/cat/1.png") == tmp_path / "photo/cat/1.png"
    assert tree.find("photo/CAT/1.PNG") == tmp_path / "photo/cat/1.png"
    assert tree.find("photo/../Photo/Cat/1.JPG") is not None
    assert tree.find("PHOTO/cat/1.png") is None  # two folders fit
    assert tree.find("photo/cat/a.PNG") is None  # two files fit
    assert tree.find("photo/cat") == tmp_path / "photo/cat"
    assert tree.find("C:\\x\\photo\\cat\\1.png") == tmp_path / "photo/cat/1.png"
    assert tree.find("C:\\y\\photo\\cat\\1.png") is None  # another start than before


# ----------------------------------------------------------------------- leaks


def test_an_image_in_training_and_in_the_test_is_refused(tmp_path, list_layout):
    list_layout(tmp_path, ["a"], ["b"], LISTS)
    with (tmp_path / "zeroshot1" / "photo_filelist_train.txt").open("a") as file:
        file.write("photo/b/zero1.jpg 0\n")
    with pytest.raises(ValueError, match=r"every image must be in training or in the test, got 1 "):
        load_benchmark("own", tmp_path)


def test_a_file_that_is_sketch_and_photo_is_refused(tmp_path, class_folders):
    both(class_folders, tmp_path, ["a", "b"])
    with pytest.raises(ValueError, match=r"must be a sketch or a photo, got 2 that are both: '"):
        load_benchmark("own", tmp_path, unseen=["b"], photo_folders=["sketch"])


def test_files_that_are_listed_twice_are_named(tmp_path, list_layout):
    list_layout(tmp_path, ["a", "b"], ["c"], LISTS)
    file = tmp_path / "zeroshot1" / LISTS[1].format("train")
    whole = file.read_text()
    file.write_text(whole + "photo/a/train1.jpg 0\n")
    with pytest.warns(UserWarning, match=r"got 1 more than once, .*: 'photo/a/train1\.jpg'"):
        assert len(load_benchmark("own", tmp_path).train_photos) == 5
    file.write_text(whole + "photo/a/train1.jpg 1\n")
    with pytest.raises(ValueError, match=r"must have one label, got 0 and 1 for 'photo/a/train1"):
        load_benchmark("own", tmp_path)


def test_names_of_folders_that_are_no_text_are_refused(tmp_path, class_folders):
    both(class_folders, tmp_path, ["a", "b", "pi\udcf1ata"])  # as Windows-1252 has it
    with pytest.raises(ValueError, match=r"seen classes must be Unicode text, got 'pi\\udcf1ata'"):
        load_benchmark("own", tmp_path, unseen=["b"])


def test_classes_have_an_order(tmp_path, class_folders):
    both(class_folders, tmp_path, ["a", "b", "c"])
    for unseen in ({"a", "b"}, iter(["a", "b"]), {"a": 0}):
        with pytest.raises(TypeError, match="unseen classes must be a list of names, got "):
            load_benchmark("own", tmp_path, unseen=unseen)


def test_folders_have_no_place_in_lists(tmp_path, list_layout):
    list_layout(tmp_path, ["a"], ["b"], LISTS)
    with pytest.raises(ValueError, match=r"photo_folders must be None for layout 'lists', whose"):
        load_benchmark("own", tmp_path, layout="lists", photo_folders=["photo"])
