"""What a JPEG or PNG file says of itself, read without decoding it: how many segments, scans and frames.

Each of them costs Pillow or libjpeg time that is out of proportion to the bytes it takes, so they are counted first.
Nothing here goes further than the limits, and a file that ends too early is left to the decoder to refuse.
"""

from __future__ import annotations

import re

# Photos have up to a dozen; each costs a pass over all pixels and may take only some bytes.
MAX_SCANS = 100
# A color profile or a long description takes one each 64 KB, a scan up to five.
MAX_SEGMENTS = 2000
# libpng writes one each 8 KB of compressed pixels.
MAX_CHUNKS = 2**16

# In the data of a scan, 0xff is followed by 0 (it is data) or by 0xd0 to 0xd7 (a restart), anywhere by 0xff (filling).
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_START_OF_SCAN, _START, _END, _TEMPORARY = 0xDA, 0xD8, 0xD9, 0x01


def jpeg_problem(data: bytes) -> str:
    """Why a JPEG file is not to be decoded, or ""."""
    place, scans = 2, 0
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(data, place)
        if found is None or found[1][0] == _END:
            return ""
        place = found.end()
        if found[1][0] in (_START, _TEMPORARY):
            continue
        place += max(2, int.from_bytes(data[place : place + 2], "big"))
        scans += found[1][0] == _START_OF_SCAN
        if scans > MAX_SCANS:
            return f"has more than {MAX_SCANS} scans"
    return f"has more than {MAX_SEGMENTS} segments"


def png_problem(data: bytes) -> str:
    """Why a PNG file is not to be decoded, or ""."""
    place = 8
    for _ in range(MAX_CHUNKS):
        if place + 8 > len(data):
            return ""
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if kind == b"acTL" and int.from_bytes(data[place + 8 : place + 12], "big") != 1:
            return "is an animated PNG, expected a still one"
        place += 12 + length
    return f"has more than {MAX_CHUNKS} chunks"
