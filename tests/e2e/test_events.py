"""Events with real parts: what `kubectl describe board` shows a person."""

from __future__ import annotations

import re

from greenhouse import Greenhouse


def test_describe_tells_what_has_happened(one: Greenhouse) -> None:
    """A connect, a power cut, a reboot and a refused value stand in `kubectl describe board`, with type and reason."""
    one.board.kill()
    one.until("Connected", "False", "Gone")
    one.board.start()
    one.synced()
    one.edit(nonsense=1)
    one.until("Synced", "False", "PropertyErrors")

    def described() -> str:
        return one.cluster.run("describe", "board", one.name).stdout.partition("\nEvents:")[2]

    wanted = {
        "Connected": r"Normal .* boardlet-bridge +the board answers; boot 1, cause PowerOn; agent ",
        "Disconnected": r"Warning .* boardlet-bridge +the board's connection to the broker has ended",
        "Rebooted": r"Normal .* boardlet-bridge +the board answers; boot 2, cause PowerOn; agent ",
        "PropertyErrors": r"Warning .* boardlet-bridge +nonsense: model greenhouse has no such property",
    }

    def told() -> bool:
        lines = {line.split()[1]: line for line in described().splitlines()[3:] if line.strip()}
        return all(re.search(words, lines.get(reason, "")) for reason, words in wanted.items())

    one.site.bridge.process.wait_until(told, 20)
    assert one.site.bridge.metric('boardlet_events_total{outcome="written"}') >= 4
    print(described())


def test_what_repeats_is_counted(one: Greenhouse) -> None:
    """A refused value that comes and goes three times is one Event of each reason with a count of three."""
    for n in range(3):
        one.edit(nonsense=n)
        one.until("Synced", "False", "PropertyErrors")
        one.edit(nonsense=None)
        one.synced()

    def counted() -> bool:
        events = one.cluster.run("get", "events", "-o", "jsonpath={range .items[*]}{.reason}={.count} {end}").stdout
        return {"PropertyErrors=3", "Resolved=3"} <= set(events.split())

    one.site.bridge.process.wait_until(counted, 20)
