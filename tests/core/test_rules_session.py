"""Schedules that rule 4 of docs/design.md answers: whether a board is there."""

from __future__ import annotations

from peer import RING, World, ready


class TestSession:
    """Rule 4."""

    def test_retained_here_is_not_life(self) -> None:
        """A bridge that starts finds a retained `here` of a dead board, asks, and says Silent after the deadline."""
        world = ready()
        world.start_bridge()
        world.connect_broker()
        world.wait(world.limits.ask_grace_s + 1)
        assert world.condition("Connected") == ("Unknown", "Asking")
        world.wait(90)
        assert world.condition("Connected") == ("False", "Silent")
        assert world.condition("Synced")[0] == "Unknown"

    def test_replayed_answer_is_not_life(self) -> None:
        """An answer to an earlier question, replayed, does not make a dead board look alive."""
        world = World()
        world.connect_broker()
        world.send(world.side.here())
        old_answer = world.side.full(world.nonce())
        world.send(old_answer)
        world.wait(2)
        assert world.condition("Connected")[0] == "True"
        world.start_bridge()
        world.board.ring = type(RING)(RING.root, b"another process!")
        world.connect_broker()
        world.send(old_answer)
        world.wait(world.limits.ask_grace_s + 1)
        assert world.condition("Connected") == ("Unknown", "Asking")

    def test_restart_writes_nothing_where_nothing_changed(self) -> None:
        """A new bridge leaves a right status as it is while it reads, asks and is answered: no write at all."""
        world = ready()
        before = world.object["status"]
        world.start_bridge()
        writes = world.writes
        world.wait(10)  # the listing of a large cluster, the retained messages of a large broker
        world.connect_broker()
        world.wait(3)
        world.answer()
        world.wait(30)
        assert (world.writes, world.object["status"]) == (writes, before)

    def test_values_of_a_board_taken_over_wait_their_turn(self) -> None:
        """Values alone are no news: where thousands are taken over at once, they must not go before the edits."""
        world = ready()
        world.side.values[2] = 21.5
        world.start_bridge()
        urgent, writes = world.urgent, world.writes
        world.connect_broker()
        world.answer()
        assert (world.urgent, world.writes) == (urgent, writes + 1)
        assert world.status["reported"]["temp"] == 21.5
        world.edit(led=False)
        world.ack()
        assert world.urgent > urgent

    def test_an_edit_that_came_through_meanwhile_is_news(self) -> None:
        """What an earlier bridge sent and did not live to confirm goes before values."""
        world = ready()
        world.edit(led=False)
        world.side.apply(world.retained["d"])
        world.start_bridge()
        urgent = world.urgent
        world.connect_broker()
        world.answer()
        assert world.urgent == urgent + 1
        assert world.status["observedGeneration"] == 2

    def test_restart_keeps_what_was_reported(self) -> None:
        """What a board reported last stays in its status while a new bridge asks in vain; only its life is Unknown."""
        world = ready()
        reported = world.status["reported"]
        assert reported
        world.start_bridge()
        world.connect_broker()
        world.wait(world.limits.ask_grace_s + 1)
        assert world.condition("Connected") == ("Unknown", "Asking")
        assert world.status["reported"] == reported

    def test_board_boots_while_it_is_being_asked(self) -> None:
        """A board that boots just after a new bridge asked has missed the question; it is asked anew within seconds."""
        world = ready()
        world.send(world.side.gone())
        world.start_bridge()
        world.connect_broker()
        asked = world.count("c")
        world.side.epoch = b"newboot!"
        world.side.sequence = 0
        world.send(world.side.here())
        world.wait(1.5)
        assert world.count("c") == asked + 1
        world.answer()
        assert world.condition("Ready") == ("True", "Synced")

    def test_stale_will(self) -> None:
        """A will of an older connection that arrives late changes nothing."""
        world = ready()
        old = world.side.epoch
        world.join()
        world.send(world.side.gone(old))
        assert "stale_will" in world.refused
        assert world.condition("Connected") == ("True", "Answered")

    def test_stale_will_overwrote_the_retained_session(self) -> None:
        """A new bridge that finds a stale `gone` still asks, and the living board says who it is."""
        world = ready()
        world.retained["s"] = world.side.gone(b"ancient!").payload
        world.start_bridge()
        world.connect_broker()
        world.send(world.side.here())
        world.answer()
        assert world.condition("Ready") == ("True", "Synced")

    def test_will_of_this_session(self) -> None:
        """The will of the present connection is believed at once."""
        world = ready()
        world.send(world.side.gone())
        assert world.condition("Connected") == ("False", "Gone")
        assert world.condition("Synced")[0] == "Unknown"
        assert world.condition("Ready") == ("False", "Gone")

    def test_reports_that_a_broker_held_back(self) -> None:
        """A dead board's last reports, let out slowly, keep it Connected for ten heartbeats and a deadline at most."""
        world = ready()
        held = [world.side.report({2: 20.0 + n}) for n in range(100)]
        died = world.now
        while world.condition("Connected")[0] == "True":
            world.send(held.pop(0))
            world.wait(80)
        assert world.condition("Connected") == ("False", "Silent")
        assert world.now - died <= (10 + 1.5) * 60 + 2 * 80
        world.send(held.pop(0))
        assert world.condition("Connected") == ("False", "Silent"), "no report of that session brings it back"

    def test_heartbeats_keep_it_alive(self) -> None:
        """A heartbeat a minute, with an answer every ten, keep it Connected for an hour without a status write."""
        world = ready()
        asked, writes = world.count("c"), world.writes
        for n in range(1, 61):
            world.wait(60)
            questions = world.count("c")
            world.send(world.side.report({-2: 1, -4: 60 * n}))
            if world.count("c") > questions:
                world.answer()
        assert world.count("c") - asked == 6
        assert world.writes == writes
        assert world.condition("Ready") == ("True", "Synced")

    def test_a_longer_heartbeat_than_the_spec_has(self) -> None:
        """A board that still runs with a longer heartbeat is asked before it is called silent, and answers."""
        world = ready()
        asked = world.count("c")
        world.object["spec"]["settings"] = {"heartbeatSeconds": 10}
        world.touch()  # the board does not take it
        world.wait(85)
        assert world.count("c") == asked + 1
        world.answer()
        world.wait(60)
        assert world.condition("Connected") == ("True", "Answered")
        world.wait(40)
        assert world.condition("Connected") == ("False", "Silent")

    def test_half_dead_link(self) -> None:
        """Connected and silent for 1.5 heartbeats is not connected; the next report brings it back."""
        world = ready()
        world.wait(89)
        assert world.condition("Connected")[0] == "True"
        world.wait(2)
        assert world.condition("Connected") == ("False", "Silent")
        world.send(world.side.report({-2: 1, -4: 99}))
        world.answer()
        assert world.condition("Ready") == ("True", "Synced")

    def test_half_dead_link_just_after_the_heartbeat_was_shortened(self) -> None:
        """A board that confirms a shorter heartbeat and falls silent at once is found within 1.5 times that one."""
        world = ready()
        world.object["spec"]["settings"] = {"heartbeatSeconds": 2}
        world.touch()
        world.ack()
        world.wait(3.1)
        assert world.condition("Connected") == ("False", "Silent")

    def test_lost_report_is_found(self) -> None:
        """A lost report of the last value is found by the heartbeat's sequence, and everything is asked for."""
        world = ready()
        world.side.values[2] = 20.5
        world.side.report({2: 20.5})  # lost
        asked = world.count("c")
        world.send(world.side.report({-2: 1, -4: 60}))
        assert world.count("c") == asked + 1
        world.answer()
        assert world.status["reported"]["temp"] == 20.5

    def test_duplicates_and_reordering_are_harmless(self) -> None:
        """A report that comes twice or late does not bring an old value back."""
        world = ready()
        old = world.side.report({2: 1.0})
        new = world.side.report({2: 2.0})
        world.send(old, new, old, new, old)
        world.wait(6)
        world.write()
        assert world.status["reported"]["temp"] == 2.0

    def test_broker_away_is_unknown(self) -> None:
        """While the broker is away nothing is claimed."""
        world = ready()
        world.lose_broker()
        assert world.condition("Connected") == ("Unknown", "BrokerUnreachable")
        assert world.condition("Synced")[0] == "Unknown"

    def test_newer_protocol(self) -> None:
        """A board that speaks a newer version is told about on its object, and nothing is sent to it."""
        world = ready()
        world.send(world.side.here(_0=2))
        assert world.condition("Connected") == ("False", "UnsupportedProtocol")
        sent = len(world.published)
        world.edit(target=30)
        assert len(world.published) == sent

    def test_never_seen(self) -> None:
        """A Board whose board never came says so, with the next step."""
        world = World()
        world.connect_broker()
        world.wait(100)
        assert world.condition("Ready") == ("False", "NeverSeen")
