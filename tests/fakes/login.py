"""A client that shows a broker its name and password, and watches whether it stays let in: sockets, nothing else."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

WAIT_S: Final = 10.0


class Login:
    """One connection; `up` says whether the broker let it in."""

    def __init__(self, port: int, user: str, password: str, client_id: str | None = None) -> None:
        """The client id is the user's name, where no other is given."""
        self._socket = socket.create_connection(("127.0.0.1", port), WAIT_S)
        said = (user if client_id is None else client_id, user, password)
        strings = b"".join(struct.pack(">H", len(text)) + text.encode() for text in said)
        body = b"\0\4MQTT\4\xc2\0\0" + strings  # clean session, user and password, no keep-alive
        self._socket.sendall(bytes((0x10, len(body))) + body)
        try:
            answer = self._socket.recv(4)
        except ConnectionResetError:
            answer = b""
        except TimeoutError:
            self._socket.close()
            raise
        self.up = len(answer) == 4 and answer[3] == 0

    @property
    def gone(self) -> bool:
        """Whether the broker has ended the connection."""
        while select.select([self._socket], [], [], 0)[0]:
            try:
                if not self._socket.recv(4096):
                    return True
            except ConnectionResetError:
                return True
        return False

    def __enter__(self) -> Login:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


def logs_in(port: int, user: str, password: str) -> bool:
    """Whether the broker lets this user in now."""
    with Login(port, user, password) as login:
        return login.up


def until(true: Callable[[], bool], wait_s: float = WAIT_S) -> bool:
    """Whether it has become true in time."""
    deadline = time.monotonic() + wait_s
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
