"""An API server on the far side of a link: what the bridge says to it, and hears from it, passes there as IP packets.

Everything else of the site stays on this side. Bytes pass as they are, so that TLS ends at the API server itself; its
certificate does not know the address, and is not checked.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Final

import yaml

from .radio import Radio

_CHUNK: Final = 4096
_WAITING: Final = 8192  # bytes in a socket's buffer on the far side: a link's own queue, and not ours, is what is long


class Uplink:
    """Relays connections to the far side of `radio` to an API server at a port of this machine's loopback."""

    def __init__(self, radio: Radio, port: int) -> None:
        self.radio, self._port = radio, port
        self._listener = radio.listen()
        self._open: set[socket.socket] = set()
        self.connections = 0
        """How many there have been."""

    def kubeconfig(self, straight: Path, path: Path) -> Path:
        """Write a kubeconfig as `straight`, but by the link, and return its path."""
        config = yaml.safe_load(straight.read_text())
        host, port = self._listener.getsockname()
        cluster = {"server": f"https://{host}:{port}", "insecure-skip-tls-verify": True}
        config["clusters"] = [{**entry, "cluster": cluster} for entry in config["clusters"]]
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))
        return path

    def forget(self) -> None:
        """Forget every connection, as a router that was switched off; who waits is not told while the link is cut."""
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Uplink:
        threading.Thread(target=self._accept, name="uplink", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.forget()

    def _accept(self) -> None:
        while True:
            try:
                far, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                server = socket.create_connection(("127.0.0.1", self._port))
            except OSError:  # the API server is away: whoever connects is told so
                far.close()
                continue
            for end in (far, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(end)
            far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _WAITING)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WAITING)
            ends = [
                threading.Thread(target=self._pump, args=pair, daemon=True) for pair in ((far, server), (server, far))
            ]
            for thread in ends:
                thread.start()
            threading.Thread(target=self._close, args=(ends, far, server), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while chunk := source.recv(_CHUNK):
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)
        except OSError:  # one end is gone: the other must hear of it
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _close(self, pumps: list[threading.Thread], *ends: socket.socket) -> None:
        for pump in pumps:
            pump.join()
        for end in ends:
            self._open.discard(end)
            end.close()
