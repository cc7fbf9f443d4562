"""What a board refuses as a whole, by the real agent and the real bridge: what the object says, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chaos import World


@pytest.fixture
def world() -> Iterator[World]:
    """A world in which the board is Ready."""
    with World() as made:
        made.silicon.power_on()
        made.wait_for("a Ready board", lambda: not made.difference())
        yield made


def synced(world: World) -> tuple[str, str]:
    found = world.condition("Synced") or {}
    return found["status"], found["reason"]


def test_a_flash_that_is_full(world: World) -> None:
    """An edit that the board cannot keep is StorageFailed, and not applied; the next one that it can keep is."""
    world.silicon.flash.full = True
    world.edit_property("target", 30)
    world.run(3_000)
    assert synced(world) == ("False", "StorageFailed")
    assert {p.name: p.value for p in world.silicon.twin.props.values()}["target"] == 20
    world.silicon.flash.full = False
    world.edit_property("target", 31)
    world.run(3_000)
    assert synced(world) == ("True", "Synced")
    assert not world.difference()


def test_a_model_that_does_not_come(world: World) -> None:
    """A board whose questions for a model no bridge may read, as by a broker's access list, says ModelUnavailable and
    runs on under the one that it has; once they are read it becomes the new one without another edit."""
    said: list[str] = []
    judge = world.api.wrote

    def wrote(before: object, after: dict[str, dict[str, list[dict[str, str]]]]) -> None:
        judge(before, after)
        said.extend(c["reason"] for c in after["status"]["conditions"] if c["type"] == "Synced")

    route = world.hub.route

    def no_wants(client: str, topic: str, payload: bytes, retain: bool) -> None:
        if topic[-1] != "w":
            route(client, topic, payload, retain)

    world.api.wrote = wrote
    world.hub.route = no_wants
    world.set_model(1)
    world.run(40_000)
    assert said[-1] == "ModelUnavailable"
    assert (world.condition("Connected") or {})["status"] == "True"
    world.hub.route = route
    world.run(10_000)
    assert synced(world) == ("True", "Synced")
    assert not world.difference()
