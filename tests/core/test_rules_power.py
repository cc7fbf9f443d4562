"""Schedules that the rules 5, 6 and 7 of docs/design.md answer: power cuts, statuses and models."""

from __future__ import annotations

import pytest
from boardlet_bridge.core.event import ModelSeen
from boardlet_bridge.core.state import Limits
from boardlet_wire import seal
from peer import GREENHOUSE, model, ready

GROWN = {
    "properties": [
        *GREENHOUSE["properties"],
        {"name": "lamp", "index": 4, "type": "Boolean", "access": "ReadWrite", "default": True},
    ]
}


class TestPowerCut:
    """Rule 5, the bridge's half; the board's half is in tests/firmware."""

    def test_reverted_is_a_failed_state(self) -> None:
        """A desired that killed the board twice is shown as Reverted, and not minted again by itself."""
        world = ready()
        world.edit(target=30)
        desired = world.board.desired
        assert desired is not None
        world.send(world.side.here(_15=[2, desired.identity.digest, 5]))
        world.send(world.side.full(world.nonce(), _6=[2, desired.identity.digest, 5]))
        assert world.condition("Synced") == ("False", "Reverted")
        assert world.revision() == 2
        world.edit(target=29)
        assert world.revision() == 3
        world.ack()
        assert world.condition("Ready") == ("True", "Synced")

    def test_flash_is_spared(self) -> None:
        """A controller that edits in a loop is slowed down after a burst, told so, and its last value arrives."""
        world = ready(limits=Limits(mint_burst=3, mint_interval_s=5))
        for i in range(10):
            world.edit(target=10 + i)
        assert world.count("d") < 6
        assert world.board.mint_delayed_until
        world.wait(2)
        assert world.condition("Synced") == ("False", "Throttled")
        world.wait(30)
        world.ack()
        assert world.status["reported"]["target"] == 19
        assert world.condition("Ready") == ("True", "Synced")

    def test_a_revision_that_was_given_up_with_another_content(self) -> None:
        """A bridge that cannot know what killed the board mints that revision anew: the board's word lifts it above."""
        world = ready()
        world.edit(target=30)
        assert world.revision() == 2
        world.send(world.side.here(_15=[2, b"deadly!!", 5]))
        world.answer()
        assert world.revision() == 3
        world.ack()
        assert world.condition("Ready") == ("True", "Synced")

    def test_a_throttled_edit_that_is_taken_back(self) -> None:
        """A spec that goes back to what the board runs, while another one waited for the flash, is Synced again."""
        world = ready(limits=Limits(mint_burst=1, mint_interval_s=60))
        world.edit(target=30)
        assert world.board.mint_delayed_until
        world.edit(target=20)
        world.ack()
        world.wait(2)
        assert world.condition("Ready") == ("True", "Synced")


class TestStatus:
    """Rule 6."""

    def test_health_that_is_not_known(self) -> None:
        """A code of a later version is not taken for health: Healthy is Unknown, and Ready with it."""
        world = ready()
        world.send(world.side.report({-8: 9}))
        assert world.condition("Healthy") == ("Unknown", "UnknownHealth")
        assert world.condition("Ready") == ("Unknown", "UnknownHealth")

    def test_drift_on_read_back(self) -> None:
        """A pin that reads back another value than asked is Drifted, by name and value."""
        world = ready()
        world.send(world.side.report({0: False}))
        assert world.condition("Synced") == ("False", "Drifted")
        assert world.condition("Ready") == ("False", "Drifted")
        world.send(world.side.report({0: True}))
        assert world.condition("Ready") == ("True", "Synced")

    def test_synced_is_unknown_whenever_connected_is_not_true(self) -> None:
        """Even a user's error is told as Unknown with its reason while the board is away."""
        world = ready()
        world.send(world.side.gone(), ModelSeen(None, "ModelNotFound", "no such model"))
        assert world.condition("Synced") == ("Unknown", "ModelNotFound")

    def test_values_come_with_the_condition(self) -> None:
        """The write that says Synced carries the values that made it so."""
        world = ready()
        world.edit(led=False, target=7)
        world.ack()
        assert world.status["reported"] == {"led": False, "target": 7.0}


class TestModel:
    """Rule 7."""

    def test_report_under_another_model_is_not_guessed(self) -> None:
        """Values whose indexes belong to a model that the bridge does not have are not shown."""
        world = ready()
        world.side.epoch, world.side.sequence, world.side.model = b"epoch-9!", 0, b"another!"
        world.side.values = {0: True, 1: 99.0, 2: 5.0}
        world.send(world.side.here())
        world.answer()
        world.wait(2)
        assert "reported" not in world.status
        assert world.condition("Synced") == ("False", "Pending")

    def test_a_switch_of_the_model_is_no_outage(self) -> None:
        """The session that a board ends to become another model is no `Gone`, and all of the switch is one write."""
        world = ready()
        world.happened()
        before = world.writes
        world.send(ModelSeen(model(GROWN)))
        world.wait(0.1)
        world.side.apply(world.last("d").payload)
        world.send(world.side.gone())
        world.wait(2)
        world.join()
        world.wait(20)
        assert world.condition("Ready") == ("True", "Synced")
        assert world.status["reported"]["lamp"] is True
        assert world.status["model"] == {"name": "greenhouse", "digest": model(GROWN).digest.hex()}
        assert world.status["session"] == {"epoch": world.side.epoch.hex()}
        assert world.happened() == []
        assert world.writes - before == 1

    def test_a_board_that_does_not_come_back_from_its_switch(self) -> None:
        """A board that is sent another model and dies of it is `Gone` three seconds later, and told as such."""
        world = ready()
        world.happened()
        world.send(ModelSeen(model(GROWN)))
        world.wait(20)
        world.send(world.side.gone())
        world.wait(2.9)
        assert world.condition("Connected") == ("True", "Answered")
        world.wait(0.2)
        assert world.condition("Connected") == ("False", "Gone")
        assert world.happened() == ["Disconnected"]

    def test_a_board_that_was_away_when_its_model_changed(self) -> None:
        """Its return is told, and that it then begins another session to become the new model is not."""
        world = ready()
        world.happened()
        world.send(world.side.gone(), ModelSeen(model(GROWN)))
        world.wait(100)
        world.side.epoch, world.side.sequence = b"returns!", 0
        world.send(world.side.here())
        world.answer()
        world.wait(2)
        assert world.happened() == ["Disconnected", "Connected"]
        world.send(world.side.gone())
        world.wait(1)
        world.join()
        world.wait(5)
        assert world.condition("Ready") == ("True", "Synced")
        assert world.happened() == []

    def test_a_board_that_cannot_fetch_its_model_has_no_excuse(self) -> None:
        """Half a minute after a model was sent, the end of a session under the old one is an end like any other."""
        world = ready()
        world.send(ModelSeen(model(GROWN)))
        world.wait(31)
        world.send(world.side.gone())
        assert world.condition("Connected") == ("False", "Gone")

    def test_too_large_for_the_board(self) -> None:
        """A desired beyond the board's receive limit is refused on the object, and not sent."""
        world = ready()
        world.send(world.side.here(_11=128))
        world.edit(label="12345678")
        world.send(world.side.here(_11=128))
        spec = {
            "properties": [
                {"name": f"p{i}", "index": i, "type": "String", "access": "ReadWrite", "default": "x" * 60}
                for i in range(9)
            ]
        }
        sent = world.count("d")
        world.send(ModelSeen(model(spec)))
        assert world.count("d") == sent
        assert world.condition("Synced") == ("False", "TooLarge")

    @pytest.mark.parametrize(("code", "reason"), [(2, "TooLarge"), (3, "Malformed")])
    def test_unreadable_mailbox_is_no_reproach_to_what_runs(self, code: int, reason: str) -> None:
        """What a board could not read is told while it lacks what is asked, and not once it has confirmed that."""
        world = ready()
        assert world.side.applied is not None
        said = {-2: world.side.applied, -6: [0, b"", code]}  # as a board answers when its mailbox was put right
        world.send(world.side.report(said))
        assert world.condition("Synced") == ("True", "Synced")
        world.edit(target=21.5)
        world.send(world.side.report({-6: [0, b"", code]}))
        assert world.condition("Synced") == ("False", reason)
        world.ack()
        assert world.condition("Synced") == ("True", "Synced")

    def test_model_is_served_in_chunks(self) -> None:
        """A blank board fetches its model by digest and offset, within its receive limit."""
        world = ready()
        compiled = world.board.model
        assert compiled is not None
        got = b""
        while len(got) < len(compiled.encoded):
            world.send(world.side.want(compiled.digest, len(got), 50))
            answer = world.side.open("f", world.last("f").payload, world.side.epoch)
            assert answer[0] == compiled.digest
            assert answer[1] == len(got)
            assert answer[2] == len(compiled.encoded)
            got += answer[3]
        assert seal.digest(got) == compiled.digest
        world.send(world.side.want(b"unknown!", 0, 50))
        assert world.side.open("f", world.last("f").payload, world.side.epoch)[4] == 1
