# TLS below the link, for a board whose config.json has `tls`; no other board has this file.
#
# With `psk` both sides know a key that follows from the board's password: no certificate, no date. Else:
# The broker's certificate must be signed by one in ca.der, be for the configured name, and be valid today. The
# handshake goes on in the turns of the link and blocks none of them: neither watchdog nor the board's work wait for it.
import socket
import struct
import time

import machine
import tls
from boardlet_wire.seal import half_key
from micropython import const

_CA = "ca.der"
_PSK = b"k"
_NTP_S = const(1)
_NTP_PORT = const(123)

_context = _password = None


class Secure:
    # What the link reads and writes; it polls the socket below, because polling TLS costs a wake-up a millisecond.
    def __init__(self, net, name):
        self.io = _context.wrap_socket(net, server_hostname=name, do_handshake_on_connect=False)
        self.first = b""  # what waits for the end of the handshake, None after that
        self.unsent = 0  # mbedTLS wants what it could not send once more, and no byte beside it

    def write(self, buf):
        if self.first is not None:
            self.first += buf
            self._begin()
            return len(buf)
        n = self.unsent or len(buf)
        done = self.io.write(memoryview(buf)[:n])
        self.unsent = n - (done or 0)
        return done

    def readinto(self, buf):
        if self.first is not None and not self._begin():
            return None
        return self.io.readinto(buf)

    def _begin(self):
        # A step of the handshake; whether it is over.
        try:
            if self.io.write(self.first) is None:
                return False
        except ValueError as e:  # mbedTLS's verdict, a reason a line
            why = str(e).strip().replace("\n", ", ")
            raise OSError("TLS: %s; the board's date is %d-%02d-%02d" % ((why,) + time.gmtime()[:3]))
        except OSError as e:
            raise OSError("TLS: no handshake: %r" % e)
        self.first = None
        return True

    def close(self):
        self.io.close()


def _load(link):
    context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    if link.cfg["tls"].get("psk"):
        if not hasattr(context, "psk_key"):
            raise OSError("TLS: this MicroPython has no pre-shared keys: 1.29 has")
        context.psk_identity = link.user.encode()
        context.psk_key = half_key(link.pswd.encode(), _PSK)  # it then offers nothing else
        return context
    context.verify_mode = tls.CERT_REQUIRED
    try:
        with open(_CA, "rb") as f:
            der = f.read()
        while True:  # one after the other; each says its length
            size = 4 + (der[2] << 8 | der[3])
            context.load_verify_locations(der[:size])
            der = der[size:]
            if not der:
                return context
    except AttributeError:
        raise OSError("TLS: this MicroPython checks no certificates")
    except (OSError, ValueError, IndexError) as e:
        raise OSError("TLS: %s: %r" % (_CA, e))


def _set_clock(how):
    # Most chips begin in 2000 or 2021 when they had no power, when no certificate of today was valid yet.
    if time.gmtime()[:3] >= tuple(how.get("since", ())) or "ntp" not in how:
        return
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        s.settimeout(_NTP_S)
        s.connect(socket.getaddrinfo(how["ntp"], how.get("ntp_port", _NTP_PORT))[0][-1])  # so that no other may answer
        s.send(b"\x1b" + bytes(47))
        now = struct.unpack_from(">I", s.recv(48), 40)[0]
    except (OSError, ValueError) as e:
        raise OSError("TLS: no time from %s: %r" % (how["ntp"], e))
    finally:
        s.close()
    if now < 0xE0000000:  # NTP counts modulo 2^32 seconds since 1900, and began anew in 2036
        now += 1 << 32
    t = time.gmtime(now - (3155673600 if time.gmtime(0)[0] == 2000 else 2208988800))
    machine.RTC().datetime((t[0], t[1], t[2], t[6] + 1, t[3], t[4], t[5], 0))


def wrap(link, net):
    # The socket that stands, as one that speaks TLS; raises OSError.
    global _context, _password
    how = link.cfg["tls"]
    if not how.get("psk"):
        _set_clock(how)
    if _context is None or _password != link.pswd:  # a board whose key is replaced has two, and tries either
        _context = _load(link)
        _password = link.pswd
    return Secure(net, how.get("name") or link.server)
