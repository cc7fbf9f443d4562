"""The main job with real parts: edit a Board with kubectl, and a MicroPython board follows."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator

import paho.mqtt.client as paho
from boardlet_cli.site import Site
from boardlet_wire import seal
from boardlet_wire.keys import board_key
from boardlet_wire.topic import topic
from controlplane import ControlPlane
from greenhouse import DOOR, LED, LIGHT, Greenhouse, create, greenhouse

HEARTBEAT_S = 4


@contextlib.contextmanager
def stranger(site: Site, user: str, password: str) -> Iterator[paho.Client]:
    """Somebody who stole a credential of the broker, and no key."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="stranger")
    client.username_pw_set(user, password)
    client.connect("127.0.0.1", site.broker.port)
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def site_password(site: Site, board_id: str) -> str:
    """What the board shows the broker."""
    return seal.half_key(board_key(site.root, board_id, 1), seal.PASSWORD).hex()[:32]


def test_edit_reaches_the_pin_and_comes_back(one: Greenhouse) -> None:
    """A patch switches the pin, and the status says so only once the board has said so."""
    generation = one.edit(led=True)
    status = one.synced(generation)["status"]
    assert one.board.pin(LED) == 1
    assert status["reported"]["led"] is True
    assert status["observedGeneration"] == generation
    one.edit(led=False)
    one.synced()
    assert one.board.pin(LED) == 0


def test_sensors_arrive_by_themselves(one: Greenhouse) -> None:
    """What changes at an input pin is reported without anybody asking."""
    one.board.set_adc(LIGHT, 840)
    one.board.set_pin(DOOR, 0)
    one.reported(light=420, door=True)


def test_edit_while_the_board_is_away(one: Greenhouse) -> None:
    """A board without power is shown as gone, is edited all the same, and is right when it comes back."""
    one.board.kill()
    one.until("Connected", "False", "Gone")
    one.edit(led=True)
    one.until("Synced", "Unknown")
    assert one.board.pin(LED) == 0
    one.board.start()
    one.synced()
    assert one.board.pin(LED) == 1


def test_edit_while_the_bridge_is_away(one: Greenhouse) -> None:
    """An edit that no bridge saw reaches the board when a bridge starts; it kept nothing and needs nothing."""
    one.site.bridge.kill()
    generation = one.edit(led=True)
    one.site.bridge.start()
    one.synced(generation)
    assert one.board.pin(LED) == 1


def test_a_new_bridge_does_not_disturb(one: Greenhouse) -> None:
    """A bridge that starts anew confirms a board that is right, and mints nothing."""
    before = one.synced()["status"]["desired"]
    one.site.bridge.kill()
    one.site.bridge.start()
    one.until("Connected", "True")
    one.synced()
    assert one.object["status"]["desired"] == before


def test_broker_restart_keeping_its_store(one: Greenhouse) -> None:
    """A broker that restarts is found again by board and bridge, and the next edit arrives."""
    one.site.broker.restart()
    one.edit(led=True)
    one.synced()
    assert one.board.pin(LED) == 1


def test_broker_restart_losing_its_store(one: Greenhouse) -> None:
    """A broker that forgot everything is filled again: a board that boots later still finds its mailbox."""
    one.edit(led=True)
    one.synced()
    one.board.kill()
    one.site.broker.restart(keep_retained=False)
    one.site.bridge.wait_ready()
    one.edit(led=False)
    one.board.start()
    one.synced()
    assert one.board.pin(LED) == 0


def test_bridge_that_starts_without_its_broker_says_so(one: Greenhouse) -> None:
    """A bridge that comes up while the broker is away takes back what its predecessor claimed, and keeps the values."""
    one.reported(led=False, light=50)
    one.site.bridge.stop()
    one.site.broker.stop()
    one.site.bridge.process.start()
    obj = one.until("Connected", "Unknown", "BrokerUnreachable")
    assert one.condition("Ready", obj) == ("Unknown", "BrokerUnreachable")
    assert obj["status"]["reported"]["light"] == 50
    assert one.site.bridge.metric('boardlet_status_writes_total{outcome="rejected"}') == 0


def test_values_that_end_are_taken_from_the_status(one: Greenhouse) -> None:
    """A status that loses its last reported value can be written: another model has other properties."""
    one.reported(led=False)
    body = {
        "apiVersion": "boardlet.dev/v1alpha1",
        "kind": "BoardModel",
        "metadata": {"name": "bare"},
        "spec": {"properties": [{"name": "x", "index": 9, "type": "Boolean", "access": "ReadWrite"}]},
    }
    one.cluster.run("create", "-f", "-", stdin=json.dumps(body))
    one.cluster.run("patch", "board", one.name, "--type=merge", "-p", '{"spec":{"modelRef":{"name":"bare"}}}')
    obj = one.synced()
    assert not obj["status"].get("reported")
    assert one.site.bridge.metric('boardlet_status_writes_total{outcome="rejected"}') == 0


def test_what_has_neither_driver_nor_app(one: Greenhouse) -> None:
    """On a board without app.py what has no driver is told in the same words, whether it is asked for or not."""
    number = {"type": "Number"}
    more = [
        {"name": "x", "index": 10, "access": "ReadOnly", **number},
        {"name": "y", "index": 11, "access": "ReadWrite", "default": 1, **number},
    ]
    patch = [{"op": "add", "path": "/spec/properties/-", "value": prop} for prop in more]
    one.cluster.run("patch", "boardmodel", "greenhouse", "--type=json", "-p", json.dumps(patch))
    errors = one.until("Synced", "False", "PropertyErrors")["status"]["errors"]
    assert [(e["property"], e["source"], e["reason"]) for e in errors] == [
        ("x", "Bridge", "NoHandler"),
        ("y", "Board", "NoHandler"),
    ]
    assert errors[0]["message"] == errors[1]["message"]


def test_broker_away_is_unknown(one: Greenhouse) -> None:
    """While the broker is away nothing is claimed about boards; an edit made meanwhile is not lost."""
    one.site.broker.stop()
    one.until("Connected", "Unknown", "BrokerUnreachable")
    one.edit(led=True)
    one.site.broker.start()
    one.synced(wait_s=90)
    assert one.board.pin(LED) == 1


def test_api_server_restart(one: Greenhouse, plane: ControlPlane) -> None:
    """The bridge survives a restart of the API server: the next edit and the next value arrive."""
    plane.restart_apiserver()
    one.edit(led=True)
    one.synced(wait_s=60)
    assert one.board.pin(LED) == 1
    one.board.set_adc(LIGHT, 900)
    one.reported(light=450, wait_s=60)


def test_values_of_the_time_without_an_api_server(one: Greenhouse, plane: ControlPlane) -> None:
    """What a board reported while no API server was there is written once there is one."""
    plane.stop_apiserver()
    try:
        one.site.bridge.process.wait_until(lambda: bool(one.site.bridge.parts().get("cluster")), 30)
        one.board.set_adc(LIGHT, 1000)
        one.board.kill()
        one.board.start()
    finally:
        plane.start_apiserver()
    one.reported(light=500, wait_s=60)
    one.synced()


def test_power_cycle_in_the_middle_of_everything(one: Greenhouse) -> None:
    """Ten edits with a power cut after each, at whatever moment it hits: the last one is what the board runs."""
    for n in range(10):
        one.edit(led=n % 2 == 0)
        one.board.kill()
        one.board.start()
    generation = one.edit(led=True)
    status = one.synced(generation, wait_s=60)["status"]
    assert one.board.pin(LED) == 1
    assert status["reported"]["led"] is True


def test_deleted_and_created_again(one: Greenhouse) -> None:
    """A Board deleted and created under the same name is a new object: its own spec counts, nothing of the old one."""
    one.edit(led=True)
    one.synced()
    one.cluster.run("delete", "board", one.name, "--timeout=30s")
    create(one, properties={"led": False})
    one.synced()
    assert one.board.pin(LED) == 0


def test_deletion_does_not_wait_for_the_board(one: Greenhouse) -> None:
    """A Board whose board is gone for good can be deleted at once."""
    one.board.kill()
    one.until("Connected", "False")
    one.cluster.run("delete", "board", one.name, "--timeout=30s")


def test_a_stale_will(one: Greenhouse) -> None:
    """A frozen chip's connection that the broker ends late does not make its successor look gone."""
    flash = one.board.flash
    one.board.pause()
    config = json.loads((flash / "config.json").read_text())
    # The same board, booted elsewhere from the same flash, as after a replaced supply: the broker throws the old
    # connection out and publishes its will when the new one logs in with the same client id.
    twin = one.site.add_board(one.board_id, config=config)
    twin.start()
    one.edit(led=True)
    one.synced()
    assert one.condition("Connected") == ("True", "Answered")
    assert twin.pin(LED) == 1
    one.board.kill()


def test_two_edits_in_a_row(one: Greenhouse) -> None:
    """Of edits that follow each other only the last one stays, and the board never goes back."""
    for value in (True, False, True, False, True):
        generation = one.edit(led=value)
    one.synced(generation)
    assert one.board.pin(LED) == 1
    assert one.object["status"]["observedGeneration"] == generation


def test_a_value_that_one_property_rejects(one: Greenhouse) -> None:
    """One wrong value is told for its property, the others apply, and mending it mends the status."""
    one.edit(led=True, light=3, nonsense="x")
    status = one.until("Synced", "False", "PropertyErrors")["status"]
    assert {(e["property"], e["reason"]) for e in status["errors"]} == {
        ("light", "ReadOnly"),
        ("nonsense", "UnknownProperty"),
    }
    one.reported(led=True)
    assert one.board.pin(LED) == 1
    one.cluster.run(
        "patch", "board", one.name, "--type=merge", "-p", '{"spec":{"properties":{"light":null,"nonsense":null}}}'
    )
    assert "errors" not in one.synced()["status"]


def test_a_board_without_an_object_is_left_alone(site: Site) -> None:
    """A board that nobody registered is counted and sent nothing; an object makes it ours."""
    board = site.add_board("zzzzzzzz")
    board.start()
    site.bridge.process.wait_until(lambda: site.bridge.metric("boardlet_unknown_boards_total") >= 1, 30)
    assert board.pin(LED) is None
    one = greenhouse(site)
    one.synced()
    created = Greenhouse(site, site.cluster, "late", board, "zzzzzzzz")
    create(created)
    created.synced()


def test_a_model_that_does_not_exist(site: Site) -> None:
    """A Board that names no existing model says so and what to do; creating the model mends it."""
    board = site.add_board("k7m2q9xa")
    one = Greenhouse(site, site.cluster, "g1", board, "k7m2q9xa")
    create(one)
    board.start()
    one.until("Synced", "False", "ModelNotFound")
    site.cluster.run("apply", "-f", "crds/samples/greenhouse.yaml")
    one.synced()


def test_a_model_that_grows(one: Greenhouse) -> None:
    """A property added to the model reaches its boards at once, without a reboot, and keeps what they have."""
    one.edit(led=True)
    boots = one.synced()["status"]["board"]["bootCount"]
    model = one.cluster.get("boardmodel", "greenhouse")
    fan = {"name": "fan", "index": 3, "type": "Boolean", "access": "ReadWrite", "default": True}
    model["spec"]["properties"].append({**fan, "driver": {"type": "GpioOut", "pins": [5]}})
    one.cluster.run("replace", "-f", "-", stdin=json.dumps(model))
    obj = one.reported(fan=True)
    assert one.board.pin(5) == 1
    assert one.board.pin(LED) == 1
    assert obj["status"]["board"]["bootCount"] == boots
    one.synced()


def test_a_frozen_board_is_found_by_its_deadline(site: Site) -> None:
    """A board that keeps its connection and says nothing is Silent within 1.5 heartbeats, and not before one."""
    one = greenhouse(site)
    one.synced()
    patch = {"spec": {"settings": {"heartbeatSeconds": HEARTBEAT_S}}}
    one.cluster.run("patch", "board", one.name, "--type=merge", "-p", json.dumps(patch))
    one.synced()
    one.board.pause()
    paused_at = time.time()
    obj = one.until("Connected", "False", "Silent")
    assert time.time() - paused_at > 0.4 * HEARTBEAT_S, "its last heartbeat was at most one before the pause"
    assert one.changed_at("Connected", obj) - paused_at < 1.5 * HEARTBEAT_S + 0.5
    one.board.resume()
    one.synced()


def test_the_bridge_stops_in_order(make_site: Callable[..., Site]) -> None:
    """SIGTERM ends the bridge with exit code 0, and a value that waited for its turn is written before it ends."""
    one = greenhouse(make_site({"status_interval_s": 600}))
    one.synced()
    one.board.set_adc(LIGHT, 640)
    of = f'board="g1",model="greenhouse",namespace="{one.cluster.namespace}",property="light",unit="lx"'
    process, heard = one.site.bridge.process, f"boardlet_property_value{{{of}}}"
    process.wait_until(lambda: one.site.bridge.metric(heard) == 320, 30)
    assert one.object["status"]["reported"].get("light") != 320, "it has to wait"
    assert process.pid
    os.kill(process.pid, signal.SIGTERM)
    process.stop()
    assert process.returncode == 0
    assert one.object["status"]["reported"]["light"] == 320


def test_garbage_from_a_board_is_told_and_disturbs_nothing(one: Greenhouse) -> None:
    """Messages in a board's name without its key are told on that Board, which stays Ready; the bridge goes on."""
    user, password = one.board_id, one.site.broker.users[one.board_id]
    with stranger(one.site, user, password) as client:
        for payload in (b"garbage", b"", bytes(5000), b"\xa1\x20\x00" + bytes(8)):
            for letter in "rwt":
                client.publish(topic(one.board_id, letter), payload, qos=1).wait_for_publish(10)
    obj = one.until("MessagesRefused", "True", "WrongSeal")
    assert one.condition("Ready", obj) == ("True", "Synced")
    one.edit(led=True)
    one.synced()


def test_a_board_with_another_key_is_not_believed(site: Site) -> None:
    """A board that holds a wrong key is never Connected, whatever it claims; the Board says that seals are wrong."""
    one = greenhouse(site, key="00" * 32, password=site_password(site, "k7m2q9xa"))
    one.until("MessagesRefused", "True", "WrongSeal")
    assert one.condition("Connected")[0] != "True"
    assert one.board.pin(LED) is None


def test_a_board_that_died_with_its_bridge_is_shown_as_gone(one: Greenhouse) -> None:
    """A bridge that starts and finds a board dead says so, whatever the status had said before."""
    before = one.reported(led=False, light=50, door=False)["status"]["reported"]
    one.site.bridge.kill()
    one.board.kill()
    one.site.bridge.start()
    one.until("Connected", "False", "Gone")
    assert one.until("Ready", "False", "Gone")["status"]["reported"] == before, "what was known last stays"


def test_a_model_without_a_property_of_the_one_before(one: Greenhouse) -> None:
    """Nothing that the old model had stays in the status, and the new one's properties come."""
    model = {
        "apiVersion": "boardlet.dev/v1alpha1",
        "kind": "BoardModel",
        "metadata": {"name": "lamp"},
        "spec": {
            "properties": [
                {
                    "name": "lamp",
                    "index": 7,
                    "type": "Boolean",
                    "access": "ReadWrite",
                    "default": True,
                    "driver": {"type": "GpioOut", "pins": [5]},
                }
            ]
        },
    }
    one.cluster.run("apply", "-f", "-", stdin=json.dumps(model))
    one.cluster.run("patch", "board", one.name, "--type=merge", "-p", '{"spec":{"modelRef":{"name":"lamp"}}}')
    assert one.synced()["status"]["reported"] == {"lamp": True}
    assert "does not take this status" not in one.site.bridge.log


def test_a_property_in_any_script(one: Greenhouse) -> None:
    """A name that no model can have is told in status.errors, also one of emoji."""
    one.edit(**{"\U0001f600": 1})
    one.until("Synced", "False", "PropertyErrors")
    assert one.object["status"]["errors"][0]["property"] == "\U0001f600"
