"""Ways to damage a file: bytes of any kind, headers, and what a stranger would plant."""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inputs import Draw

CANARY = "canary"  # in the child's folder: whoever runs code from a file leaves it there


class Planted:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (Path(CANARY), "it sang"))


def damaged(draw: Draw, content: bytes, kind: str) -> tuple[bytes, str]:
    """Damage a file, or leave it.

    Args:
        draw: random choices.
        content: a valid file.
        kind: suffix of its format.

    Returns:
        The bytes and what was done; ``"nothing"`` where they are as they were.
    """
    if draw.chance(0.1):
        return content, "nothing"
    ways = {**_BYTES, **_OF_KIND.get(kind, {})}
    # What suits the format finds more than bytes at random.
    names = list(ways) + 2 * list(_OF_KIND.get(kind, {}))
    done = []
    for _ in range(draw.one((1, 1, 1, 2, 5))):
        name = draw.one(names)
        content = ways[name](draw, content)
        done.append(name)
    return content, ", ".join(done)


def _place(draw: Draw, content: bytes) -> int:
    """Anywhere, but often near the ends, where headers and tables are."""
    size = max(1, len(content))
    near = int(draw.rng.integers(0, min(size, 300)))
    return draw.one((int(draw.rng.integers(0, size)), near, size - 1 - near))


def _cut(draw: Draw, content: bytes) -> tuple[bytes, bytes, bytes]:
    start = _place(draw, content)
    stop = start + int(draw.rng.integers(1, draw.one((2, 9, 200, 5000))))
    return content[:start], content[start:stop], content[stop:]


def _flip(draw: Draw, content: bytes) -> bytes:
    found = bytearray(content or b"\0")
    for _ in range(draw.one((1, 1, 3, 20, 2000))):
        found[_place(draw, bytes(found))] ^= 1 << int(draw.rng.integers(8))
    return bytes(found)


def _insert(draw: Draw, content: bytes) -> bytes:
    at = _place(draw, content)
    return content[:at] + draw.rng.bytes(draw.one((1, 2, 8, 500))) + content[at:]


def _zero(draw: Draw, content: bytes) -> bytes:
    before, middle, after = _cut(draw, content)
    return before + bytes(len(middle)) + after


def _twice(draw: Draw, content: bytes) -> bytes:
    before, middle, after = _cut(draw, content)
    return before + middle * draw.one((2, 2, 50)) + after


def _without(draw: Draw, content: bytes) -> bytes:
    before, _, after = _cut(draw, content)
    return before + after


def _swap(draw: Draw, content: bytes) -> bytes:
    before, first, after = _cut(draw, content)
    between, second, rest = _cut(draw, after)
    return before + second + between + first + rest


def _absurd_number(draw: Draw, content: bytes) -> bytes:
    """Four or eight bytes become a size that no file has."""
    at, width = _place(draw, content), draw.one(("<I", "<Q", ">I", ">Q"))
    number = draw.one((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1))
    packed = struct.pack(width, number % 256 ** struct.calcsize(width))
    return content[:at] + packed + content[at + len(packed) :]


def _absurd_digits(draw: Draw, content: bytes) -> bytes:
    """A number in decimal digits becomes another one."""
    found = list(re.finditer(rb"\d+", content[:100_000]))
    if not found:
        return content
    one = draw.one(found)
    number = draw.one((b"0", b"-1", b"9" * 30, b"4294967296", b"99999999999", b"1e400", b"nan"))
    return content[: one.start()] + number + content[one.end() :]


_BYTES: dict[str, Callable[[Draw, bytes], bytes]] = {
    "bits flipped": _flip,
    "end cut off": lambda d, c: c[: _place(d, c)],
    "bytes inserted": _insert,
    "block zeroed": _zero,
    "block repeated": _twice,
    "block left out": _without,
    "blocks exchanged": _swap,
    "absurd number": _absurd_number,
    "absurd digits": _absurd_digits,
    "emptied": lambda d, c: b"",
    "noise": lambda d, c: d.rng.bytes(d.one((1, 10, 3000))),
    "zeros": lambda d, c: bytes(d.one((1, 100, 100_000))),
    "pickle that runs code": lambda d, c: pickle.dumps(Planted(), protocol=d.one((2, 4))),
}

_ODD_VALUES = (None, [], {}, True, -1, 0, 10**30, 1e308, "", "x" * 2000, "\ud800", [[1]], "../..")


def _odd_json(draw: Draw, content: bytes) -> bytes:
    """A value of a JSON file becomes another one, is renamed or goes."""
    try:
        stored = json.loads(content)
    except (ValueError, RecursionError):
        return content
    places = list(_places(stored))
    if not places:
        return content
    holder, key = draw.one(places)
    if isinstance(holder, dict) and draw.chance(0.2):
        holder[draw.one(("", "x", "format", "classes"))] = holder.pop(key)
    elif draw.chance(0.15):
        del holder[key]
    else:
        holder[key] = draw.one(_ODD_VALUES)
    return json.dumps(stored).encode()


def _places(stored: Any) -> Any:
    if isinstance(stored, dict | list):
        for key in list(stored) if isinstance(stored, dict) else range(len(stored)):
            yield stored, key
            yield from _places(stored[key])


def _other_root(draw: Draw, content: bytes) -> bytes:
    return json.dumps(draw.one(_ODD_VALUES)).encode()


def _deep(draw: Draw, content: bytes) -> bytes:
    depth = draw.one((500, 100_000))
    return draw.one((b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth))


def _aliases(draw: Draw, content: bytes) -> bytes:
    """A YAML file of a few lines that names 10^9 entries."""
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    return content + ("\n" + "\n".join(lines) + "\nmodel: *a9\n").encode()


def _odd_yaml(draw: Draw, content: bytes) -> bytes:
    """A value of a line becomes another one."""
    lines = content.split(b"\n")
    at = int(draw.rng.integers(len(lines)))
    key = lines[at].partition(b":")[0]
    plain = b"~ [] {} -1 1e400 .nan 'x' *nobody 99999999999999999999999 2020-13-45".split(b" ")
    value = draw.one([*plain, b"", b"\t", b"!!binary x", b"? x", b"!!python/object:os.system x"])
    lines[at] = key + b": " + value
    return b"\n".join(lines)


def _odd_line(draw: Draw, content: bytes) -> bytes:
    """A line of a list becomes another one."""
    lines = content.split(b"\n")
    at = int(draw.rng.integers(len(lines)))
    lines[at] = draw.one(
        (
            b"just_a_path.png",
            b"a.png 1.5",
            b"a.png -3",
            b"a.png 99999999999999999999999",
            b"7",
            b"a.png \xd9\xa3",  # a digit of another script
            b"a.png \xc2\xb2",  # a superscript
            b"\xff\xfe a 1",
            b"a\x00b.png 1",
            b"\xef\xbb\xbfa.png 0",
            b"x" * 100_000 + b" 1",
            b"a.png 0\r",
            b"a.png " + b"9" * 5000,
        )
    )
    return b"\n".join(lines)


def _odd_arrays(draw: Draw, content: bytes) -> bytes:
    """An ``.npz`` with other arrays: no rows, no columns, other types, objects, none at all."""
    n = draw.one((0, 1, 3))
    arrays: dict[str, Any] = {
        "embeddings": draw.one(
            (
                np.ones((n, 4), np.float32),
                np.ones((n, 0), np.float32),
                np.ones((n, 4), np.complex64),
                np.full((n, 4), np.nan),
                np.full((n, 4), np.inf, np.float16),
                np.ones((n, 4), np.longdouble),
                np.ones(n),
                np.float64(3),
                np.array([Planted()] * 2, dtype=object),
            )
        ),
        "labels": draw.one(
            (
                np.arange(n),
                np.full(n, 2**63 + 1, np.uint64),
                np.ones(n),
                np.array(["x"] * n),
                np.array([b"x"] * n),
                np.array([Planted()] * n, dtype=object),
                np.zeros((n, 1), int),
                np.zeros(n, "datetime64[s]"),
            )
        ),
    }
    if draw.chance(0.2):
        del arrays[draw.one(("embeddings", "labels"))]
    stream = io.BytesIO()
    draw.one((np.savez, np.savez_compressed))(stream, **arrays)
    return stream.getvalue()


def _absurd_shape(draw: Draw, content: bytes) -> bytes:
    """An ``.npz`` whose array claims a shape that its bytes do not have; sums are right."""
    shape = draw.one(("(10000000000, 4)", "(3, 99999999999)", "(-1, 4)", "(2, 2, 2)", "(3,)", "x"))
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    header = text.encode().ljust(117) + b"\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(48)
    return _zip(draw, {"embeddings.npy": array, "labels.npy": array})


def _zip_bomb(draw: Draw, content: bytes) -> bytes:
    """64 KiB that unpack to 64 MiB of zeros under a header that says so."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4194304, 4), }".ljust(117) + b"\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(2**26)
    return _zip(draw, {"embeddings.npy": array, "labels.npy": array[:1000]}, packed=True)


def _zip(draw: Draw, members: dict[str, bytes], *, packed: bool = False) -> bytes:
    stream = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if packed or draw.chance(0.5) else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return stream.getvalue()


def _odd_header(draw: Draw, content: bytes) -> bytes:
    """A ``.safetensors`` with another header: absurd shapes, offsets, types."""
    size = struct.unpack("<Q", content[:8].ljust(8, b"\0"))[0] if content else 0
    header = content[8 : 8 + min(size, 10_000_000)]
    changed = _deep(draw, header) if draw.chance(0.1) else _odd_json(draw, header)
    if draw.chance(0.5):
        changed = _absurd_digits(draw, changed)
    length = len(changed) if draw.chance(0.9) else draw.one((0, 2**63, 10**9, size))
    return struct.pack("<Q", length) + changed + content[8 + size :]


def _other_objects(draw: Draw, content: bytes) -> bytes:
    """What ``torch.save`` makes of other objects."""
    odd: tuple[Any, ...] = (
        Planted(),
        {"zsbir": Planted(), "state_dict": {}},
        {"zsbir": {}, "state_dict": None},
        {"zsbir": [], "state_dict": [1]},
        {"zsbir": {"format": 1}, "state_dict": {"model.x": 3}},
        {"state_dict": {1: torch.ones(2)}},
        [torch.ones(3)],
        None,
        {"model": {"a": torch.ones(1).expand(2**40)}},
        {"a": torch.ones(2).to_sparse()},
        {"a": torch.empty(2**45, device="meta")},
    )
    stream = io.BytesIO()
    torch.save(draw.one(odd), stream, _use_new_zipfile_serialization=draw.chance(0.8))
    return stream.getvalue()


_TEXT = {"odd line": _odd_line}
_JSON = {"odd value": _odd_json, "other root": _other_root, "very deep": _deep}
_NPZ = {"odd arrays": _odd_arrays, "absurd shape": _absurd_shape, "zip bomb": _zip_bomb}
_OF_KIND: dict[str, dict[str, Callable[[Draw, bytes], bytes]]] = {
    ".txt": _TEXT,
    ".json": _JSON,
    ".yaml": {"odd value": _odd_yaml, "aliases": _aliases, "very deep": _deep},
    ".npz": _NPZ,
    ".safetensors": {"odd header": _odd_header},
    ".ckpt": {"other objects": _other_objects},
    ".pt": {"other objects": _other_objects},
}
