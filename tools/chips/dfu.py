"""STM32 chips, which get their image by dfu-util: Boardlet checks the file and says each step, and runs none of them.

What dfu-util does to a chip cannot be tried without one, and pins and buttons are a person's anyway.
"""

from __future__ import annotations

import shlex
import shutil
from typing import Final

from .boards import Kind
from .image import DFU_MAGIC, ImageFile
from .ports import Port

NO_DEVICE: Final = 74  # how dfu-util ends where nothing is in DFU mode (EX_IOERR)


def command(kind: Kind, image: ImageFile, port: Port) -> list[str]:
    """What writes the image to the chip that waits at `port`."""
    which = ["-S", port.serial] if port.is_dfu and port.serial else []
    where = [] if image.content.startswith(DFU_MAGIC) else ["-s", f"{kind.offset:#010x}"]
    return [*kind.command[:-1], *which, *where, kind.command[-1], str(image.path)]


def steps(kind: Kind, image: ImageFile, port: Port) -> str:
    """For a person: what to do, in order, from where the chip is now."""
    words = []
    if shutil.which(kind.command[0]) is None:
        words.append(f"install {kind.command[0]} (the package has that name in Debian, Fedora and Homebrew)")
    if not port.is_dfu:
        words.append(f"`mpremote connect {port.path} bootloader`, or connect BOOT0 to 3V3 and press RESET")
    words.append(
        f"`{shlex.join(command(kind, image, port))}`\n"
        f"     It ends with 0 and `File downloaded successfully`. {NO_DEVICE} and `No DFU capable USB device`: "
        "the chip is not in DFU mode.\n     `LIBUSB_ERROR_ACCESS`: put sudo before it"
    )
    words.append("free BOOT0, press RESET")
    words.append("run the same boardlet command again, without --image and without this port: it goes on from there")
    listed = "\n".join(f"  {number}. {text}" for number, text in enumerate(words, 1))
    return f"an STM32 gets its image by DFU, which is yours to do ({image.name}, sha256 {image.sha256}):\n{listed}"
