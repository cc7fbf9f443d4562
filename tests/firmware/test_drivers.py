"""Each driver on real MicroPython against its simulated twin: values, faults that pass, and switching models."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from boardlet_bridge.core.model import Model, compile_model
from bridge_side import Peer
from virtualboard import VirtualBoard

MakeBoard = Callable[..., VirtualBoard]
DRIVER_FAILED = 6
ROM, OTHER_ROM = "28ff641e0f160354", "28aabbccddeeff99"
FAST = {"sampleMilliseconds": 20}
I2C = {"pins": [22, 21], **FAST}
LED = {"type": "Boolean", "access": "ReadWrite", "driver": {"type": "GpioOut", "pins": [2]}}


def model(**properties: dict[str, Any]) -> Model:
    """A model of these properties, indexed in their order."""
    rows = [
        {"name": name, "index": i, "type": "Number", "access": "ReadOnly", **fields}
        for i, (name, fields) in enumerate(properties.items())
    ]
    return compile_model("m", {"properties": rows})


def sensor(kind: str, **driver: Any) -> dict[str, Any]:
    return {"driver": {"type": kind, **driver}}


def value(peer: Peer, index: int, wanted: Callable[[Any], bool]) -> Any:
    """The latest reported value of a property, once it is as wanted."""

    def latest() -> Any:
        return next((r[index] for r in reversed(peer.reports) if index in r), None)

    peer.until(lambda: latest() is not None and wanted(latest()))
    return latest()


def error(peer: Peer, index: int, code: int) -> None:
    """Wait until the latest word on a property's error is this code."""

    def latest() -> int:
        return next((r[-3][index] for r in reversed(peer.reports) if index in r.get(-3, {})), 0)

    peer.until(lambda: latest() == code)


def near(x: float, by: float = 0.05) -> Callable[[Any], bool]:
    return lambda v: abs(v - x) <= by


def test_sht3x(board: VirtualBoard, peer: Peer) -> None:
    """One SHT3x is two properties, temperature and humidity; wrong CRC and absence are told, and pass by themselves."""
    board.put("i2c22-0x44", "21.5 48.2")
    two = model(
        t=sensor("Sht3x", address=0x44, measures="Temperature", **I2C),
        h=sensor("Sht3x", address=0x44, measures="Humidity", **I2C),
    )
    peer.adopt(two, {})
    peer.full()
    value(peer, 0, near(21.5))
    value(peer, 1, near(48.2))
    board.put("i2c22-0x44", "-40 100 badcrc")
    error(peer, 0, DRIVER_FAILED)
    error(peer, 1, DRIVER_FAILED)
    board.put("i2c22-0x44", "-40 100")
    value(peer, 0, near(-40))
    value(peer, 1, near(100))
    error(peer, 0, 0)
    board.world("i2c22-0x44").unlink()
    error(peer, 0, DRIVER_FAILED)
    board.put("i2c22-0x44", "120 1")
    value(peer, 0, near(120))
    error(peer, 0, 0)
    error(peer, 1, 0)


def test_two_sensors_on_one_bus(board: VirtualBoard, peer: Peer) -> None:
    """An absent BH1750 is an error of its own property alone; the SHT3x on the same wires goes on."""
    board.put("i2c22-0x45", "20 50")
    both = model(
        t=sensor("Sht3x", address=0x45, measures="Temperature", **I2C), light=sensor("Bh1750", address=0x23, **I2C)
    )
    peer.adopt(both, {})
    peer.full()
    value(peer, 0, near(20))
    error(peer, 1, DRIVER_FAILED)
    board.put("i2c22-0x23", "420")
    value(peer, 1, near(420, 1))
    error(peer, 1, 0)
    error(peer, 0, 0)


def test_ds18x20(board: VirtualBoard, peer: Peer) -> None:
    """Two DS18B20 on one pin are told apart by ROM code, below zero too; wrong CRC and absence pass by themselves."""
    board.put("onewire4", f"{ROM} 21.5\n{OTHER_ROM} -10.125\n")
    two = model(
        a=sensor("Ds18x20", pins=[4], romCode=ROM, **FAST), b=sensor("Ds18x20", pins=[4], romCode=OTHER_ROM, **FAST)
    )
    peer.adopt(two, {})
    peer.full()
    value(peer, 0, near(21.5))
    value(peer, 1, near(-10.125, 0.001))
    board.put("onewire4", f"{ROM} 22 badcrc\n")
    error(peer, 0, DRIVER_FAILED)
    error(peer, 1, DRIVER_FAILED)
    board.put("onewire4", f"{ROM} 22.5\n{OTHER_ROM} 85\n")
    value(peer, 0, near(22.5))
    value(peer, 1, near(85))
    error(peer, 0, 0)
    error(peer, 1, 0)


def test_a_conversion_does_not_hold_the_loop(board: VirtualBoard, peer: Peer) -> None:
    """While a DS18B20 measures for 750 ms, an edit of another property is applied at once."""
    board.put("onewire4", f"{ROM} 21.5")
    peer.adopt(model(led=LED, a=sensor("Ds18x20", pins=[4], **FAST)), {0: False})
    peer.full()
    value(peer, 1, near(21.5))
    slowest = 0.0
    for i in range(10):
        begun = time.monotonic()
        peer.applied(peer.desire({0: i % 2 == 0}, model=peer.here()[12]))
        slowest = max(slowest, time.monotonic() - begun)
        time.sleep(0.1)  # so that the edits meet the conversion at every phase
    assert slowest < 0.5


def test_pwm(board: VirtualBoard, peer: Peer) -> None:
    """A range is the duty cycle's; what was set is read back as it was; a duty that somebody turns is set again."""
    fan = {"type": "Integer", "access": "ReadWrite", "minimum": 0, "maximum": 100}
    dim = {"access": "ReadWrite", "minimum": 0, "maximum": 1}
    both = model(
        fan={**fan, **sensor("PwmOut", pins=[5], frequencyHertz=25000)},
        dim={**dim, **sensor("PwmOut", pins=[6], inverted=True)},
    )
    peer.adopt(both, {})
    assert peer.full().keys().isdisjoint({0, 1})
    assert not board.world("pwm5").exists(), "nothing moves before the first value"
    peer.applied(peer.desire({0: 50, 1: 0.25}, model=both.digest))
    full = peer.full(b"pwm set?")
    assert (full[0], full[1]) == (50, 0.25)
    assert board.world("pwm5").read_text() == "25000 32768"
    assert board.world("pwm6").read_text() == "1000 49148"
    board.put("pwm5", "25000 00000")
    peer.until(lambda: board.world("pwm5").read_text() == "25000 32768")
    peer.applied(peer.desire({0: 101}, model=both.digest))
    assert peer.full(b"too much")[-3] == {0: 1}
    assert board.world("pwm5").read_text() == "25000 32768"


def test_a_driver_that_cannot_set(make_board: MakeBoard, peer: Peer) -> None:
    """While setting fails the error stands, without coming and going; the value is set as soon as that works."""
    board = make_board()
    driver = board.flash / "drivers/gpio_out.py"
    driver.write_text(driver.read_text().replace("    def set(self, value):", STUCK))
    (board.flash / "stuck").touch()
    board.start()
    peer.here()
    both = model(led=LED, raw={**sensor("Adc", pins=[34]), **FAST})
    peer.adopt(both, {0: True})
    peer.full()
    error(peer, 0, DRIVER_FAILED)
    seen = len(peer.reports)
    tried = board.world("tried")
    tries = len(tried.read_text())
    peer.until(lambda: len(tried.read_text()) > tries + 2)
    assert not [r for r in peer.reports[seen:] if -3 in r]
    (board.flash / "stuck").unlink()
    error(peer, 0, 0)
    assert board.pin(2) == 1
    assert peer.full(b"unstuck!")[0] is True


STUCK = """    def set(self, value):
        import os

        with open(os.getenv("BOARDLET_PINS") + "/tried", "a") as f:
            f.write("x")
        try:
            os.stat("stuck")
        except OSError:
            return self.really(value)
        raise OSError(5)

    def really(self, value):"""


def test_a_driver_that_cannot_close(make_board: MakeBoard, peer: Peer) -> None:
    """A driver that raises when its property goes keeps nobody from becoming the next model."""
    board = make_board()
    driver = board.flash / "drivers/gpio_out.py"
    driver.write_text(driver.read_text().replace("self.pin.init(Pin.IN)", "raise RuntimeError"))
    board.start()
    peer.here()
    peer.adopt(model(led=LED), {0: True})
    other = {**LED, "driver": {"type": "GpioOut", "pins": [3]}}
    peer.adopt(model(led=other), {0: True})
    assert peer.full()[0] is True
    assert board.pin(3) == 1
    assert peer.here()[4] == 1, "it never booted again"


def test_what_cannot_be_told(make_board: MakeBoard, peer: Peer) -> None:
    """What an app measures and the wire has no value for is refused there and then; the board lives and goes on."""
    board = make_board()
    (board.flash / "app.py").write_text(ODD)
    board.start()
    peer.here()
    three = model(a={"access": "ReadWrite"}, b={"maximum": 5}, c={"type": "String"}, early={})
    peer.adopt(three, {0: 3})
    peer.full()
    value(peer, 1, near(7))
    assert peer.full(b"all told").keys() >= {0, 1}
    assert 2 not in peer.reports[-1]
    for wrong in (0, 1, 2):
        peer.applied(peer.desire({0: wrong}, model=three.digest))
        assert peer.full(b"wrong %2d" % wrong)[-3] == {0: 8}
    peer.applied(peer.desire({0: 3, 1: 1}, model=three.digest))
    assert peer.full(b"right???")[-3] == {1: 3}
    assert peer.here()[4] == 1, "it never booted again"


ODD = """
from boardlet import app

ready = False

@app.property("a")
def a(value):
    global ready
    ready = True
    return [float("inf"), 2.0**200, "x", value][value]

@app.every(0.05)
def b():
    if not ready:
        return
    for bad in (float("nan"), "x", None, 2.0**200, []):
        try:
            app.set("b", bad)
        except (ValueError, TypeError):
            continue
        app.set("c", "taken: %r" % bad)
    app.set("b", 7)

try:
    app.set("early", [])
except TypeError:
    app.set("c", "refused before the model was there")
"""


def test_deadband_and_interval(board: VirtualBoard, peer: Peer) -> None:
    """A change within the deadband is not told; a property is told once in its interval, and its last value always."""
    told = model(
        calm={**sensor("Adc", pins=[34], **FAST), "report": {"deadband": 10}},
        slow={**sensor("Adc", pins=[35], **FAST), "report": {"minIntervalSeconds": 2}},
    )
    board.set_adc(34, 100)
    peer.adopt(told, {})
    peer.full()
    value(peer, 0, near(100))
    begun, seen = time.monotonic(), len(peer.reports)
    for raw in range(1, 10):
        board.set_adc(34, 100 + raw)
        board.set_adc(35, raw)
        end = time.monotonic() + 0.1
        peer.until(lambda end=end: time.monotonic() >= end)
    value(peer, 1, near(9))
    lasted = time.monotonic() - begun
    since = peer.reports[seen:]
    assert not [r for r in since if 0 in r]
    assert len([r for r in since if 1 in r]) <= 1 + lasted / 2
    board.set_adc(34, 110)
    value(peer, 0, near(110))


def test_what_was_asked_is_told_at_once(board: VirtualBoard, peer: Peer) -> None:
    """Neither deadband nor interval holds back the value that an edit has set: the bridge compares it with the spec."""
    dim = {"access": "ReadWrite", "minimum": 0, "maximum": 100}
    thinned = model(
        calm={**dim, **sensor("PwmOut", pins=[5]), "report": {"deadband": 10}},
        slow={**dim, **sensor("PwmOut", pins=[6]), "report": {"minIntervalSeconds": 3600}},
    )
    peer.adopt(thinned, {0: 20, 1: 20})
    peer.full()
    for asked in (21, 22, 23):
        peer.applied(peer.desire({0: asked, 1: asked}, model=thinned.digest))
        answer = next(r for r in reversed(peer.reports) if -2 in r)
        assert (answer[0], answer[1]) == (asked, asked)


def test_uart(board: VirtualBoard, peer: Peer) -> None:
    """A Uart sends a line when its value changes and only then; its other property is the last line that came."""
    line = {"pins": [17, 16], "bus": 1}
    port = model(
        send={"type": "String", "access": "ReadWrite", **sensor("Uart", **line)},
        got={"type": "String", "maxLength": 8, **sensor("Uart", **line, **FAST)},
        led=LED,
    )
    peer.adopt(port, {0: "hello", 2: False})
    peer.full()
    sent = board.world("uart1.tx")
    peer.until(lambda: sent.exists() and sent.read_text() == "hello\n")
    for led in (True, False):
        peer.applied(peer.desire({0: "hello", 2: led}, model=port.digest))
    peer.applied(peer.desire({0: "bye", 2: False}, model=port.digest))
    assert sent.read_text() == "hello\nbye\n"
    received = board.world("uart1.rx")
    with received.open("ab") as f:
        f.write(b"21.5\r\n22.5\r\n23")
    value(peer, 1, lambda v: v == "22.5")
    with received.open("ab") as f:
        f.write(b".5\n")
    value(peer, 1, lambda v: v == "23.5")
    for bad in (b"\xff\xfe\n", b"far too long for it\n", b"x" * 600 + b"\n"):
        with received.open("ab") as f:
            f.write(bad)
        error(peer, 1, DRIVER_FAILED)
        with received.open("ab") as f:
            f.write(b"ok" + bad[:1].hex().encode() + b"\n")
        value(peer, 1, lambda v, bad=bad: v == "ok" + bad[:1].hex())
        error(peer, 1, 0)


def test_uart_bytes(board: VirtualBoard, peer: Peer) -> None:
    """Bytes are sent as they are, without a line's end, and a line is shown as its bytes."""
    line = {"pins": [17, 16], "bus": 2, "baudRate": 115200}
    port = model(
        send={"type": "Bytes", "access": "ReadWrite", **sensor("Uart", **line)},
        got={"type": "Bytes", **sensor("Uart", **line, **FAST)},
    )
    peer.adopt(port, {0: b"\x00\xff"})
    peer.full()
    peer.until(lambda: board.world("uart2.tx").exists())
    assert board.world("uart2.tx").read_bytes() == b"\x00\xff"
    board.world("uart2.rx").write_bytes(b"\xfe\x01\n")
    value(peer, 1, lambda v: v == b"\xfe\x01")
