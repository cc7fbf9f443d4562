"""The words of the reasons that a status can show, by what is known of link, property, refusal and message."""

from __future__ import annotations

from typing import Final

from boardlet_wire.names import PropertyCode, RefusalCode

from boardlet_bridge.core.condition import FALSE, TRUE, UNKNOWN, Fault, Refusal, Status, Suspicion
from boardlet_bridge.core.state import Link

REVOKED: Final = (
    "all keys of the board are revoked: the broker lets it in no more, and nothing of it is believed. To use it again, "
    "raise spec.credential.keyNumber above revokedKeyNumber and flash it"
)

LINKS: Final[dict[Link, tuple[Status, str]]] = {
    Link.WAITING: (UNKNOWN, "waiting for the broker's retained messages"),
    Link.BROKER: (UNKNOWN, "the broker cannot be reached"),
    Link.ASKING: (UNKNOWN, "asked the board, waiting for its answer"),
    Link.LIVE: (TRUE, "the board answers in its present session"),
    Link.GONE: (
        FALSE,
        "the board's connection to the broker has ended: it comes back by itself when power and network do",
    ),
    Link.ASLEEP: (
        UNKNOWN,
        "the broker remembers that the board sleeps; it is believed once it has woken and answered this bridge",
    ),
    Link.OVERDUE: (FALSE, "the board has not woken from its sleep in time: check its battery and its network"),
    Link.SILENT: (
        FALSE,
        "the board has not been heard for longer than its heartbeat allows, though its connection may stand: look at "
        "the site's network, or power-cycle it",
    ),
    Link.NEVER: (FALSE, "no board with this id answers on this broker: flash one, or check its power, network and id"),
    Link.REVOKED: (FALSE, REVOKED),
    Link.VERSION: (FALSE, "the board speaks a newer protocol than this bridge: upgrade the bridge"),
}

PROPERTY_REASONS: Final[dict[int, tuple[Fault, str]]] = {
    PropertyCode.OUT_OF_RANGE: ("OutOfRange", "the board refuses the value: it is outside the model's range"),
    PropertyCode.WRONG_TYPE: ("WrongType", "the board refuses the value: it is not of the property's type"),
    PropertyCode.READ_ONLY: ("ReadOnly", "the board refuses to set it: the model says that it is ReadOnly"),
    PropertyCode.UNKNOWN_PROPERTY: ("UnknownProperty", "the board's model has no such property"),
    PropertyCode.TOO_LONG: ("TooLong", "the board refuses the value: it is longer than maxLength"),
    PropertyCode.DRIVER_FAILED: ("DriverFailed", "the driver could not set or read it: check pins and wiring"),
    PropertyCode.NO_HANDLER: ("NoHandler", "the model names no driver for it, and no app.py handles it"),
    PropertyCode.HANDLER_FAILED: (
        "HandlerFailed",
        "the handler in the board's app.py raised an exception: see status.board.lastCrash",
    ),
    PropertyCode.NOT_RUNNING: ("NotRunning", "drivers and app are not running: the board is in safe mode"),
}

REFUSALS: Final[dict[int, tuple[Refusal, str]]] = {
    RefusalCode.CONFLICT: ("Conflict", "the board had this revision with another content; a higher one is minted"),
    RefusalCode.TOO_LARGE: ("TooLarge", "the board could not take the desired state: use fewer or shorter values"),
    RefusalCode.MALFORMED: ("Malformed", "the board could not decode it: compare agent and bridge versions"),
    RefusalCode.MODEL_UNAVAILABLE: ("ModelUnavailable", "the board could not fetch its model; it tries again"),
    RefusalCode.REVERTED: (
        "Reverted",
        "the board died twice while trying this and went back to what ran before: edit the spec",
    ),
    RefusalCode.STORAGE_FAILED: ("StorageFailed", "the board could not write its flash, and did not apply the change"),
}

SUSPICIONS: Final[dict[Suspicion, str]] = {
    "RevokedKey": "somebody speaks under a key of this board that is not accepted any more, and is ignored: the board "
    "itself, until it is flashed with a new key, or who has stolen the old one",
    "WrongSeal": "messages on this board's topics carry a wrong seal and are ignored: the board holds another key "
    "(flash it again), or somebody else speaks in its name",
    "WrongSealAtBoard": "the board has dropped messages with a wrong seal since it last answered: somebody else speaks "
    "to it in the bridge's name (status.droppedMessages counts them); find who may write its topics at the broker",
    "Malformed": "the board sends messages that are sealed rightly and cannot be understood; they are ignored: "
    "compare agent and bridge versions",
}
