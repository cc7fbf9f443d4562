"""What TLS costs a board: memory of a connection and at the handshake, CPU of a handshake; by certificate, by key."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import broker as brokers
import pytest
from boardimage.authority import CA, der
from boardlet_bridge.mqtt.credential import shared_key
from bridge_side import BOARD_ID
from broker import Broker
from controlplane.pki import Authority
from virtualboard import interpreter

HOST = "127.0.0.1"
MOST_BYTES = 32 * 1024  # at the handshake, on 64 bits; a chip's pointers are half as long
HANDSHAKES = 20
# mbedTLS of this interpreter allocates by the C library's calloc: counted there, the peak from the last signal on.
COUNT = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static long used, peak;
static int out = -1;
static void *(*real_calloc)(size_t, size_t);
static void (*real_free)(void *);
static void begin(int number) { peak = used; }
__attribute__((constructor)) static void start(void) {
    real_free = dlsym(RTLD_NEXT, "free");
    real_calloc = dlsym(RTLD_NEXT, "calloc");
    out = open(getenv("COUNT"), O_CREAT | O_WRONLY, 0600);
    signal(SIGUSR1, begin);
}
static void said(void) {
    char text[64];
    if (out >= 0 && pwrite(out, text, snprintf(text, 64, "%20ld %20ld", used, peak), 0) < 0) abort();
}
extern void *__libc_calloc(size_t, size_t);
extern void __libc_free(void *);
void *calloc(size_t n, size_t size) {
    void *made = real_calloc ? real_calloc(n, size) : __libc_calloc(n, size);
    used += made ? malloc_usable_size(made) : 0;
    if (used > peak) peak = used;
    said();
    return made;
}
void free(void *gone) {
    used -= gone ? malloc_usable_size(gone) : 0;
    if (real_free) real_free(gone); else __libc_free(gone);
    said();
}
"""
CLIENT = """
import gc, socket, sys, tls
mode, port, count, key = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
def wait(name):
    gc.collect()
    print(name)
    sys.stdin.readline()
wait("begin")
context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
if mode == "key":
    context.psk_identity = b"k7m2q9xa"
    context.psk_key = bytes.fromhex(key)
else:
    with open("ca.der", "rb") as f:
        context.load_verify_locations(f.read())
address = socket.getaddrinfo("127.0.0.1", port)[0][-1]
for n in range(count):
    s = socket.socket()
    s.connect(address)
    wrapped = context.wrap_socket(s, server_hostname="127.0.0.1")
    if n < count - 1:
        wrapped.close()
wait("end")
"""


@contextmanager
def listening(folder: Path, programs: brokers.Programs, mode: str) -> Iterator[Broker]:
    """A broker for boards with a certificate, or with shared keys."""
    made = Broker(folder / "broker", programs)
    made.users[BOARD_ID] = "password"
    if mode == "key":
        made.board_keys = True
    else:
        authority = Authority("site")
        (folder / CA).write_bytes(der(authority.certificate))
        made.board_certificate = authority.server("broker", [HOST]).write(folder, "broker")
    with made:
        yield made


def client(folder: Path, broker: Broker, mode: str, count: int, **env: str) -> tuple[list[int], float]:
    """Bytes used before, bytes used and their peak after so many handshakes; seconds of CPU that all of it took."""
    (folder / "client.py").write_text(CLIENT)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [interpreter(), "client.py", mode, str(broker.board_port), str(count), shared_key("password")]
    seen: list[int] = []
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **env}
    ) as program:
        assert program.stdout is not None
        assert program.stdin is not None
        for expected in ("begin", "end"):
            assert program.stdout.readline().strip() == expected
            if env:
                seen += map(int, Path(env["COUNT"]).read_text().split())
                program.send_signal(signal.SIGUSR1)
            program.stdin.write("\n")
            program.stdin.flush()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seen, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("mode", ["certificate", "key"])
def test_what_a_connection_costs(tmp_path: Path, broker_programs: brokers.Programs, mode: str) -> None:
    """A connection's memory stays below its bound, at the handshake too; CPU of a handshake is measured and printed."""
    if broker_programs.name != "mosquitto":
        pytest.skip("the demo's mochi-mqtt has no TLS")
    if which("gcc") is None:
        pytest.skip("gcc: install the package gcc")
    source, library = tmp_path / "count.c", tmp_path / "count.so"
    source.write_text(COUNT)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=60)
    with listening(tmp_path, broker_programs, mode) as broker:
        env = {"LD_PRELOAD": str(library), "COUNT": str(tmp_path / "count")}
        (before, _, used, peak), _ = client(tmp_path, broker, mode, 1, **env)
        _, few = client(tmp_path, broker, mode, 0)
        _, many = client(tmp_path, broker, mode, HANDSHAKES)
    print(f"TLS by {mode}: {used - before} B while connected, {peak - before} B at the handshake (64 bits), ", end="")
    print(f"{(many - few) / HANDSHAKES * 1000:.2f} ms of CPU a handshake")
    assert 16 * 1024 < used - before <= peak - before <= MOST_BYTES
