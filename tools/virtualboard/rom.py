"""The serial loader in the ROM of an Espressif chip, as bytes in and bytes out, with a flash behind it.

What the real esptool needs to identify a chip, load its stub into RAM, erase, write, read and verify the flash. The
flash behaves as NOR does: a write only clears bits, so that what was not erased before comes out wrong. The stub that
is loaded is not executed; after it was started, the loader answers as the stub does.
Protocol: https://docs.espressif.com/projects/esptool/en/latest/esp32/advanced-topics/serial-protocol.html
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

FLASH_BEGIN, FLASH_DATA, FLASH_END = 0x02, 0x03, 0x04
MEM_BEGIN, MEM_END, MEM_DATA, SYNC, WRITE_REG, READ_REG = 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A
SPI_SET_PARAMS, SPI_ATTACH, CHANGE_BAUD = 0x0B, 0x0D, 0x0F
DEFL_BEGIN, DEFL_DATA, DEFL_END, FLASH_MD5, SECURITY_INFO = 0x10, 0x11, 0x12, 0x13, 0x14
ERASE_FLASH, ERASE_REGION, READ_FLASH = 0xD0, 0xD1, 0xD2
SECTOR: Final = 4096
MAGIC_REGISTER: Final = 0x40001000
ROM_BAUD: Final = 115200
_END, _ESCAPE = 0xC0, 0xDB
_OK, _INVALID, _FAILED, _CHECKSUM = b"\0\0", b"\x01\x05", b"\x01\x06", b"\x01\x07"
_GREETING: Final = b"OHAI"  # of the stub once it runs


@dataclass(frozen=True, slots=True)
class Chip:
    """What tells one kind of chip from another, as esptool reads it."""

    name: str
    magic: int | None
    """At MAGIC_REGISTER, for chips that have no id."""
    chip_id: int | None
    """In SECURITY_INFO, for chips since the C3."""
    spi: int
    """Base of the registers that talk to the flash."""
    spi_w0: int
    registers: Mapping[int, int]
    status_bytes: int = 4


# The clock divider says how fast the crystal is (esptool computes with it); the words of the efuses make the MAC.
CHIPS: Final = {
    chip.name: chip
    for chip in (
        Chip(
            "ESP32",
            0x00F01D83,
            None,
            0x3FF42000,
            0x80,
            {0x3FF40014: 347, 0x3FF5A004: 0xC4123456, 0x3FF5A008: 0x0000240A},
        ),
        Chip("ESP32-S2", 0x000007C6, None, 0x3F402000, 0x58, {0x3F41A044: 0xC4123456, 0x3F41A048: 0x240A}),
        Chip("ESP32-S3", None, 9, 0x60002000, 0x58, {0x60007044: 0xC4123456, 0x60007048: 0x240A}),
        Chip("ESP32-C3", None, 5, 0x60002000, 0x58, {0x60008844: 0xC4123456, 0x60008848: 0x240A}),
        Chip("ESP32-C6", None, 13, 0x60003000, 0x58, {0x600B0844: 0xC4123456, 0x600B0848: 0x240A}),
        Chip("ESP8266", 0xFFF0C101, None, 0x60000200, 0x40, {0x60000014: 451, 0x3FF00050: 0x56000000}, 2),
    )
}


class Unplugged(Exception):
    """A fault that was ordered: the cable is pulled now."""


@dataclass(slots=True)
class Faults:
    """What goes wrong; each is used up as it happens."""

    unplug_at: dict[int, int] = field(default_factory=dict)
    """Operation → how many times it is answered before the cable is pulled instead; once."""
    deaf: int = 0
    """SYNCs that get no answer."""
    noisy: bytes = b""
    """What is said before the first answer, as a boot log is."""
    wrong_md5: int = 0
    """Times that the flash reads back other than written."""
    loses_above_baud: int = 0
    """Above this speed every thousandth byte from the host is lost; 0: none ever."""
    erases_not: int = 0
    """Times that erasing all of the flash fails."""
    wrong_sync: int = 0
    """SYNCs that are answered with another operation's number."""


class Rom:
    """One chip from power-on; `flash` stays when it is reset. `started` is called when it is told to run the flash."""

    def __init__(self, chip: Chip, flash: bytearray, faults: Faults, started: Callable[[], None]) -> None:
        self.chip, self.flash, self.faults = chip, flash, faults
        self.seen: list[int] = []
        """Operations in order."""
        self._started = started
        self.baud = ROM_BAUD
        """Of the line, as the host has set it."""
        self.reset()

    def reset(self) -> None:
        """Begin again in the ROM, without the stub."""
        self._in = bytearray()
        self._stub = False
        self._reading: Iterator[bytes] | None = None
        self._inflate = zlib.decompressobj()
        self._position = self._block = self._count = 0
        self._registers = {**self.chip.registers}
        if self.chip.magic is not None:
            self._registers[MAGIC_REGISTER] = self.chip.magic

    def receive(self, data: bytes) -> bytes:
        """Take what the host sent, return what the chip answers. Raises Unplugged."""
        self._in += self._lossy(data)
        out = b""
        while (packet := self._packet()) is not None:
            if self._reading is not None and len(packet) == 4:
                out += self._more()
            elif len(packet) >= 8 and packet[0] == 0:
                out += self._answer(packet)
        return out

    def _lossy(self, data: bytes) -> bytes:
        if not self.faults.loses_above_baud or self.baud <= self.faults.loses_above_baud:
            return data
        kept = bytearray()
        for byte in data:
            self._count += 1
            if self._count % 1000:
                kept.append(byte)
        return bytes(kept)

    def _packet(self) -> bytes | None:
        # The next whole SLIP packet, None while there is none.
        while True:
            start = self._in.find(_END)
            if start < 0:
                self._in.clear()
                return None
            end = self._in.find(_END, start + 1)
            if end < 0:
                del self._in[:start]
                return None
            body = bytes(self._in[start + 1 : end])
            del self._in[: end if not body else end + 1]
            if body:
                return body.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")

    def _answer(self, packet: bytes) -> bytes:
        operation, length, check = packet[1], *struct.unpack("<HI", packet[2:8])
        data = packet[8:]
        self.seen.append(operation)
        self._pull(operation)
        if operation == SYNC:
            return self._sync()
        if len(data) != length:
            return self._reply(operation, _INVALID)
        if operation in (FLASH_DATA, MEM_DATA, DEFL_DATA) and check != _sum(data[16:]):
            return self._reply(operation, _CHECKSUM)
        return self._do(operation, data)

    def _pull(self, operation: int) -> None:
        left = self.faults.unplug_at.get(operation)
        if left == 0:
            del self.faults.unplug_at[operation]
            raise Unplugged
        if left is not None:
            self.faults.unplug_at[operation] = left - 1

    def _sync(self) -> bytes:
        if self.faults.deaf:
            self.faults.deaf -= 1
            return b""
        said, self.faults.noisy = self.faults.noisy, b""
        operation = SYNC
        if self.faults.wrong_sync:
            self.faults.wrong_sync -= 1
            operation = READ_REG
        # A value of 0 would say that the stub runs already.
        return said + self._reply(operation, _OK, value=0 if self._stub else 0x20120707) * 8

    def _reply(self, operation: int, status: bytes, body: bytes = b"", value: int = 0) -> bytes:
        pad = 0 if self._stub else self.chip.status_bytes - len(status)
        body += status + bytes(pad)
        return slip(struct.pack("<BBHI", 1, operation, len(body), value) + body)

    def _do(self, operation: int, data: bytes) -> bytes:
        word = struct.unpack(f"<{len(data[:16]) // 4}I", data[: len(data[:16]) // 4 * 4])
        body, value = b"", 0
        if operation == READ_REG:
            value = self._register(word[0])
        elif operation == WRITE_REG:
            pass  # only what talks to the flash is written, and that is answered in _register
        elif operation in (FLASH_BEGIN, DEFL_BEGIN):
            self._begin(operation, word)
        elif operation == FLASH_DATA:
            self._program(self._position + word[1] * self._block, data[16 : 16 + word[0]])
        elif operation == DEFL_DATA:
            plain = self._inflate.decompress(data[16 : 16 + word[0]])
            self._program(self._position, plain)
            self._position += len(plain)
        elif operation in (FLASH_END, DEFL_END):
            return self._end(operation, word[0])
        elif operation == MEM_END:
            return self._reply(operation, _OK) + (self._run_stub() if word[1] else b"")
        elif operation == FLASH_MD5:
            body = self._md5(word[0], word[1])
        elif operation == SECURITY_INFO and self.chip.chip_id is not None:
            body = struct.pack("<I8xII", 0, self.chip.chip_id, 0)
        elif operation == SECURITY_INFO and self.chip.name == "ESP32-S2":
            body = bytes(12)
        elif operation == ERASE_FLASH and self.faults.erases_not:
            self.faults.erases_not -= 1
            return self._reply(operation, _FAILED)
        elif operation == ERASE_FLASH and self._stub:
            self.flash[:] = b"\xff" * len(self.flash)
        elif operation == ERASE_REGION and self._stub:
            self._erase(word[0], word[1])
        elif operation == READ_FLASH and self._stub:
            self._reading = self._blocks(*word[:3])
            return self._reply(operation, _OK) + self._more()
        elif operation not in (MEM_BEGIN, MEM_DATA, SPI_SET_PARAMS, SPI_ATTACH, CHANGE_BAUD):
            return self._reply(operation, _INVALID)
        return self._reply(operation, _OK, body, value)

    def _register(self, address: int) -> int:
        if address == self.chip.spi + self.chip.spi_w0:
            return (len(self.flash).bit_length() - 1) << 16 | 0x40C8  # the flash's id: size, type, maker
        return self._registers.get(address, 0)

    def _begin(self, operation: int, word: tuple[int, ...]) -> None:
        size, _, self._block, self._position = word[:4]
        self._inflate = zlib.decompressobj()
        self._erase(self._position, size)

    def _end(self, operation: int, stay: int) -> bytes:
        answer = self._reply(operation, _OK)
        if not self._stub:
            self._started()
        elif not stay:  # the stub takes it for the end of a file, or leads back to the ROM
            self.reset()
        return answer

    def _run_stub(self) -> bytes:
        self._stub = True
        return slip(_GREETING)

    def _erase(self, offset: int, size: int) -> None:
        first = offset // SECTOR * SECTOR
        last = -(-(offset + size) // SECTOR) * SECTOR
        self.flash[first:last] = b"\xff" * len(self.flash[first:last])

    def _program(self, offset: int, data: bytes) -> None:
        old = self.flash[offset : offset + len(data)]
        cleared = int.from_bytes(old, "big") & int.from_bytes(data[: len(old)], "big")
        self.flash[offset : offset + len(old)] = cleared.to_bytes(len(old), "big")

    def _md5(self, offset: int, size: int) -> bytes:
        digest = hashlib.md5(self.flash[offset : offset + size], usedforsecurity=False)
        if self.faults.wrong_md5:
            self.faults.wrong_md5 -= 1
            digest.update(b"x")
        return digest.digest() if self._stub else digest.hexdigest().encode()

    def _blocks(self, offset: int, size: int, block: int) -> Iterator[bytes]:
        content = bytes(self.flash[offset : offset + size])
        for start in range(0, len(content), block):
            yield content[start : start + block]
        yield hashlib.md5(content, usedforsecurity=False).digest()

    def _more(self) -> bytes:
        assert self._reading is not None
        block = next(self._reading, None)
        if block is None:
            self._reading = None
            return b""
        return slip(block)


def slip(data: bytes) -> bytes:
    """One packet, framed and escaped (RFC 1055)."""
    return b"\xc0" + data.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0"


def _sum(data: bytes) -> int:
    check = 0xEF
    for byte in data:
        check ^= byte
    return check
