"""From a chip out of its bag to a Ready Board in one command, with every other part real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from boardlet_cli.cluster import Cluster
from boardlet_cli.site import Site
from chips.boards import kinds
from made import esp_image, uf2_image
from virtualboard import rom
from virtualboard.chip import VirtualChip
from virtualboard.pico import VirtualPico
from virtualboard.rom import Faults

MakeChip = Callable[..., VirtualChip]
SAMPLES = Path(__file__).parents[2] / "crds/samples"
BOARD_ID = "k7m2q9xa"


class Shop:
    """Where boards are made: a site file, and the command as a user runs it."""

    def __init__(self, site: Site, cluster: Cluster, folder: Path) -> None:
        cluster.run("apply", "-f", str(SAMPLES / "greenhouse.yaml"))
        site.add_board(BOARD_ID)  # the broker's credential; the virtual board itself stays off
        self.cluster, self.folder = cluster, folder
        settings = {"broker": f"127.0.0.1:{site.broker.port}", "namespace": cluster.namespace}
        (folder / "site.yaml").write_text(yaml.safe_dump({**settings, "rootKeyFile": f"{site.folder}/root.key"}))
        self.env = {**cluster.env, **{key: os.environ[key] for key in os.environ if key.startswith("BOARDLET_")}}
        self.env["PATH"] = f"{cluster.kubectl.parent}:{os.environ['PATH']}"

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`boardlet flash` with these words, for the board with the known id."""
        command = [sys.executable, "-m", "boardlet_cli.main", "flash", "--site", str(self.folder / "site.yaml")]
        command += ["--name", "g1", "--board-id", BOARD_ID, *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self.env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    def flash(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        with self.start(*words) as running:
            out, err = running.communicate(timeout=150)
        print(out, err)
        return subprocess.CompletedProcess(running.args, running.returncode, out, err)

    def ready(self) -> bool:
        """Whether the Board says that it is Ready, with the LED as its model has it."""
        status: dict[str, Any] = self.cluster.get("board", "g1")["status"]
        return {c["type"]: c["status"] for c in status["conditions"]}["Ready"] == "True"


@pytest.fixture
def shop(site: Site, cluster: Cluster, own: Path) -> Shop:
    """At a running site."""
    return Shop(site, cluster, own)


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
    chip = make_chip(faults=Faults(unplug_at={rom.DEFL_DATA: 14}))
    image = ["--image", str(own / "esp32.bin")]
    running = shop.start(*image, "--json")
    assert running.stdout is not None
    for line in running.stdout:
        if json.loads(line)["event"] == "progress":
            running.send_signal(signal.SIGINT)
            break
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, out + err
    assert "run the same command again" in err
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
