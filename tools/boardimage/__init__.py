"""The files of a board: the agent, the wire, the drivers, umqtt, as they lie on its flash, or in its ROMFS."""

from .agent import Image, image
from .romfs import romfs
from .umqtt import simple

__all__ = ["Image", "image", "romfs", "simple"]
