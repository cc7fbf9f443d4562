"""An MQTT broker for the demo and the tests, with a credential and an access list for every client."""

from .server import Broker, Programs, find

__all__ = ["Broker", "Programs", "find"]
