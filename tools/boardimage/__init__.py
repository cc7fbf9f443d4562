"""The files of a board: the agent, the wire, the drivers, umqtt, as they lie on its flash."""

from .agent import Image, image
from .umqtt import simple

__all__ = ["Image", "image", "simple"]
