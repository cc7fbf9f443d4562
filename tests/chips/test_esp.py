"""The real esptool, run as we run it, against the ROM loader of every chip, and against what goes wrong on a cable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from boardlet_cli.device import Device
from chips import ChipError, esp, ports
from chips.boards import kinds
from made import esp_image
from virtualboard import rom
from virtualboard.chip import VirtualChip
from virtualboard.rom import Faults
from virtualboard.uart import UartChip

MakeChip = Callable[..., VirtualChip]
ESP = [key for key, kind in kinds().items() if kind.method == "esptool"]


class Write:
    """Writes the image of `key`, and keeps what was told meanwhile."""

    def __init__(self, chip: VirtualChip, own: Path, key: str = "esp32", erase: bool = False) -> None:
        self.percents: list[float] = []
        self.retries: list[str] = []
        kind = kinds()[key]
        path = own / f"{key}.bin"
        self.runs = esp.write(
            str(chip.port),
            kind,
            path,
            erase,
            self.percents.append,
            lambda why, how: self.retries.append(f"{why} {how}"),
        )


def on_flash(chip: VirtualChip, own: Path, key: str = "esp32") -> bool:
    """Whether the flash holds the image, byte for byte, and nothing but it."""
    kind, image = kinds()[key], (own / f"{key}.bin").read_bytes()
    end = kind.offset + len(image)
    assert set(chip.flash[: kind.offset]) <= {0xFF}
    assert set(chip.flash[end:]) == {0xFF}
    return bytes(chip.flash[kind.offset : end]) == image


@pytest.mark.parametrize("key", ESP)
def test_every_chip(make_chip: MakeChip, own: Path, key: str) -> None:
    """Each kind is told from the others, gets its image at its own offset, byte for byte, and starts."""
    chip = make_chip(key)
    found = esp.identify(str(chip.port))
    assert (found.chip, found.flash_bytes) == (kinds()[key].chip, 4 << 20)
    done = Write(chip, own, key)
    assert on_flash(chip, own, key)
    assert (done.percents[-1], done.retries) == (100.0, [])
    assert not done.runs, "a pseudo-terminal has no line to reset it"
    esp.start(str(chip.port))
    chip._until_done()
    assert chip.board is not None


def test_a_chip_that_is_not_told_to_start_stays_in_its_rom(make_chip: MakeChip, own: Path) -> None:
    """An image that was cut is none: the chip does not run it."""
    chip = make_chip()
    chip.press_reset()
    assert chip.board is None
    Write(chip, own)
    chip.flash[5000] ^= 1
    chip.press_reset()
    assert chip.board is None


def test_erase_and_read(make_chip: MakeChip, own: Path) -> None:
    """The flash is read back as it is, and is blank after it was erased."""
    chip = make_chip()
    Write(chip, own)
    esp.read(str(chip.port), 0x20000, own / "back.bin", lambda done: None)
    assert (own / "back.bin").read_bytes() == bytes(chip.flash[:0x20000])
    esp.erase(str(chip.port))
    assert set(chip.flash) == {0xFF}


def test_old_contents_are_erased(make_chip: MakeChip, own: Path) -> None:
    """What was in the flash before does not shine through; with `erase` nothing of it is left anywhere."""
    chip = make_chip()
    chip.flash[:] = bytes(len(chip.flash))
    Write(chip, own, erase=True)
    assert on_flash(chip, own)


def test_what_was_to_be_erased_is_not_left_in_silence(make_chip: MakeChip, own: Path) -> None:
    """Where erasing fails each time, nothing is written in a way that cannot erase; where it worked once, that way is
    open."""
    chip = make_chip(faults=Faults(erases_not=2))
    chip.flash[:] = bytes(len(chip.flash))
    with pytest.raises(ChipError, match="without --erase"):
        Write(chip, own, erase=True)
    assert set(chip.flash) == {0}
    chip.faults.wrong_md5 = 2
    Write(chip, own, erase=True)
    assert on_flash(chip, own)


def test_a_cable_that_is_bad_at_speed(make_chip: MakeChip, own: Path) -> None:
    """Bytes that are lost at 460800 baud cost an attempt; the next one at 115200 succeeds, and says why it was made."""
    chip = make_chip(faults=Faults(loses_above_baud=115200))
    done = Write(chip, own)
    assert on_flash(chip, own)
    assert len(done.retries) == 1
    assert "at 115200 baud" in done.retries[0]


@pytest.mark.parametrize(
    "faults",
    [
        Faults(deaf=3),
        Faults(wrong_sync=2),
        Faults(noisy=b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0x1 (POWERON_RESET)\r\n\xc0\x01\x02"),
        Faults(wrong_md5=1),
    ],
    ids=["lost SYNCs", "wrong SYNCs", "boot log", "wrong MD5 once"],
)
def test_faults_that_pass(make_chip: MakeChip, own: Path, faults: Faults) -> None:
    """What goes wrong for a moment is got over without anybody's help."""
    chip = make_chip(faults=faults)
    Write(chip, own)
    assert on_flash(chip, own)


def test_a_worn_flash_is_given_up(make_chip: MakeChip, own: Path) -> None:
    """What reads back wrong every time ends after the last attempt, and is told as what it is."""
    chip = make_chip(faults=Faults(wrong_md5=99))
    with pytest.raises(ChipError, match="reads back otherwise"):
        Write(chip, own)
    assert chip.rom.seen.count(rom.FLASH_MD5) == len(esp.ATTEMPTS)


STAGES = {
    "SYNC": (rom.SYNC, 0),
    "detection": (rom.READ_REG, 0),
    "loading the stub": (rom.MEM_DATA, 1),
    "starting the stub": (rom.MEM_END, 0),
    "change of speed": (rom.CHANGE_BAUD, 0),
    "erasing": (rom.DEFL_BEGIN, 0),
    "first block": (rom.DEFL_DATA, 0),
    "middle": (rom.DEFL_DATA, 6),
    "verification": (rom.FLASH_MD5, 0),
}


@pytest.mark.parametrize("stage", STAGES)
def test_the_cable_is_pulled(make_chip: MakeChip, own: Path, stage: str) -> None:
    """At whatever stage it is pulled, the error names the port and what to do, and the same command then finishes."""
    operation, after = STAGES[stage]
    chip = make_chip(faults=Faults(unplug_at={operation: after}))
    with pytest.raises(ChipError, match=r"run the same command again|plug the board in again") as caught:
        Write(chip, own)
    assert str(chip.port) in str(caught.value)
    assert operation not in chip.faults.unplug_at, "it was pulled there"
    chip.plug()
    Write(chip, own)
    assert on_flash(chip, own)


def test_another_chip_than_thought(make_chip: MakeChip, own: Path) -> None:
    """A chip that was exchanged after it was looked at is not written."""
    chip = make_chip("esp32c3")
    (own / "esp32.bin").write_bytes(b"\xe9" + bytes(5000))
    with pytest.raises(ChipError, match="This chip is ESP32-C3, not ESP32"):
        Write(chip, own)
    assert set(chip.flash) == {0xFF}


def test_no_chip(own: Path) -> None:
    """A port that is not there, or where nothing answers, is named."""
    with pytest.raises(ChipError, match="plug the board in again"):
        esp.identify(str(own / "ports/none"))


def test_the_port_after_a_start(make_chip: MakeChip, own: Path) -> None:
    """A chip with USB of its own comes back elsewhere and is known by its serial number; behind a bridge it stays."""
    bridge, usb = make_chip(serial="0001"), make_chip("esp32s3", own_usb=True)
    before = ports.serial_ports()
    assert {port.path for port in before} == {str(bridge.port), str(usb.port)}
    old = {port.path: port for port in before}[str(usb.port)]
    for chip, key in ((bridge, "esp32"), (usb, "esp32s3")):
        Write(chip, own, key)
        chip.press_reset()
    assert not Path(old.path).exists()
    assert [port.path for port in ports.reappeared(before, old, 5)] == [str(usb.port)]
    assert [port.path for port in ports.reappeared(before, ports.choose(str(bridge.port)), 5)] == [str(bridge.port)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:serial")  # its threads
def test_a_port_with_reset_lines(own: Path) -> None:
    """Where a port can reset the chip, here one that another machine serves, nobody has to press anything."""
    image = esp_image(kinds()["esp32"], size=20_000)
    (own / "esp32.bin").write_bytes(image)
    with UartChip(own / "uart", image, 0x1000) as chip:
        percents: list[float] = []
        path = own / "esp32.bin"
        assert esp.write(chip.url, kinds()["esp32"], path, False, percents.append, lambda why, how: pytest.fail(why))
        with Device(chip.url) as device:
            assert device.info().version >= (1, 25)
    assert bytes(chip.flash[0x1000 : 0x1000 + len(image)]) == image
    assert percents[-1] == 100
