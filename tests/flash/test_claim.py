"""Who gets a claim instead of an identity, and with which fingerprint."""

from __future__ import annotations

import socket

import pytest
from boardlet_bridge.core.root_key import only
from boardlet_cli.asking import fingerprint
from boardlet_cli.identity import identify
from boardlet_cli.order import FlashFailed, Order


def test_flashed_again_it_keeps_its_fingerprint() -> None:
    """A board that asks already goes on asking as the same, if it knows as whom; a Board is not made to forget."""
    with socket.create_server(("127.0.0.1", 0)) as broker:
        order = Order(None, "", "", *broker.getsockname(), only(bytes(32)), claim=1)
        first, other = identify(order, {}, None), identify(order, {}, None)
        again = identify(order, {"claim": "00", "secret": first.secret}, None)
        assert fingerprint(first.secret) == fingerprint(again.secret) != fingerprint(other.secret)
        for spoilt in ("zz", 5, first.secret + "\n"):
            assert len(identify(order, {"claim": "00", "secret": spoilt}, None).secret) == 64
        with pytest.raises(FlashFailed, match="would forget it"):
            identify(order, {"id": "k7m2q9xa", "key": "00"}, None)
