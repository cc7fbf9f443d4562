"""Boards without hardware: the real firmware on MicroPython's unix port."""

from .board import VirtualBoard, interpreter

__all__ = ["VirtualBoard", "interpreter"]
