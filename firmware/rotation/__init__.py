# Rotation: the board's next key comes over the air, and no power cut or refused login loses the board (PROTOCOL.md
# section 13).
#
# No part of the agent: it imports this when it is given a key, main.py while two are held. Both then lie in a store of
# their own. The board speaks under the next key and logs in with either key's password, because which of the two the
# broker takes is the bridge's to change; each end of a connection tries the other. Once it has heard the bridge under
# the next key, logged in with that key's password, config.json has that key alone, and these lines are let go.
import json
import os
import sys
from binascii import hexlify, unhexlify

from boardlet import agent as boardlet_agent
from boardlet import config
from boardlet.store import Store
from boardlet_wire import cbor
from boardlet_wire.seal import DOWN, DOWN_TAG, PASSWORD, UP, half_key, hmac, verify

FOLDER = "keys"
_NAME = "next"
_CONFIG = "config.json"


def _drop(store):
    store.drop(_NAME)
    try:
        os.rmdir(FOLDER)
    except OSError:
        pass  # it is looked at again at the next boot


def _write(text):
    with open(_CONFIG, "w") as f:
        f.write(text)
    with open(_CONFIG) as f:
        if f.read() != text:
            raise OSError("config.json was not kept")


def take(agent, body):
    # Command 2: the key is kept before anything is said under it. A command of another session, or with a number that
    # is not above the present one, does nothing; while two keys are held there is no third.
    f = cbor.loads(body)
    number, wrapped = f[5]
    old = agent.cfg["key"]
    if f[2] != agent.epoch or len(wrapped) != 32 or not agent.cfg.get("key_number", 1) < number < 1 << 31:
        return
    store = Store(FOLDER)
    if store.get(_NAME):
        return
    key = bytes(a ^ b for a, b in zip(wrapped, hmac(old, b"rotate\x00", f[0])))
    try:
        with open(_CONFIG) as file:
            held = json.load(file)
        if held["key"] != hexlify(old).decode():
            raise OSError("flashed since it started")
        held = {"config": held, "number": number, "key": hexlify(key).decode()}
        store.put(_NAME, json.dumps(held).encode())
    except OSError as e:
        agent.say(0, "key %d is not kept: %r" % (number, e))
        return _drop(store)
    agent.say(1, "holds key %d too" % number)
    hold(agent, held, agent.link.pswd)


def hold(agent, held, connected=None):
    # `connected`: the password of the present connection, which is to end in good order under the old key.
    link, cfg, plain = agent.link, agent.cfg, held["config"]
    key = unhexlify(held["key"])
    old = link.pswd
    new = plain.get("password") or hexlify(half_key(key, PASSWORD)).decode()[:32]
    received, renew, ended, former = agent.received, agent.renew, agent.lost, agent.down

    def change():
        cfg["key"] = key
        cfg["key_number"] = held["number"]
        agent.down = half_key(key, DOWN)
        agent.up = half_key(key, UP)

    def renewed(now):
        renew(now)
        agent.renew = renew
        change()

    def lost(now, e):
        link.pswd = old if link.pswd == new else new
        ended(now, e)

    def heard(letter, payload):
        counters = agent.twin.counters
        wrong = counters[0]
        received(letter, payload)
        if not payload or cfg["key"] != key:
            return
        if counters[0] != wrong:
            # The mailbox may be the old key's for a moment yet: no forgery, which is what is counted.
            if verify(former, agent.prefix + letter, b"", payload, DOWN_TAG) is not None:
                counters[0] = wrong
        elif link.pswd == new:
            agent.lost, link.on_message = ended, received
            settle(plain, held)
            sys.modules.pop("rotation", None)
            agent.say(1, "key %d alone from now on" % held["number"])

    agent.lost, link.on_message = lost, heard
    if connected is None:
        link.pswd = new
        change()
    else:
        agent.renew = renewed
        agent.twin.switch = True


def settle(plain, held):
    # Until config.json is whole with the new key the store has both, which a boot takes up again.
    plain["key"], plain["key_number"] = held["key"], held["number"]
    text = json.dumps(plain)
    try:
        _write(text)
        config.nvs(text)
    except OSError as e:
        print("config.json cannot be written, both keys stay held: %r" % e)
    else:
        _drop(Store(FOLDER))


def _held():
    # What is held, with the settings of today; None where it is over: the last boot ended before it was dropped, or
    # the board was flashed with another key.
    store = Store(FOLDER)
    raw = store.get(_NAME)
    held = json.loads(raw) if raw else None
    try:
        with open(_CONFIG) as f:
            plain = json.load(f)
    except (OSError, ValueError):
        plain = held and held["config"]
        if plain:
            try:
                _write(json.dumps(plain))  # torn while it was written: back to the old key, beside which both are held
            except OSError as e:
                print("config.json: %r" % e)
    if held and plain.get("key") == held["config"]["key"]:
        held["config"] = plain
        return held
    _drop(store)


def run(boot):
    held = _held()
    made = boardlet_agent.Agent

    def both(cfg, boot):
        agent = made(cfg, boot)
        hold(agent, held)
        return agent

    if held:
        boardlet_agent.Agent = both
    boardlet_agent.run(boot)
