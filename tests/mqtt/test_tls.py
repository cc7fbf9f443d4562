"""TLS between bridge and broker: a real mosquitto with certificates of our own, right ones and wrong ones."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import timedelta
from pathlib import Path

import broker as brokers
import pytest
from boardlet_bridge.mqtt.transport import ConnectionEnded, MqttSettings, Transport
from broker import Broker
from broker.access import BRIDGE
from controlplane.pki import LIFETIME, Authority


class Place:
    """A folder with an authority and a broker that is not started yet."""

    def __init__(self, folder: Path, programs: brokers.Programs) -> None:
        self.folder = folder
        self.authority = Authority("site")
        (folder / "ca.crt").write_bytes(self.authority.certificate)
        (folder / "password").write_text("secret")
        self.broker = Broker(folder / "broker", programs)
        self.broker.add_user(BRIDGE, "secret")

    def certify(self, *hosts: str, lifetime: timedelta = LIFETIME) -> None:
        """Give the broker a certificate for these names."""
        self.broker.certificate = self.authority.server("broker", hosts, lifetime).write(self.folder, "broker")

    def connect(self, **more: object) -> str:
        """Why the bridge's connection did not come about, "" where it did."""
        given: dict[str, object] = {
            "host": "127.0.0.1",
            "port": self.broker.port,
            "user": BRIDGE,
            "password_file": self.folder / "password",
            "tls": True,
            "ca_file": self.folder / "ca.crt",
            **more,
        }

        async def once() -> None:
            transport = Transport(MqttSettings(**given), "bridge", lambda *_: None, lambda _: None)  # type: ignore[arg-type]
            try:
                await transport.open()
                assert await transport.subscribe(["b/+/+/s"]) == []
            finally:
                transport.close()

        try:
            asyncio.run(once())
        except ConnectionEnded as ended:
            return str(ended)
        return ""


@pytest.fixture
def place(tmp_path: Path, broker_programs: brokers.Programs) -> Place:
    if broker_programs.name != "mosquitto":
        pytest.skip("the demo's mochi-mqtt has no TLS")
    return Place(tmp_path, broker_programs)


def test_the_right_certificate(place: Place) -> None:
    """By the given authority and for the name that it connects to the bridge is let in; below TLS 1.2 nobody is."""
    place.certify("127.0.0.1")
    with place.broker:
        assert place.connect() == ""
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", place.broker.port), 10) as raw, pytest.raises(ssl.SSLError):
            old.wrap_socket(raw)


def test_wrong_certificates_say_what_to_do(place: Place) -> None:
    """Another authority, another name, an expired one: each is told with its cause and the setting to mend."""
    place.certify("127.0.0.1")
    with place.broker:
        (place.folder / "other.crt").write_bytes(Authority("other").certificate)
        assert "not trusted here: name that as broker_ca_file" in place.connect(ca_file=place.folder / "other.crt")
        assert "not trusted here: name that as broker_ca_file" in place.connect(ca_file=None)
        assert "cannot read the broker's credentials" in place.connect(ca_file=place.folder / "nowhere.crt")
    place.certify("broker.example")
    with place.broker:
        assert "is for another address: have broker_host" in place.connect()
        assert "is for another name: have broker_host" in place.connect(host="localhost")
    place.certify("127.0.0.1", lifetime=timedelta(minutes=-1))
    with place.broker:
        assert "has expired: renew it" in place.connect()


def test_tls_and_none_are_told_apart(place: Place) -> None:
    """TLS where the broker speaks none is told as that; the other way round nothing is let in and it ends in time."""
    with place.broker:
        assert "seems to speak no TLS on this port" in place.connect()
    place.certify("127.0.0.1")
    with place.broker:
        assert place.connect(tls=False) != ""


def test_a_broker_that_asks_for_a_certificate(place: Place) -> None:
    """With a client certificate of the right authority the bridge is let in, without one it is not."""
    place.certify("127.0.0.1")
    place.broker.client_authority = place.folder / "ca.crt"
    own = place.authority.user(BRIDGE).write(place.folder, "bridge")
    stranger = Authority("other").user(BRIDGE).write(place.folder, "stranger")
    with place.broker:
        assert place.connect(cert_file=own[0], key_file=own[1]) == ""
        assert place.connect() != ""
        assert place.connect(cert_file=stranger[0], key_file=stranger[1]) != ""
