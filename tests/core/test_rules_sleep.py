"""Schedules that rule 4 of docs/design.md answers: boards that sleep between their turns."""

from __future__ import annotations

import copy

from peer import BoardSide, World, ready


class TestSleep:
    """Rule 4 for boards that sleep between their turns."""

    def asleep(self, **settings: int) -> World:
        world = ready()
        world.object["spec"]["settings"] = {"sleepSeconds": 600, **settings}
        world.touch()
        world.ack()
        assert world.side.open("d", world.retained["d"])[3].endswith(bytes([0xA1, 0x02, 0x19, 0x02, 0x58]))
        world.send(world.side.asleep())
        return world

    def wake(self, world: World) -> None:
        world.wait(600)
        world.join(_5=4)  # out of deep sleep

    def test_asleep_is_not_a_failure_until_it_is_late(self) -> None:
        """A board that said it sleeps is Connected, Synced and Healthy for two sleeps and a minute, then Overdue."""
        world = self.asleep()
        assert world.condition("Connected") == ("True", "Asleep")
        assert world.condition("Ready") == ("True", "Synced")
        world.wait(2 * 600 + 59)
        assert world.condition("Ready") == ("True", "Synced")
        world.wait(2)
        assert world.condition("Connected") == ("False", "Overdue")
        assert world.condition("Ready") == ("False", "Overdue")
        assert world.condition("Synced")[0] == world.condition("Healthy")[0] == "Unknown"
        world.join()
        assert world.condition("Ready") == ("True", "Synced")

    def test_how_long_it_may_stay_away_is_a_setting(self) -> None:
        """maxOfflineSeconds is the deadline; but never shorter than the sleep that the board itself has named."""
        world = self.asleep(maxOfflineSeconds=700)
        world.wait(699)
        assert world.condition("Connected") == ("True", "Asleep")
        world.wait(2)
        assert world.condition("Connected") == ("False", "Overdue")
        world.join()
        world.send(world.side.asleep(900))
        world.wait(899)
        assert world.condition("Connected") == ("True", "Asleep")

    def test_an_edit_waits_for_the_board_to_wake(self) -> None:
        """An edit of a sleeping board is Pending in its mailbox, without a command, and arrives at the next turn."""
        world = self.asleep()
        asked = world.count("c")
        world.edit(target=30)
        world.wait(2)
        assert world.condition("Connected") == ("True", "Asleep")
        assert world.condition("Synced") == ("False", "Pending")
        assert world.status["observedGeneration"] == 2
        assert world.count("c") == asked
        self.wake(world)
        assert world.condition("Ready") == ("True", "Synced")
        assert world.status["reported"]["target"] == 30
        world.send(world.side.asleep())
        assert world.condition("Connected") == ("True", "Asleep")

    def test_a_turn_without_news_costs_no_write(self) -> None:
        """A board that wakes, has nothing new and sleeps again is not written; a new value is, once."""
        world = self.asleep()
        writes = world.writes
        for _ in range(10):
            self.wake(world)
            world.wait(2)
            world.send(world.side.asleep())
        assert world.condition("Connected") == ("True", "Asleep")
        world.side.values[2] = 21.5
        self.wake(world)
        world.send(world.side.asleep())
        assert world.status["reported"]["temp"] == 21.5
        assert world.condition("Connected") == ("True", "Asleep")
        # Of each turn only the epoch's name is new, which is no reason to write.
        assert world.writes == writes + 1

    def test_a_board_that_stays_awake_is_shown_awake(self) -> None:
        """A sleeper that does not go to sleep again within its budget is shown as answering."""
        world = self.asleep()
        self.wake(world)
        world.wait(21)
        assert world.condition("Connected") == ("True", "Answered")

    def test_a_board_that_wakes_and_says_no_more(self) -> None:
        """A birth after sleep that no answer follows is Unknown once the turn should be over, then Silent."""
        world = self.asleep()
        world.side.epoch = b"newwake!"
        world.send(world.side.here())
        world.wait(21)
        assert world.condition("Connected") == ("Unknown", "Asking")
        world.wait(90)
        assert world.condition("Connected") == ("False", "Silent")

    def test_a_retained_asleep_is_not_proof(self) -> None:
        """A bridge that starts finds `asleep`, asks nobody, claims nothing; the deadline counts from then."""
        world = self.asleep()
        asked = world.count("c")
        world.wait(500)
        world.start_bridge()
        world.connect_broker()
        assert world.condition("Connected") == ("Unknown", "Asleep")
        assert world.condition("Synced")[0] == "Unknown"
        world.wait(1259)
        assert world.condition("Connected") == ("Unknown", "Asleep")
        assert world.count("c") == asked
        world.wait(2)
        assert world.condition("Connected") == ("False", "Overdue")
        world.join()
        world.send(world.side.asleep())
        assert world.condition("Connected") == ("True", "Asleep")

    def test_the_broker_goes_and_comes_back(self) -> None:
        """The same retained word after a reconnect is what it was before, and does not move the deadline."""
        world = self.asleep()
        world.wait(1000)
        world.lose_broker()
        assert world.condition("Connected") == ("Unknown", "BrokerUnreachable")
        world.connect_broker()
        assert world.condition("Ready") == ("True", "Synced")
        world.wait(261)
        assert world.condition("Connected") == ("False", "Overdue")
        world.lose_broker()
        world.notices.clear()
        world.connect_broker()
        assert world.condition("Connected") == ("False", "Overdue")
        assert world.notices == []

    def test_it_woke_while_the_broker_could_not_be_reached(self) -> None:
        """Another epoch's `asleep` after a reconnect is a memory only: the turn was not heard."""
        world = self.asleep()
        world.lose_broker()
        world.retained["s"] = world.side.asleep(epoch=b"unheard!").payload
        world.connect_broker()
        assert world.condition("Connected") == ("Unknown", "Asleep")
        assert world.condition("Synced")[0] == world.condition("Healthy")[0] == "Unknown"

    def test_asleep_without_an_answer_is_not_proof(self) -> None:
        """A board whose turn ended before it answered this bridge is Unknown, not Asleep in good order."""
        world = World()
        world.connect_broker()
        world.send(world.side.here(), world.side.asleep())
        world.wait(2)
        assert world.condition("Connected") == ("Unknown", "Asleep")

    def test_replays_from_before_its_sleep(self) -> None:
        """Birth, report and `asleep` of the session that ended, sent again, change nothing and move no deadline."""
        world = self.asleep()
        before, asked = copy.deepcopy(world.status), world.count("c")
        old = BoardSide(epoch=world.side.epoch, applied=world.side.applied, model=world.side.model)
        for seconds in range(5):
            world.wait(seconds)
            world.send(old.here(), old.report({0: False}), old.asleep())
        assert world.status == before | {"droppedMessages": {"byBridge": {"repeated": 1}}}
        assert world.count("c") == asked
        world.wait(1251)
        assert world.condition("Connected") == ("False", "Overdue")

    def test_a_will_of_an_older_connection_does_not_end_its_sleep(self) -> None:
        """A late will of another epoch is refused while the board sleeps."""
        world = self.asleep()
        world.send(world.side.gone(b"ancient!"))
        assert world.condition("Connected") == ("True", "Asleep")

    def test_a_farewell_that_was_lost(self) -> None:
        """The will of the very session that ended in sleep means only that the radio went off too soon."""
        world = self.asleep()
        world.send(world.side.gone())
        assert world.condition("Connected") == ("True", "Asleep")
        world.wait(1261)
        world.send(world.side.gone())
        assert world.condition("Connected") == ("False", "Overdue")

    def test_what_the_board_refuses_is_told_while_it_sleeps(self) -> None:
        """A sleeping board's errors stay what it said last."""
        world = ready()
        world.send(world.side.report({-3: {0: 6}}), world.side.asleep())
        assert world.condition("Connected") == ("True", "Asleep")
        assert world.condition("Synced") == ("False", "PropertyErrors")
