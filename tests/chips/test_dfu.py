"""STM32: found in DFU mode, its image checked, and told what to run; the real dfu-util takes file and command."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from boardlet_cli import firmware
from boardlet_cli.report import Lines
from chips import BAD_IMAGE, NOT_FOUND, OWN_STEP, ChipError, dfu, images, ports
from chips.boards import kinds
from chips.image import read
from made import dfu_image
from shop import Shop

STM32 = kinds()["stm32"]


def plug(own: Path, socket: str = "1-2", product: str = "df11", serial: str = "207D375D5831") -> None:
    """A device as Linux shows it in /sys/bus/usb/devices."""
    folder = own / "usb" / socket
    folder.mkdir(parents=True)
    for name, text in (("idVendor", "0483"), ("idProduct", product), ("serial", serial)):
        (folder / name).write_text(f"{text}\n")


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """A program of the package dfu-util."""
    if shutil.which(command[0]) is None:
        pytest.skip("this machine lacks something: dfu-util: install the package dfu-util")
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def told(own: Path, name: str, content: bytes, port: ports.Port) -> str:
    """What the user is told who gives this image."""
    (own / name).write_bytes(content)
    seen = firmware.look(port, None) if port.is_dfu else firmware.Seen(port, STM32, None, "")
    with pytest.raises(ChipError) as caught:
        firmware.choose(seen, str(own / name), False, Lines())
    assert caught.value.code == OWN_STEP
    return str(caught.value)


def test_flashing_says_each_step(shop: Shop, own: Path) -> None:
    """`boardlet flash` finds the only chip, and ends with code 8 and a command that the real dfu-util understands.

    Without a device that command ends as the steps say. Nothing is created.
    """
    plug(own)
    (own / "NUCLEO_F767ZI-20260401-v1.29.0.dfu").write_bytes(dfu_image())
    missing = shop.flash()
    assert (missing.returncode, "get the .dfu of your board" in missing.stderr) == (BAD_IMAGE, True)
    added = shop.run("images", "add", str(own / "NUCLEO_F767ZI-20260401-v1.29.0.dfu"))
    assert added.returncode == 0, added.stdout + added.stderr
    done = shop.flash()
    assert done.returncode == OWN_STEP, done.stdout + done.stderr
    assert "without --image and without this port" in done.stderr
    assert shop.cluster.run("get", "boards", "-o", "name").stdout == ""
    command = shlex.split(re.findall(r"`(dfu-util .*)`", done.stderr)[0])
    assert command[:7] == ["dfu-util", "-a", "0", "-d", "0483:df11", "-S", "207D375D5831"]
    ran = run(command)
    assert ran.returncode == dfu.NO_DEVICE, ran.stdout + ran.stderr
    assert "No DFU capable USB device" in ran.stderr
    assert "suffix" not in ran.stderr, "it took the file for a whole one"


def test_a_raw_image_has_an_address(own: Path) -> None:
    """A .bin is written to the beginning of the flash, and a board at its prompt is told how it gets into DFU mode."""
    plug(own)
    content = b"\0\0\2\x20\x89\1\0\x08" + bytes(100)
    for port, words in ((ports.choose(None, dfu=True), ""), (ports.Port("/dev/ttyACM0"), "ttyACM0 bootloader`, or")):
        said = told(own, "x.bin", content, port)
        assert words in said
        command = shlex.split(re.findall(r"`(dfu-util .*)`", said)[0])
        assert command[-4:] == ["-s", "0x08000000", "-D", str(own / "x.bin")]
        assert run(command).returncode == dfu.NO_DEVICE


def test_without_dfu_util(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not have dfu-util is told to install it first."""
    plug(own)
    monkeypatch.setenv("PATH", "/nowhere")
    assert "1. install dfu-util" in told(own, "x.dfu", dfu_image(), ports.choose("usb:1-2", dfu=True))


def test_the_real_tool_agrees(own: Path) -> None:
    """What is taken for a whole .dfu is one for dfu-suffix too, and one changed bit is found by both."""
    whole = dfu_image()
    spoilt = whole[:3000] + bytes([whole[3000] ^ 1]) + whole[3001:]
    for content, right in ((whole, True), (spoilt, False), (whole[:-7], False)):
        (own / "x.dfu").write_bytes(content)
        assert (read(own / "x.dfu")._no_dfu() == "") == right
        assert (run(["dfu-suffix", "-c", str(own / "x.dfu")]).returncode == 0) == right


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is no .dfu, nor"),
        (b":020000040800F2\n:10000000", "is no .dfu, nor"),
        (dfu_image()[:-1], "is damaged"),
        (b"DfuSe", "is damaged"),
        (dfu_image(vendor=0x1234), "USB vendor 1234"),
    ],
)
def test_images_that_are_none(own: Path, content: bytes, words: str) -> None:
    """What is no image of an STM32 is refused before anybody is asked to write it."""
    (own / "x.dfu").write_bytes(content)
    with pytest.raises(ChipError, match=words) as caught:
        images.find(str(own / "x.dfu"), STM32, lambda have, total: None)
    assert caught.value.code == BAD_IMAGE


def test_whose_a_dfu_file_is(own: Path) -> None:
    """A .dfu of any board is known for an STM32's, by its content."""
    (own / "PYBD_SF6.dfu").write_bytes(dfu_image())
    assert images.add(str(own / "PYBD_SF6.dfu"), None, None, lambda have, total: None).board == "stm32"
    assert read(own / "PYBD_SF6.dfu").version is None


def test_what_else_is_on_the_bus(own: Path) -> None:
    """Other devices are none, two chips are listed, one that is gone is named, and only an image can be written."""
    plug(own, "1-1", product="374b")
    assert ports.dfu_devices() == []
    plug(own, "1-2")
    plug(own, "1-3", serial="B")
    for path, words in (
        (None, "there are 2 boards"),
        ("usb:1-9", "no STM32 is in DFU mode at usb:1-9"),
        ("usb:1-2", "takes an image only"),
    ):
        with pytest.raises(ChipError, match=words) as caught:
            ports.choose(path)
        assert caught.value.code == NOT_FOUND
