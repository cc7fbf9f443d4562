"""A Pico's boot volume as a folder whose owner takes the file and vanishes."""

from __future__ import annotations

from pathlib import Path

import pytest
from chips import NOT_FOUND, ChipError, ports, uf2
from chips.boards import kinds, of_machine
from made import uf2_image
from virtualboard.pico import VirtualPico


@pytest.mark.parametrize("key", ["rp2_pico_w", "rp2_pico2_w"])
def test_a_pico_takes_its_image(own: Path, key: str) -> None:
    """The volume is found, known by its Board-ID, gets the file byte for byte, and comes back as a serial port."""
    kind = kinds()[key]
    image = own / "x.uf2"
    image.write_bytes(uf2_image(kind.families[0]))
    percents: list[float] = []
    with VirtualPico(own, own / "volumes/RP", own / "ports", kind.volume_ids[0], kind.families[0]) as pico:
        port = ports.choose(None)
        assert (port.path, port.is_volume) == (str(pico.volume), True)
        assert uf2.kind_of(pico.volume) == kind
        before = ports.serial_ports()
        uf2.write(pico.volume, image, percents.append)
        assert pico.image == image.read_bytes()
        assert [found.path for found in ports.reappeared(before, port, 10)] == [str(pico.port)]
    assert percents[-1] == 100


def test_a_pico_that_does_not_take_it(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume that stays is not taken for success."""
    monkeypatch.setattr(uf2, "VANISH_S", 0.3)
    (own / "x.uf2").write_bytes(uf2_image())
    with (
        VirtualPico(own, own / "volumes/RP", own / "ports", takes=False) as pico,
        pytest.raises(ChipError, match="did not take the image"),
    ):
        uf2.write(pico.volume, own / "x.uf2", lambda done: None)


def test_a_volume_that_is_none(own: Path) -> None:
    """A folder without INFO_UF2.TXT, or of a board that is not known, is refused with what to do."""
    with pytest.raises(ChipError, match="hold BOOTSEL"):
        uf2.kind_of(own)
    (own / "INFO_UF2.TXT").write_text("Board-ID: SAMD21G18A-Feather-v0\n")
    with pytest.raises(ChipError, match="SAMD21G18A-Feather-v0, which is not known"):
        uf2.kind_of(own)


def test_which_board(own: Path) -> None:
    """Without a port: none and several are both told, with the list; the only one is taken."""
    with pytest.raises(ChipError, match="plug one in") as caught:
        ports.choose(None)
    assert caught.value.code == NOT_FOUND
    (own / "ports/usb-Silicon_Labs_CP2102_0001-if00-port0").symlink_to("/dev/null")
    assert ports.choose(None).serial == "0001"
    with (
        VirtualPico(own, own / "volumes/RP", own / "ports") as pico,
        pytest.raises(ChipError, match="there are 2") as said,
    ):
        ports.choose(None)
    assert str(pico.volume) in str(said.value)
    assert "CP2102" in str(said.value)


@pytest.mark.parametrize(
    ("platform", "machine", "key"),
    [
        ("esp32", "Generic ESP32 module with SPIRAM with ESP32", "esp32"),
        ("esp32", "Generic ESP32S3 module with ESP32S3", "esp32s3"),
        ("esp32", "ESP32C3 module with ESP32C3", "esp32c3"),
        ("esp8266", "ESP module with ESP8266", "esp8266"),
        ("rp2", "Raspberry Pi Pico W with RP2040", "rp2_pico_w"),
        ("rp2", "Raspberry Pi Pico 2 W with RP2350", "rp2_pico2_w"),
        ("pyboard", "NUCLEO-F767ZI with STM32F767", "stm32"),
        ("linux", "linux [GCC 14.2.1] version", None),
    ],
)
def test_a_running_board_says_its_kind(platform: str, machine: str, key: str | None) -> None:
    """What MicroPython calls its machine leads to the kind of board, and to none where it is not known."""
    kind = of_machine(platform, machine)
    assert (kind.key if kind else None) == key


def test_a_new_port_is_not_guessed(own: Path) -> None:
    """Where nothing tells whose a new port is, one may be the board's, and two are nobody's."""
    volume = ports.Port(str(own))
    (own / "ports/first").symlink_to("/dev/null")
    assert len(ports.reappeared([], volume, 0.2)) == 1
    (own / "ports/second").symlink_to("/dev/null")
    assert ports.reappeared([], volume, 0.2) == []
    other = ports.Port("/dev/gone", serial="0001")
    (own / "ports/usb-Some_Maker_0002-if00").symlink_to("/dev/null")
    assert ports.reappeared([], other, 0.2) == []
    (own / "device").touch()
    (own / "ports/usb-Some_Maker_0001-if00").symlink_to(own / "device")
    assert [port.serial for port in ports.reappeared([], other, 0.2)] == ["0001"]
    (own / "alias").symlink_to(own / "ports/usb-Some_Maker_0001-if00")
    found = ports.choose(str(own / "alias"))
    assert (found.path, found.serial) == (str(own / "alias"), "0001")
