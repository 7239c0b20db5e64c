from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsbir_fast.data.filelists import (
    read_class_list,
    read_file_list,
    read_names,
    write_class_list,
    write_file_list,
)

_WORD = st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1, max_size=8)
_NAME = st.lists(_WORD, min_size=1, max_size=3).map(" ".join)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(_NAME, st.integers(0, 300)), min_size=1, max_size=20))
def test_what_is_written_is_read_back(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("lists") / "list.txt"
    names, labels = zip(*entries, strict=True)
    write_file_list(path, names, labels)
    assert read_file_list(path) == (names, labels)


def test_paths_may_contain_spaces_and_path_objects(tmp_path):
    path = tmp_path / "deep" / "list.txt"
    write_file_list(path, [Path("sketch") / "alarm clock" / "1.png", "a 2.jpg"], [3, 0])
    assert path.read_text() == "sketch/alarm clock/1.png 3\na 2.jpg 0\n"
    assert read_file_list(path, classes=4).paths == ("sketch/alarm clock/1.png", "a 2.jpg")


def test_empty_lines_and_windows_line_ends_are_fine(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"a.png 0\r\n\r\nb.png\t1\r\n")
    assert read_file_list(path) == (("a.png", "b.png"), (0, 1))


def test_class_lists(tmp_path):
    path = tmp_path / "cname_cid.txt"
    write_class_list(path, ["hot air balloon", "cat"])
    assert read_class_list(path) == ("hot air balloon", "cat")
    path.write_text("cat 1\ndog 0\n")
    assert read_class_list(path) == ("dog", "cat")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png 0\nb.png\n", r"line 2 of .*list\.txt must be 'relative/path label', got 'b\.png'"),
        ("a.png x\n", r"line 1 of .* must be 'relative/path label', got 'a\.png x'"),
        ("a.png 1.0\n", r"line 1 of .* must be 'relative/path label'"),
        ("a.png 0\nb c.png 5\n", r"line 2 of .* in 0\.\.4 \(5 classes\), got 5 for 'b c\.png'"),
        ("a.png -1\n", r"line 1 of .* must have a label in 0\.\.4 \(5 classes\), got -1"),
        ("\n\n", r"list\.txt must have at least one entry, got none"),
    ],
)
def test_malformed_file_lists_are_located(tmp_path, text, message):
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"read_file_list: .*{message}"):
        read_file_list(path, classes=5)


def test_negative_labels_are_refused_without_a_number_of_classes(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a.png -1\n")
    with pytest.raises(ValueError, match="must have a label from 0 on, got -1"):
        read_file_list(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat 0\ndog 0\n", "line 2 of .* must have a new class id, got 0 of 'cat' again for 'dog'"),
        ("cat 0\ndog 2\n", r"class ids of .* must be 0\.\.1, got none for 1"),
        ("cat\n", "line 1 of .* must be 'class name label', got 'cat'"),
    ],
)
def test_malformed_class_lists_are_located(tmp_path, text, message):
    path = tmp_path / "cname_cid.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"read_class_list: {message}"):
        read_class_list(path)


def test_missing_and_undecodable_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"read_file_list: no such list file: .*none\.txt"):
        read_file_list(tmp_path / "none.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00a 0\n")
    with pytest.raises(ValueError, match=r"read_class_list: .*binary\.txt must be UTF-8 text"):
        read_class_list(tmp_path / "binary.txt")


@pytest.mark.parametrize(
    ("files", "labels", "message"),
    [
        (["a"], [0, 1], "paths and labels must be of equal length, got 1 and 2"),
        (["a\nb"], [0], "every entry must be one line"),
        ([" a"], [0], "without blanks at its ends"),
        (["a"], [-1], "with a label from 0 on, got 'a' -1"),
    ],
)
def test_entries_that_could_not_be_read_back_are_not_written(tmp_path, files, labels, message):
    with pytest.raises(ValueError, match=f"write_file_list: .*{message}"):
        write_file_list(tmp_path / "list.txt", files, labels)
    assert not list(tmp_path.iterdir())


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_list_or_an_error_that_names_the_file(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("bytes") / "list.txt"
    path.write_bytes(raw)
    for read in (read_file_list, read_class_list):
        fault = ""
        try:
            assert len(read(path)) > 0
        except ValueError as error:
            fault = str(error)
        assert not fault or str(path) in fault


@pytest.mark.parametrize("read", [read_file_list, read_class_list])
def test_what_the_system_refuses_is_one_line_that_names_the_file(tmp_path, read):
    name = read.__name__
    with pytest.raises(IsADirectoryError) as caught:
        read(tmp_path)
    told = f"{name}: {tmp_path} must be a readable list file, got: Is a directory"
    assert str(caught.value) == told
    with pytest.raises(OSError, match="must be a readable list file, got: File name too long") as e:
        read("x" * 5000)
    assert len(str(e.value)) < 400
    with pytest.raises(TypeError, match=f"{name}: path must be text or a Path, got NoneType"):
        read(None)
    with pytest.raises(FileNotFoundError, match=f"{name}: no such list file: ~nobody-here/x"):
        read("~nobody-here/x")


def test_labels_of_thousands_of_digits_are_refused_and_zeros_are_read(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(f"a.png {'9' * 5000}\n")
    for read in (read_file_list, read_class_list):
        with pytest.raises(ValueError, match=r"line 1 of .* label of at most 18 digits") as caught:
            read(path)
        assert str(caught.value).endswith(f"got '{'9' * 200}'... (5,000 characters)")
    path.write_text(f"a.png {'0' * 5000}7\n")
    assert read_file_list(path) == (("a.png",), (7,))


def test_a_line_without_end_is_cut_in_the_message(tmp_path):
    path = tmp_path / "list.txt"
    for text in ("x" * 100_000, f"{'x' * 100_000} -1", f"a 0\n{'x' * 100_000} 0"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"x'\.\.\. \(100,00\d characters\)") as caught:
            read_file_list(path) if "\n" not in text else read_class_list(path)
        assert len(str(caught.value)) < 500


def test_names_are_lines_or_a_class_list(tmp_path):
    path = tmp_path / "names.txt"
    for text, names in {
        "zebra\n\n hot dog \n": ("zebra", "hot dog"),
        "hot dog 1\nzebra 0\n": ("zebra", "hot dog"),
        "area 51\nzebra\n": ("area 51", "zebra"),
        "747\n": ("747",),
    }.items():
        path.write_text(text)
        assert read_names(path) == names
    path.write_text(" \n")
    with pytest.raises(ValueError, match=r"^read_names: .*names\.txt must have at least one name"):
        read_names(path)
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match=r"^read_names: .*names\.txt must be UTF-8 text, got: "):
        read_names(path)
    with pytest.raises(FileNotFoundError, match=r"^read_names: no such list file: "):
        read_names(tmp_path / "none.txt")
