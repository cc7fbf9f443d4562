"""The demo's story: each step shows its kubectl command, then its real output, and must come true."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from boardlet_cli.cluster import ROOT, KubectlFailed
from boardlet_cli.site import Site

WAIT_S: Final = 30


class StepFailed(Exception):
    """A step of the story did not come true; the message says which, and what was there instead."""


class Story:
    """Tells the story of a running site; its boards have no power yet."""

    def __init__(
        self, console: Console, site: Site, boards: Mapping[str, str], began: float, wait_s: int = WAIT_S
    ) -> None:
        """Every step has `wait_s` seconds to come true."""
        self._console = console
        self._site = site
        self._boards = boards
        self._began = began  # of the whole command, as time.monotonic() has it
        self._step = ""
        self._patience = f"--timeout={wait_s}s"

    def tell(self) -> None:
        """All steps in order; raises StepFailed at the first that does not come true."""
        for step in (
            self._appear,
            self._switch,
            self._measure,
            self._edit_an_absent_board,
            self._lose_the_bridge,
            self._come_back,
        ):
            try:
                step()
            except KubectlFailed as error:
                raise StepFailed(f"step {self._step!r} failed: {error}\n{self._evidence()}") from error
        self._say("All of it was true.")

    def _appear(self) -> None:
        self._say(
            "A BoardModel says what a kind of board is; each Board object is a board of ours, which the broker lets in."
        )
        self._kubectl("apply", "-f", "crds/samples/greenhouse.yaml", "-f", "crds/samples/boards.yaml")
        self._kubectl("get", "boards")
        self._say("The three boards get power. They are blank: what they are they learn from their model.")
        for board in self._site.boards.values():
            board.start()
        self._kubectl("wait", "--for=condition=Ready", *[f"board/{name}" for name in self._boards], self._patience)
        self._console.print(f"  {time.monotonic() - self._began:.1f} s after the start")
        self._kubectl("get", "boards")

    def _switch(self) -> None:
        self._say("An edit of the object switches the LED; the status says so when the board itself has said so.")
        self._kubectl("patch", "board", "greenhouse-1", "--type=merge", "-p", '{"spec":{"properties":{"led":true}}}')
        self._kubectl("wait", "--for=jsonpath={.status.reported.led}=true", "board/greenhouse-1", self._patience)
        self._kubectl("wait", "--for=condition=Synced", "board/greenhouse-1", self._patience)
        self._pin("greenhouse-1", 1)

    def _measure(self) -> None:
        self._say("A cloud passes: the light sensor of greenhouse-1 reads less, and the value arrives by itself.")
        self._kubectl("get", "board", "greenhouse-1", "-o", "jsonpath={.status.reported}")
        self._board("greenhouse-1").set_adc(34, 300)
        self._kubectl("wait", "--for=jsonpath={.status.reported.light}=150", "board/greenhouse-1", self._patience)
        self._kubectl("get", "board", "greenhouse-1", "-o", "jsonpath={.status.reported}")

    def _edit_an_absent_board(self) -> None:
        self._say("greenhouse-2 loses its power. It is edited all the same: it will find the edit when it is back.")
        self._board("greenhouse-2").kill()
        self._kubectl("wait", "--for=condition=Connected=false", "board/greenhouse-2", self._patience)
        self._kubectl("patch", "board", "greenhouse-2", "--type=merge", "-p", '{"spec":{"properties":{"led":false}}}')
        self._kubectl("get", "boards", "-o", "wide")
        self._pin("greenhouse-2", 1, ", as it was: Synced is Unknown, because nobody can know")

    def _lose_the_bridge(self) -> None:
        self._say("Now the bridge dies too, and another board is edited meanwhile. Nobody is there to see it.")
        self._site.bridge.kill()
        self._kubectl("patch", "board", "greenhouse-3", "--type=merge", "-p", '{"spec":{"properties":{"led":true}}}')
        self._say("A new bridge starts. It kept nothing on disk: it reads the objects, and asks the boards.")
        self._site.bridge.start()
        self._kubectl("wait", "--for=jsonpath={.status.reported.led}=true", "board/greenhouse-3", self._patience)
        self._kubectl("wait", "--for=condition=Ready", "board/greenhouse-3", "board/greenhouse-1", self._patience)
        self._pin("greenhouse-3", 1)

    def _come_back(self) -> None:
        self._say("greenhouse-2 has power again: it boots, finds what was asked meanwhile, and is right.")
        self._board("greenhouse-2").start()
        self._kubectl("wait", "--for=condition=Ready", "board/greenhouse-2", self._patience)
        self._pin("greenhouse-2", 0)
        self._kubectl("get", "boards")

    def _say(self, text: str) -> None:
        self._step = text
        self._console.print(Text(f"\n{text}", style="bold"))

    def _kubectl(self, *arguments: str) -> None:
        self._console.print(Text(f"$ kubectl {shlex.join(arguments)}", style="cyan"))
        real = [str(ROOT / a) if a.startswith("crds/") else a for a in arguments]
        self._console.print(self._site.cluster.run(*real).stdout.rstrip(), markup=False)

    def _pin(self, name: str, level: int, remark: str = "") -> None:
        # The board reports after it has switched, so the pin is right by the time the status is.
        found = self._board(name).pin(2)
        self._console.print(f"  pin 2 of {name} is {found}{remark}")
        if found != level:
            raise StepFailed(f"step {self._step!r} failed: pin 2 of {name} is {found}, not {level}\n{self._evidence()}")

    def _board(self, name: str) -> Any:
        return self._site.boards[self._boards[name]]

    def _evidence(self) -> str:
        boards: dict[str, Callable[[], str]] = {
            name: (lambda board_id=board_id: _tail(self._site.boards[board_id].log))  # type: ignore[misc]
            for name, board_id in self._boards.items()
        }
        said = "\n".join(f"--- console of {name}\n{tail()}" for name, tail in boards.items())
        return f"--- the bridge's log\n{self._site.bridge.process.tail()}\n{said}"


def _tail(path: Any) -> str:
    return path.read_text(errors="replace")[-1000:] if path.exists() else "(nothing)"
