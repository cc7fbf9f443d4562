# The board's identity and how it reaches the broker: config.json, as `boardlet flash` wrote it. On ESP32 a copy is kept
# in NVS, because a broken file system must not cost a board its identity.
import json
from binascii import hexlify, unhexlify

from boardlet_wire.seal import PASSWORD, half_key


def load():
    # The configuration with defaults filled in; raises OSError or ValueError where there is none.
    try:
        with open("config.json") as f:
            text = f.read()
        cfg = json.loads(text)
        nvs(text)
    except (OSError, ValueError):
        text = nvs(None)
        if text is None:
            raise
        cfg = json.loads(text)
    key = unhexlify(cfg["key"])
    cfg["key"] = key
    cfg.setdefault("user", cfg["id"])
    cfg["password"] = cfg.get("password") or hexlify(half_key(key, PASSWORD)).decode()[:32]
    return cfg


def nvs(text):
    # What it holds, else None; `text` is put there. Where it cannot be (worn, full) config.json holds: what is in NVS
    # may have a key that is over.
    held = None
    try:
        from esp32 import NVS

        nvs = NVS("boardlet")
        buf = bytearray(1024)
        try:
            held = buf[: nvs.get_blob("config", buf)].decode()
        except OSError:
            pass  # nothing yet
        if text and text != held:
            nvs.set_blob("config", text.encode())
            nvs.commit()
    except (ImportError, OSError):
        pass
    return held
