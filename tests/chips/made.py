"""Images that fit a kind of board, as MicroPython's build makes them."""

from __future__ import annotations

import random
import struct
import zlib

from chips.boards import Kind


def esp_image(kind: Kind, size: int = 200_000, version: str = "1.28.0") -> bytes:
    """An image as MicroPython's build makes it: header, chip id, version, and bytes that do not compress well."""
    filler = random.Random(kind.key).randbytes(size)
    head = bytes([0xE9, 1, 0, 0x20]) + bytes(8) + struct.pack("<H", kind.image_chip_id or 0) + bytes(10)
    return head + filler[:1000] + b"\0v" + version.encode() + b"\0" + filler


def dfu_image(size: int = 5000, vendor: int = 0x0483) -> bytes:
    """A .dfu as MicroPython's tools/dfu.py makes it: one target of one element at the beginning of the flash."""
    data = struct.pack("<II", 0x20020000, 0x08000189) + random.Random(size).randbytes(size)
    element = struct.pack("<II", 0x08000000, len(data)) + data
    target = struct.pack("<6sBI255sII", b"Target", 0, 1, b"ST...", len(element), 1) + element
    content = struct.pack("<5sBIB", b"DfuSe", 1, 11 + len(target), 1) + target
    content += struct.pack("<HHHH3sB", 0, 0xDF11, vendor, 0x011A, b"UFD", 16)
    return content + struct.pack("<I", zlib.crc32(content) ^ 0xFFFFFFFF)


def uf2_image(family: int = 0xE48BFF56, blocks: int = 300, version: str = "1.28.0") -> bytes:
    """A UF2 file as MicroPython's build makes it."""
    filler = random.Random(family).randbytes(230)
    content = b""
    for number in range(blocks):
        payload = (f"MicroPython v{version} on".encode() if number == 1 else b"") + filler
        head = struct.pack("<8I", 0x0A324655, 0x9E5D5157, 0x2000, number * 256, 256, number, blocks, family)
        content += head + payload[:256].ljust(476, b"\0") + struct.pack("<I", 0x0AB16F30)
    return content
