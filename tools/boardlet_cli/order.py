"""What a user asks of `boardlet flash`, and how it fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from boardlet_bridge.core.root_key import RootKeys

from boardlet_cli.tls import Tls


class FlashFailed(Exception):
    """The board could not be flashed; the message says the cause and the next step, `code` is to be the exit code."""

    code = 1


class NeverReady(FlashFailed):
    """The board is flashed, and its object has not become Ready."""

    code = 7


@dataclass(frozen=True, slots=True)
class Order:
    """What a user asks for."""

    port: str | None
    """None for the only board that is plugged in."""
    name: str
    model: str
    broker_host: str
    broker_port: int
    root_keys: RootKeys = field(repr=False)
    board_id: str | None = None
    key_number: int | None = None
    """Of the key that a new Board gets; None: the first that follows from the newest root key."""
    wifi: tuple[str, str] | None = field(default=None, repr=False)
    image: str | None = None
    """A file, or the name of one that is pinned: put it on the chip whatever runs there."""
    erase: bool = False
    claim: int = 0
    """Number of the site's claim, which the board gets instead of an identity; 0: it gets an identity."""
    extra: Mapping[str, object] | None = None
    model_named: bool = False
    """Whether the user has said the model, so that a Board of another one is not what was meant."""
    tls: Tls | None = None
    """How it knows its broker; None: it speaks MQTT without TLS."""
    romfs: bool = True
    """The agent goes into the board's ROMFS, if it has one that will do."""

    @property
    def broker(self) -> str:
        """The broker, in the plan's words."""
        return f"broker {self.broker_host}:{self.broker_port}" + (f" {self.tls.words}" if self.tls else ", without TLS")
