"""A network link to a namespace of its own that can be cut, thin, slow and lossy: real IP packets, two TUN devices.

The kernel's own netem is not in every kernel; this needs nothing but TUN, root and iproute2. Which packets are lost
follows from a seed. Devices and namespace go when the with-block ends, the devices also when the process dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path
from shutil import which
from typing import Final

from provision.missing import Missing

_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_NO_PI: Final = 0x1001
_PACKET: Final = 65536
_IP_S: Final = 20
_CLONE_NEWNET: Final = 0x40000000
_QUEUE_S: Final = 4.0  # what waits longer than this for a thin link is dropped, as by a modem whose buffer is full


class Radio:
    """The link; `near` and `far` are the addresses, `within` a command that runs a program on the far side."""

    def __init__(self, seed: int) -> None:
        if os.geteuid() != 0 or which("ip") is None or which("nsenter") is None or not Path("/dev/net/tun").exists():
            raise Missing("network namespaces", "run as root, with iproute2, util-linux and /dev/net/tun")
        self.latency_s = 0.0
        """Of one way."""
        self.loss = 0.0
        """Of one packet, that it is lost."""
        self.bits_per_s = 0.0
        """Of one way; 0 for no limit."""
        self.cut = False
        """Nothing passes."""
        self.passed = self.lost = 0
        self.out_bytes = self.in_bytes = 0
        """What was sent from this side and from the far one while it was not cut: IP packets, the lost ones too."""
        self._dice = random.Random(seed)
        number = os.getpid() % 250  # another run on this machine has another process id
        self.near, self.far = f"10.213.{number}.1", f"10.213.{number}.2"
        self._name = f"boardlet-{os.getpid()}"
        self.within = ["nsenter", f"--net=/run/netns/{self._name}", "--"]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="radio", daemon=True)
        self._ends: list[int] = []

    def __enter__(self) -> Radio:
        try:
            here, there = self._device("blt0"), self._device("blt1")
            _ip("netns", "add", self._name)
            _ip("link", "set", there, "netns", self._name)
            _ip("addr", "add", self.near, "peer", self.far, "dev", here)
            _ip("link", "set", here, "up")
            _ip("-n", self._name, "addr", "add", self.far, "peer", self.near, "dev", there)
            _ip("-n", self._name, "link", "set", there, "up")
            _ip("-n", self._name, "link", "set", "lo", "up")
        except BaseException:
            self._remove()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self._remove()

    def listen(self) -> socket.socket:
        """A socket that listens on the far side; who accepts from it may be on this one."""
        made: list[socket.socket] = []

        def enter() -> None:  # a namespace is a thread's own, and this thread ends
            with open(f"/run/netns/{self._name}") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_server((self.far, 0)))

        thread = threading.Thread(target=enter, name="radio-listen")
        thread.start()
        thread.join()
        if not made:
            raise Missing("network namespaces", "this machine does not let a thread enter one")
        return made[0]

    def _device(self, prefix: str) -> str:
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        self._ends.append(end)
        name = f"{prefix}-{os.getpid()}"
        fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN_NO_PI))
        return name

    def _remove(self) -> None:
        for end in self._ends:
            os.close(end)
        self._ends.clear()
        subprocess.run(["ip", "netns", "del", self._name], capture_output=True, timeout=_IP_S, check=False)

    def _run(self) -> None:
        here, there = self._ends
        other = {here: there, there: here}
        free_at = dict.fromkeys(self._ends, 0.0)  # when the packet before has left
        under_way: list[tuple[float, int, int, bytes]] = []  # due, number, to, packet
        count = 0
        while not self._stop.is_set():
            wait_s = min(0.1, max(0.0, under_way[0][0] - time.monotonic())) if under_way else 0.1
            for end in select.select(self._ends, [], [], wait_s)[0]:
                packet = os.read(end, _PACKET)
                now = time.monotonic()
                left_at = max(now, free_at[end])
                if self.cut or left_at - now > _QUEUE_S:
                    self.lost += 1
                    continue
                if self.bits_per_s:
                    left_at = free_at[end] = left_at + 8 * len(packet) / self.bits_per_s
                if end == here:
                    self.out_bytes += len(packet)
                else:
                    self.in_bytes += len(packet)
                if self._dice.random() < self.loss:
                    self.lost += 1
                    continue
                count += 1
                heapq.heappush(under_way, (left_at + self.latency_s, count, other[end], packet))
            while under_way and under_way[0][0] <= time.monotonic():
                _, _, end, packet = heapq.heappop(under_way)
                self.passed += 1
                with contextlib.suppress(OSError):  # its queue is full: a network loses such packets too
                    os.write(end, packet)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=_IP_S, check=False)
    if done.returncode:
        raise Missing("network namespaces", f"ip {' '.join(arguments)}: {done.stderr.strip()}")
