"""From a chip out of its bag to a Ready Board in one command, with every other part real."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from chips.boards import kinds
from made import esp_image, uf2_image
from shop import BOARD_ID, Shop
from virtualboard import rom
from virtualboard.chip import VirtualChip
from virtualboard.pico import VirtualPico

MakeChip = Callable[..., VirtualChip]


def test_a_blank_chip_becomes_ready(shop: Shop, make_chip: MakeChip, own: Path) -> None:
    """One command without a port: the only chip is found, gets image, agent and identity at two ports, and is Ready."""
    chip = make_chip("esp32s3", own_usb=True)
    before = str(chip.port)
    done = shop.flash("--image", str(own / "esp32s3.bin"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert before in done.stdout
    assert f"the board is now at {chip.port}" in done.stdout
    assert str(chip.port) != before
    assert "sha256" in done.stdout
    assert bytes(chip.flash[: len(esp_image(kinds()["esp32s3"]))]) == esp_image(kinds()["esp32s3"])
    assert shop.ready()
    key = json.loads((own / "chip-0/flash/config.json").read_text())["key"]
    assert key not in done.stdout + done.stderr


def test_a_pico_becomes_ready(shop: Shop, own: Path) -> None:
    """A boot volume takes the image and vanishes; the board goes on at the serial port that appears."""
    (own / "x.uf2").write_bytes(uf2_image())
    with VirtualPico(own / "pico", own / "volumes/RPI-RP2", own / "ports") as pico:
        done = shop.flash("--image", str(own / "x.uf2"))
        assert done.returncode == 0, done.stdout + done.stderr
        assert pico.image == (own / "x.uf2").read_bytes()
        assert shop.ready()


def test_interrupted_and_run_again(shop: Shop, make_chip: MakeChip, own: Path) -> None:
    """Ctrl-C while the image is written, then a pulled cable: each says what to do, and the next flash ends well."""
    chip = make_chip()
    image = ["--image", str(own / "esp32.bin")]
    shop.interrupt(shop.start_flash(*image, "--json"))
    chip.faults.unplug_at[rom.DEFL_DATA] = 5
    pulled = shop.flash(*image)
    assert pulled.returncode == 6, pulled.stdout + pulled.stderr
    assert "plug the board in again" in pulled.stderr
    chip.plug()
    done = shop.flash(*image)
    assert done.returncode == 0, done.stdout + done.stderr
    assert shop.ready()


def test_a_new_image_for_a_board_that_works(shop: Shop, make_chip: MakeChip, own: Path) -> None:
    """A board with MicroPython keeps it unless asked; asked, it goes into its bootloader, and keeps its identity."""
    chip = make_chip("esp32s3", own_usb=True)
    first = shop.flash("--image", str(own / "esp32s3.bin"))
    assert first.returncode == 0, first.stdout + first.stderr
    written = chip.rom.seen.count(rom.DEFL_DATA)
    again = shop.flash("--json")
    assert again.returncode == 0, again.stdout + again.stderr
    plan = next(event for event in map(json.loads, again.stdout.splitlines()) if event["event"] == "plan")
    assert (plan["image"], plan["files"]["write"], plan["boardID"]) == (None, [], BOARD_ID)
    assert chip.rom.seen.count(rom.DEFL_DATA) == written
    anew = shop.flash("--image", str(own / "esp32s3.bin"))
    assert anew.returncode == 0, anew.stdout + anew.stderr
    assert chip.rom.seen.count(rom.DEFL_DATA) > written
    assert shop.ready()


def test_what_a_chip_cannot_get(shop: Shop, make_chip: MakeChip, own: Path) -> None:
    """No image, one for another chip, none for a dry run: told before anything is written, with an exit code each."""
    chip = make_chip("esp32c3")
    (own / "other.bin").write_bytes(esp_image(kinds()["esp32"]))
    for words, code, said in (
        ([], 5, "no image of MicroPython is known for ESP32-C3: get ESP32_GENERIC_C3 from"),
        (["--image", str(own / "other.bin")], 5, "is for the chip with the id 0, and the ESP32-C3 has 5"),
        (["--image", str(own / "none.bin")], 5, "neither a file nor"),
        (["--image", str(own / "esp32c3.bin"), "--dry-run"], 0, ""),
    ):
        done = shop.flash(*words)
        assert done.returncode == code, done.stdout + done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert "at 0x0" in done.stdout
    assert set(chip.flash) == {0xFF}
    assert shop.cluster.run("get", "boards", "-o", "name").stdout == ""


def test_no_board_and_two(shop: Shop, make_chip: MakeChip) -> None:
    """Without a port: none and several end with code 4, and the list."""
    none = shop.flash()
    first, second = make_chip(serial="0001"), make_chip("esp32c3", serial="0002")
    two = shop.flash()
    assert (none.returncode, two.returncode) == (4, 4), two.stdout + two.stderr
    assert "plug one in" in none.stderr
    assert str(first.port) in two.stderr
    assert str(second.port) in two.stderr


def test_an_image_that_is_refused_late(shop: Shop, make_chip: MakeChip, own: Path) -> None:
    """A board that had to be sent to its bootloader to tell its chip runs on when the image turns out to be wrong."""
    chip = make_chip("esp32s3", own_usb=True)
    first = shop.flash("--image", str(own / "esp32s3.bin"))
    assert first.returncode == 0, first.stdout + first.stderr
    (own / "other.bin").write_bytes(esp_image(kinds()["esp32"]))
    refused = shop.flash("--image", str(own / "other.bin"))
    assert refused.returncode == 5, refused.stdout + refused.stderr
    chip._until_done()
    assert chip.board is not None
    shop.cluster.run("wait", "--for=condition=Ready", "board/g1", "--timeout=30s")
