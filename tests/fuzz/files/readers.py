"""Cases of damaged files: each is read by the public entrance that a user would read it by."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from case import Case, Expect
from inputs import Draw

from files import samples
from files.damage import CANARY, damaged
from zsbir_fast.cli.app import main as command_line
from zsbir_fast.cli.train import parse_settings
from zsbir_fast.data.benchmarks import load_benchmark
from zsbir_fast.data.decode import decode_image
from zsbir_fast.data.filelists import read_class_list, read_file_list
from zsbir_fast.encoders.weight_files import read_weight_file
from zsbir_fast.methods.checkpoint_files import read_checkpoint
from zsbir_fast.methods.saving import load_model
from zsbir_fast.retrieval.feature_files import read_feature_pair
from zsbir_fast.runs.settings import read_settings
from zsbir_fast.text.answer_file import AnswerFile
from zsbir_fast.text.descriptions import load_descriptions
from zsbir_fast.text.quality import find_fault

_LISTS = (("sketch_tx_000000000000_ready_filelist", "sketch"), ("all_photo_filelist", "photo"))


def file_list(draw: Draw) -> Case:
    """A list of images."""
    path, how = _write(draw, "list.txt", samples.FILE_LIST)
    return _case(lambda: read_file_list(path), path, how, ("read_file_list",))


def class_list(draw: Draw) -> Case:
    """A list of classes."""
    path, how = _write(draw, "cname_cid.txt", samples.CLASS_LIST)
    return _case(lambda: read_class_list(path), path, how, ("read_class_list",))


def benchmark_of_lists(draw: Draw) -> Case:
    """A folder of lists, one of them damaged, with its images."""
    root = _folder("benchmark")
    content = next(iter(samples.everything()["images"].values()))
    lists = {"cname_cid.txt": b"cat 0\ndog 1\n", "cname_cid_zero.txt": b"owl 0\nfox 1\n"}
    for part, classes in (("train", ("cat", "dog")), ("zero", ("owl", "fox"))):
        for name, place in (
            ("sketch_tx_000000000000_ready_filelist", "sketch"),
            ("all_photo_filelist", "photo"),
        ):
            lines = []
            for label, one in enumerate(classes):
                file = root / place / one / "1.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
                lines.append(f"{place}/{one}/1.png {label}\n")
            lists[f"{name}_{part}.txt"] = "".join(lines).encode()
    spoilt = draw.one(tuple(lists))
    (root / "zeroshot1").mkdir(exist_ok=True)
    for name, text in lists.items():
        (root / "zeroshot1" / name).write_bytes(text)
    content, how = damaged(draw, lists[spoilt], ".txt")
    (root / "zeroshot1" / spoilt).write_bytes(content)
    names = ("load_benchmark", "read_file_list", "read_class_list", "ImageSet")

    def call() -> Any:
        found = load_benchmark("mine", root, layout="lists")
        return [found.train_sketches[0], found.test_photos[0]]

    return _case(call, root / spoilt, how, names, named=False)


def feature_pair(draw: Draw) -> Case:
    """Two files of embeddings."""
    first, second, *text = samples.everything()["features"]
    if draw.chance(0.3):
        first, second = text
    queries, how = _write(draw, "q.npz", first)
    gallery = _folder("other") / "g.npz"
    gallery.write_bytes(second)
    names = ("read_feature_pair", "evaluate_retrieval")
    return _case(lambda: read_feature_pair(queries, gallery), queries, how, names)


def eval_command(draw: Draw) -> Case:
    """``zsbir eval`` of two files of embeddings: an exit code and one line."""
    first, second, *_ = samples.everything()["features"]
    queries, how = _write(draw, "q.npz", first)
    gallery = _folder("other") / "g.npz"
    gallery.write_bytes(second)
    arguments = ["eval", "--queries", str(queries), "--gallery", str(gallery), "--ks", "2"]
    return _case(lambda: _command(arguments), queries, how, ("zsbir",), named=False)


def weight_file(draw: Draw) -> Case:
    """A state dict of any suffix."""
    suffix = draw.one((".safetensors", ".pt"))
    path, how = _write(draw, f"weights{suffix}", samples.everything()[suffix])
    return _case(lambda: read_weight_file(path), path, how, ("read_weight_file",))


def checkpoint(draw: Draw) -> Case:
    """A training checkpoint: a changed weight is never loaded."""
    content = samples.everything()["model"]["last.ckpt"]
    path, how = _write(draw, "last.ckpt", content)

    def check(stored: dict[str, Any]) -> str | None:
        same = all(
            torch.equal(stored["state_dict"][name], value)
            for name, value in samples.everything()["state"].items()
        )
        return None if same else "wrong value: damaged weights were loaded"

    case = _case(lambda: read_checkpoint(path), path, how, ("read_checkpoint",))
    case.check = None if "other objects" in how else check
    return case


def model_folder(draw: Draw) -> Case:
    """An exported model with one file damaged, or a damaged checkpoint in its place."""
    files = {k: v for k, v in samples.everything()["model"].items() if k != "last.ckpt"}
    folder = _folder("model")
    spoilt = draw.one(("model.json", "model.json", "model.json", *files))
    content, how = damaged(draw, files[spoilt], Path(spoilt).suffix)
    for name, whole in {**files, spoilt: content}.items():
        (folder / name).write_bytes(whole)
    names = ("load_model", "ModelIdentity", "build_model", "DMWAN", "build_encoder", "model_class")
    names += ("ClassText", "WeightedQuadrupletLoss", "CrossBatchMemory", "CosineClassifier")
    return _case(lambda: load_model(folder), folder / spoilt, how, names, named=False)


def settings_file(draw: Draw) -> Case:
    """A YAML config, read as it stands."""
    path, how = _write(draw, "config.yaml", samples.everything()["config"])
    return _case(lambda: read_settings(path), path, how, ("read_settings",))


def train_config(draw: Draw) -> Case:
    """A YAML config on the command line."""
    path, how = _write(draw, "config.yaml", samples.everything()["config"])

    def call() -> Any:
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                return parse_settings(["--config", str(path)])
        except SystemExit:
            raise ValueError(said.getvalue()) from None

    return _case(call, path, how, ("zsbir train",), named=False)


def image(draw: Draw) -> Case:
    """An image of any format."""
    name, content = draw.one(tuple(samples.everything()["images"].items()))
    path, how = _write(draw, f"image{Path(name).suffix}", content)

    def check(pixels: torch.Tensor) -> str | None:
        good = pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.dtype == torch.uint8
        return None if good else f"wrong value: {pixels.dtype}{list(pixels.shape)}"

    case = _case(lambda: decode_image(path), path, f"{name}: {how}", ("decode_image",))
    case.expect = "value" if how == "nothing" else "either"
    case.check = check
    return case


def descriptions(draw: Draw) -> Case:
    """A JSON file of sentences."""
    content, prompts = samples.DESCRIPTIONS, None
    if draw.chance(0.5):
        content, prompts = samples.ANSWERS, draw.one((None, "shape", "parts"))
    path, how = _write(draw, "sentences.json", content)
    return _case(
        lambda: load_descriptions(path, prompts=prompts), path, how, ("load_descriptions",)
    )


def answers(draw: Draw) -> Case:
    """A file of answers of a language model, which is gone on with: no bad answer comes out."""
    path, how = _write(draw, "answers.json", samples.ANSWERS)

    def check(file: AnswerFile) -> str | None:
        given = [*file.answer("cat", "shape"), *file.answer("cat", "parts")]
        bad = [s for s in given if find_fault("cat", s, others=("cat",)) is not None]
        return f"wrong value: {bad}" if bad else None

    case = _case(
        lambda: AnswerFile(path, source={"model": "m"}, others=("cat",), function="describe"),
        path,
        how,
        ("describe",),
    )
    case.check = check
    case.expect = "either" if how == "missing" else case.expect  # a file that begins
    return case


def memory_map(draw: Draw) -> Case:
    """A gallery on disk whose bytes are damaged behind its header: any numbers at all."""
    import zsbir_fast as zf

    array = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    stream = io.BytesIO()
    np.save(stream, array)
    head, body = stream.getvalue()[:128], stream.getvalue()[128:]
    content, how = damaged(draw, body, "")
    path = _folder("map") / "photos.npy"
    path.write_bytes(head + content[: len(body)].ljust(len(body), b"\0"))
    labels = np.arange(30) % 3

    def call() -> Any:
        made = zf.RetrievalEvaluator(ks=(5,))
        made.add_gallery(np.load(path, mmap_mode="r"), labels)
        return made.evaluate(array[:4], labels[:4])

    def check(result: Any) -> str | None:
        return None if 0 <= result.map <= 1 else f"wrong value: map is {result.map}"

    case = _case(call, path, how, ("RetrievalEvaluator",), named=False)
    case.check = check
    return case


def _folder(name: str) -> Path:
    folder = Path(name).absolute()
    folder.mkdir(exist_ok=True)
    return folder


def _write(draw: Draw, name: str, content: bytes) -> tuple[Path, str]:
    """Write a damaged copy; sometimes there is a folder in its place, or nothing."""
    path = _folder("damaged") / name
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    if draw.chance(0.02):
        path.mkdir()
        return path, "a folder"
    if draw.chance(0.02):
        return path, "missing"
    changed, how = damaged(draw, content, path.suffix)
    path.write_bytes(changed)
    return path, how


def _command(arguments: list[str]) -> None:
    """Run ``zsbir``; its complaint becomes an error."""
    out, complaint = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaint):
        code = command_line(arguments)
    text = complaint.getvalue()
    if code not in (0, 1, 2):
        raise AssertionError(f"exit code {code}: {text}")
    if code:
        if text.count("\n") != 1:
            raise AssertionError(f"not one line: {text!r}")
        raise ValueError(text)


def _case(
    read: Callable[[], Any], path: Path, how: str, names: Sequence[str], *, named: bool = True
) -> Case:
    """Reading a file: what it was asked for, or one clear error that names it; and no song."""
    expect: Expect = "value" if how == "nothing" else "either"
    if how in ("a folder", "missing"):
        expect = "refusal"

    def call() -> Any:
        Path(CANARY).unlink(missing_ok=True)
        try:
            return read()
        finally:
            if Path(CANARY).exists():
                raise AssertionError("the file ran code")

    says = f"{path.name}: {how}"
    return Case(call, says, names, expect, message=path.name if named else "")
