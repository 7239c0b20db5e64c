"""Tags of TIFF files and EXIF blocks, looked at before Pillow sees them.

Pillow warns of damaged tags and does not say in which file. Its warnings cannot be held back where
images are decoded in threads: Python's filters of warnings are those of the whole process.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from PIL import TiffTags

# Bytes of a value by its type in TIFF 6.0, and of BigTIFF's 64-bit numbers.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_TEXT = (1, 2, 7)  # types whose values are one, however many bytes
_EXIF = b"Exif\0\0"
_SEVERAL_PICTURES = b"MPF\0"


def are_whole(data: bytes) -> bool:
    """Tell whether the first directory of tags lies within its file and has values that fit.

    Args:
        data: a TIFF file, or an EXIF block with or without the name at its beginning.

    Returns:
        Whether Pillow reads it without a complaint.
    """
    while data.startswith(_EXIF):
        data = data[len(_EXIF) :]
    try:
        return _fit(data)
    except (struct.error, KeyError, OverflowError):
        return False


def is_tiff(data: bytes) -> bool:
    """Tell by its first four bytes whether a file is a TIFF."""
    return data[:2] in (b"II", b"MM") and (b"*" in data[2:4] or b"+" in data[2:4])


def is_jpeg(data: bytes) -> bool:
    """Tell by its first bytes whether a file is a JPEG."""
    return data.startswith(b"\xff\xd8\xff")


def without_broken_blocks(data: bytes) -> bytes:
    """Hide from Pillow the EXIF blocks of a JPEG that are damaged, and its index of pictures.

    Args:
        data: a JPEG file.

    Returns:
        The file with the same pixels. Of several pictures the first one counts anyway.
    """
    exif, hidden = [], []
    for marker, start, stop in _blocks(data):
        if marker == 0xE1 and data.startswith(_EXIF, start):
            exif.append((start, stop))
        elif marker == 0xE2 and data.startswith(_SEVERAL_PICTURES, start):
            hidden.append(start)
    if exif and not are_whole(b"".join(data[a + len(_EXIF) : b] for a, b in exif)):
        hidden += [start for start, _ in exif]
    if not hidden:
        return data
    found = bytearray(data)
    for start in hidden:
        found[start] = 0  # no longer the name of a block
    return bytes(found)


def _fit(data: bytes) -> bool:
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    big = b"+" in data[2:4]  # 43, BigTIFF
    word, entry, inline = ("Q", "HHQ8s", 8) if big else ("L", "HHL4s", 4)
    (at,) = struct.unpack_from(order + word, data, inline)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    at += 8 if big else 2
    total = 0
    for _ in range(count):
        tag, kind, number, value = struct.unpack_from(order + entry, data, at)
        at += struct.calcsize(order + entry)
        size = number * _SIZES.get(kind, 0)  # Pillow passes over other types
        if number > 1 and kind in _SIZES and kind not in _TEXT and TiffTags.lookup(tag).length == 1:
            return False
        if size <= inline:
            continue
        (place,) = struct.unpack(order + word, value)
        total += size
        if total > len(data) or place + size > len(data):
            return False
    struct.unpack_from(order + word, data, at)  # where the next directory is
    return True


def _blocks(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of the content of every block before the pixels."""
    at = 2
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 3:
        marker = data[at + 1]
        if marker == 0xDA:  # the pixels begin
            return
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # no block
            at += 1 if marker == 0xFF else 2
            continue
        stop = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, at + 4, stop
        at = max(stop, at + 4)
