"""The rules that keep the status true, each with the schedule of losses, restarts and restores that it answers.

The numbers are those of docs/design.md, "Rules that keep it true".
"""

from __future__ import annotations

import copy

import pytest
from boardlet_bridge.core.board import FINALIZER
from boardlet_bridge.core.event import BrokerUp, ClaimSeen, Message, ModelSeen, ObjectSeen
from boardlet_bridge.core.state import Limits
from boardlet_wire import seal
from peer import BOARD_ID, GREENHOUSE, RING, BoardSide, World, model, ready


class TestRevision:
    """Rule 1."""

    def test_edit_is_confirmed_by_the_board_in_one_write(self) -> None:
        """An edit costs one status write, and Synced holds only once the board has said the revision."""
        world = ready()
        writes = world.writes
        world.edit(target=21.5)
        assert world.writes == writes, "nothing is known yet that is worth a write"
        world.ack()
        assert world.writes == writes + 1
        assert world.condition("Synced") == ("True", "Synced")
        assert world.status["observedGeneration"] == 2
        assert world.status["desired"]["revision"] == 2
        assert world.status["reported"]["target"] == 21.5

    def test_edit_that_is_not_confirmed_shows_pending(self) -> None:
        """An edit that the board does not confirm within the grace is Pending, not Synced."""
        world = ready()
        world.edit(led=False)
        world.wait(2)
        assert world.condition("Synced") == ("False", "Pending")
        assert world.condition("Ready") == ("False", "Pending")

    def test_same_content_keeps_its_revision(self) -> None:
        """An edit that changes nothing for the board keeps the revision; the board confirms the new generation."""
        world = ready()
        world.touch()
        assert world.revision() == 1
        world.ack()
        assert world.status["observedGeneration"] == 2

    def test_new_bridge_keeps_what_was_minted(self) -> None:
        """A bridge that starts anew finds the mailbox right and mints nothing."""
        world = ready()
        sent = world.count("d")
        world.start_bridge()
        world.connect_broker()
        world.answer()
        assert world.count("d") == sent
        assert world.condition("Ready") == ("True", "Synced")

    def test_crash_between_mailing_and_recording(self) -> None:
        """A revision that is in the mailbox but in no status is taken up, not minted twice."""
        world = ready()
        recorded = copy.deepcopy(world.object["status"])
        world.edit(target=30)
        world.object["status"] = recorded
        world.start_bridge()
        world.connect_broker()
        assert world.revision() == 2
        world.join()
        assert world.condition("Ready") == ("True", "Synced")

    def test_revision_continues_from_the_boards_own_word(self) -> None:
        """An object made anew and an empty broker begin at 1; the board says 41, and 42 is minted."""
        world = World()
        world.side.applied = [b"former", 41, b"12345678", 7]
        world.connect_broker()
        assert world.revision() == 1
        world.send(world.side.here())
        world.answer()
        assert world.revision() == 42

    def test_same_revision_with_other_content_is_minted_above(self) -> None:
        """Two bridges that minted one revision for different contents: the board's conflict is answered from above."""
        world = ready()
        world.edit(target=30)
        assert world.revision() == 2
        foreign = [world.board.uid, 2, b"foreign!", 2]
        mine = bytes.fromhex(world.status["desired"]["digest"]) if world.status["desired"]["revision"] == 2 else None
        digest = world.board.desired.identity.digest if world.board.desired else mine
        world.side.applied = foreign
        world.send(world.side.report({-2: foreign, -6: [2, digest, 1]}))
        assert world.revision() == 3

    def test_restored_mailbox_with_higher_revision(self) -> None:
        """A broker that came back with an older bridge's higher revision is overruled by a still higher one."""
        world = ready()
        world.edit(target=30)
        world.ack()
        high = copy.deepcopy(world.retained["d"])
        world.object["metadata"]["uid"] = "99999999-2222-4333-8444-555555555555"
        world.object["status"] = {}
        world.retained["d"] = high
        world.start_bridge()
        world.connect_broker()
        assert world.revision() == 3

    def test_default_of_the_model_changes(self) -> None:
        """A new default mints a revision though the object's generation stands still."""
        world = ready()
        spec = copy.deepcopy(GREENHOUSE)
        spec["properties"][1]["default"] = 25  # type: ignore[index]
        world.send(ModelSeen(model(spec)))
        assert world.revision() == 2
        world.join()
        assert world.status["reported"]["target"] == 25
        assert world.status["observedGeneration"] == 1

    def test_two_edits_of_which_only_the_last_stays(self) -> None:
        """The confirmation of a superseded revision is not taken for the last one's."""
        world = ready()
        world.edit(target=30)
        first = world.last("d").payload
        world.edit(target=31)
        world.side.apply(first)
        world.send(world.side.report({-2: world.side.applied, 1: 30.0}))
        world.wait(2)
        assert world.condition("Synced")[0] == "False"
        world.ack()
        assert world.condition("Synced") == ("True", "Synced")
        assert world.status["reported"]["target"] == 31


class TestRestore:
    """Rule 2."""

    def restored(self) -> World:
        world = ready()
        backup = copy.deepcopy(world.object)
        world.edit(target=30)
        world.ack()
        world.object = backup
        world.start_bridge()
        world.connect_broker()
        world.answer()
        return world

    def test_nothing_is_published_until_a_person_decides(self) -> None:
        """After a restore of the cluster the board keeps what it runs, and the object says what to do."""
        world = self.restored()
        assert world.condition("Restored") == ("True", "OlderThanBoard")
        assert world.condition("Ready") == ("False", "Restored")
        assert world.revision() == 2

    def test_a_board_that_is_away_is_protected_by_its_mailbox(self) -> None:
        """The mailbox alone is evidence enough: the board may already have taken it."""
        world = ready()
        backup = copy.deepcopy(world.object)
        world.send(world.side.gone())
        world.edit(target=30)
        world.object = backup
        world.start_bridge()
        world.connect_broker()
        assert world.revision() == 2
        assert "Restored" in {c["type"] for c in world.status["conditions"]}

    def test_what_was_mailed_may_be_on_its_way(self) -> None:
        """A desired that has been published and not read back yet is evidence of a restore as well."""
        world = ready()
        backup = copy.deepcopy(world.object)
        world.broker_honest = False
        world.edit(target=30)
        sent = world.count("d")
        world.object = backup
        world.send(ObjectSeen(copy.deepcopy(backup)))
        world.wait(30)
        assert world.count("d") == sent
        assert world.condition("Restored") == ("True", "OlderThanBoard")

    def test_accepting_the_object_mints_above(self) -> None:
        """The documented annotation with the board's generation lets the object's side win."""
        world = self.restored()
        world.object["metadata"]["annotations"] = {"boardlet.dev/accept-restore": "2"}
        world.touch()
        world.object["metadata"]["generation"] = 1
        assert world.revision() == 3
        world.ack()
        assert world.status["reported"]["target"] == 20
        assert world.condition("Ready")[0] == "True"
        assert "Restored" not in {c["type"] for c in world.status["conditions"]}

    def test_deleted_and_created_again_while_the_bridge_was_away(self) -> None:
        """Another object of the same name is no restore: its own spec counts, at a revision above the board's."""
        world = ready()
        for target in (30, 31, 32):
            world.edit(target=target)
            world.ack()
        world.object["metadata"] |= {"uid": "99999999-2222-4333-8444-555555555555", "generation": 1}
        world.object["spec"]["properties"] = {"led": False}
        world.object["status"] = {}
        world.start_bridge()
        world.connect_broker()
        assert world.revision() == 5
        world.answer()
        assert world.condition("Synced")[0] != "True", "the board has not said yet that it runs this object's"
        world.ack()
        assert world.condition("Ready") == ("True", "Synced")
        assert world.status["observedGeneration"] == 1
        assert world.status["reported"]["led"] is False
        assert "Restored" not in {c["type"] for c in world.status["conditions"]}

    def test_created_again_after_a_restore_to_before_it_existed(self) -> None:
        """A board whose object is unknown to the restored cluster keeps what it runs until somebody registers it."""
        world = ready()
        world.edit(target=30)
        world.ack()
        mailbox = world.retained["d"]
        world.object["metadata"] |= {"uid": "99999999-2222-4333-8444-555555555555", "generation": 1}
        world.object["spec"]["properties"] = {}
        world.object["status"] = {}
        world.side.epoch, world.side.sequence = b"offline!", 0
        world.start_bridge()
        world.connect_broker()
        assert world.side.open("d", mailbox)[1] == 2
        assert world.revision() == 3, "above the mailbox alone: the board is away"
        world.join()
        assert world.condition("Ready") == ("True", "Synced")
        assert world.status["reported"]["target"] == 20

    def test_a_deleted_board_comes_back_with_a_restore(self) -> None:
        """The same object, resurrected older than its board, sends nothing that the board would take, and says so."""
        world = ready()
        backup = copy.deepcopy(world.object)
        world.edit(target=30)
        world.ack()
        world.object["metadata"]["deletionTimestamp"] = "now"
        world.touch()
        assert world.retained == {"d": b"", "s": b""}
        world.object = backup
        world.start_bridge()
        world.connect_broker()
        assert world.revision() <= 1, "which a board that runs revision 2 drops"
        world.send(world.side.here())
        world.answer()
        assert world.condition("Restored") == ("True", "OlderThanBoard")
        assert world.condition("Ready") == ("False", "Restored")
        sent = world.count("d")
        world.wait(60)
        assert world.count("d") == sent
        world.object["metadata"]["annotations"] = {"boardlet.dev/accept-restore": "2"}
        world.touch()
        world.ack()
        assert world.revision() == 3
        assert world.condition("Ready") == ("True", "Synced")
        assert world.status["reported"]["target"] == 20

    def test_a_stale_annotation_accepts_nothing(self) -> None:
        """An acceptance names the generation, so that it does not stand for the next restore."""
        world = ready()
        world.object["metadata"]["annotations"] = {"boardlet.dev/accept-restore": "1"}
        backup = copy.deepcopy(world.object)
        world.edit(target=30)
        world.ack()
        world.object = backup
        world.start_bridge()
        world.connect_broker()
        assert world.revision() == 2


class TestMailbox:
    """Rule 3."""

    def test_acknowledged_and_dropped(self) -> None:
        """A publish that the broker acknowledged and dropped is published again."""
        world = ready()
        world.broker_honest = False
        world.edit(target=30)
        sent = world.count("d")
        world.broker_honest = True
        world.wait(6)
        assert world.count("d") == sent + 1
        assert world.revision() == 2

    def test_old_owner_overwrites(self) -> None:
        """A late publish of an earlier owner does not stay in the mailbox."""
        world = ready()
        old = world.retained["d"]
        world.edit(target=30)
        world.ack()
        world.wait(10)
        world.retained["d"] = old
        world.send(Message("d", old))
        assert world.revision() == 2

    def test_broker_loses_its_store(self) -> None:
        """A broker without its retained messages is filled again."""
        world = ready()
        world.lose_broker()
        world.retained.clear()
        world.connect_broker()
        assert world.revision() == 1

    def test_foreign_bytes_in_the_mailbox(self) -> None:
        """A mailbox that nobody of this site sealed is counted and replaced."""
        world = ready()
        world.wait(10)
        world.retained["d"] = b"garbage that nobody sealed"
        world.send(Message("d", world.retained["d"]))
        assert "wrong_seal" in world.refused
        assert world.revision() == 1

    def test_deletion_clears_what_is_retained(self) -> None:
        """A deleted Board keeps its finalizer until mailbox and session are read back as empty."""
        world = ready()
        world.object["metadata"]["deletionTimestamp"] = "now"
        world.touch()
        assert world.retained == {"d": b"", "s": b""}
        assert world.object["metadata"]["finalizers"] == []

    def test_deletion_waits_for_the_broker(self) -> None:
        """A Board that is deleted while the broker is away is cleared when it is back."""
        world = ready()
        world.lose_broker()
        world.object["metadata"]["deletionTimestamp"] = "now"
        world.touch()
        assert world.object["metadata"]["finalizers"] == [FINALIZER]
        world.connect_broker()
        assert world.retained == {"d": b"", "s": b""}
        assert world.object["metadata"]["finalizers"] == []


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
        world.join()

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
        assert world.status == before
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


class TestSeals:
    """Rule 8."""

    @pytest.mark.parametrize("letter", ["s", "r", "w", "d"])
    def test_forged(self, letter: str) -> None:
        """Bytes under a wrong seal move nothing, are counted, and are told on the object."""
        world = ready()
        reported = world.status["reported"]
        forger = BoardSide(key=b"f" * 32, epoch=world.side.epoch, sequence=world.side.sequence)
        forged = {"s": forger.gone(), "r": forger.report({0: False}), "w": forger.want(b"12345678", 0, 9)}
        world.send(forged.get(letter, Message("d", b"x" * 60)))
        assert "wrong_seal" in world.refused
        assert world.condition("Connected") == ("True", "Answered")
        assert world.status["reported"] == reported
        assert world.condition("MessagesRefused") == ("True", "WrongSeal")
        world.send(world.side.report({-2: world.side.applied}))
        world.wait(301)
        assert "MessagesRefused" not in {c["type"] for c in world.status["conditions"]}

    def test_report_of_another_epoch(self) -> None:
        """A report sealed in an earlier epoch is not believed in this one."""
        world = ready()
        old = BoardSide(epoch=world.side.epoch, sequence=world.side.sequence)
        world.join()
        world.send(old.report({0: False}))
        assert world.condition("Synced") == ("True", "Synced")

    def test_keys_differ_by_direction_and_board(self) -> None:
        """A board's own bytes, sent back to it or to another board, verify nowhere."""
        a, b = RING.board(BOARD_ID), RING.board("b3x8w5nd")
        sealed = a.close("d", b"body")
        assert a.open_own("d", sealed) == b"body"
        assert b.open_own("d", sealed) is None
        assert a.open("d", sealed, b"") is None
        assert RING.board(BOARD_ID, 2).open_own("d", sealed) is None
        assert a.down.hex() not in repr(a)
        assert RING.root.hex() not in repr(RING)


class TestErrors:
    """Rule 10."""

    def test_value_out_of_range_is_refused_alone(self) -> None:
        """One property's bad value is told for that property; the others apply."""
        world = ready()
        world.edit(target=99, led=False)
        world.ack()
        assert world.condition("Synced") == ("False", "PropertyErrors")
        assert world.status["reported"]["led"] is False
        [error] = world.status["errors"]
        assert (error["property"], error["source"], error["reason"]) == ("target", "Bridge", "OutOfRange")
        assert "35" in error["message"]

    @pytest.mark.parametrize(
        ("name", "value", "reason"),
        [
            ("led", "on", "WrongType"),
            ("led", 1, "WrongType"),
            ("target", True, "WrongType"),
            ("target", 4.9, "OutOfRange"),
            ("target", 1e39, "OutOfRange"),
            ("target", None, "WrongType"),
            ("target", {"a": 1}, "WrongType"),
            ("label", "123456789", "TooLong"),
            ("temp", 3, "ReadOnly"),
            ("nope", 1, "UnknownProperty"),
        ],
    )
    def test_words(self, name: str, value: object, reason: str) -> None:
        """Every kind of wrong value has its own reason."""
        world = ready()
        world.edit(**{name: value})
        world.ack()
        assert [(e["property"], e["reason"]) for e in world.status["errors"]] == [(name, reason)]

    def test_what_the_board_refuses(self) -> None:
        """A property's error from the board makes Synced False, and its clearing makes it True again."""
        world = ready()
        world.send(world.side.report({-3: {0: 6}}))
        assert world.condition("Synced") == ("False", "PropertyErrors")
        assert world.status["errors"][0]["reason"] == "DriverFailed"
        world.send(world.side.report({-3: {0: 0}}))
        assert world.condition("Ready") == ("True", "Synced")
        assert "errors" not in world.status

    def test_broken_reports(self) -> None:
        """Wrong types and unknown indexes are errors of those properties alone."""
        world = ready()
        world.send(world.side.report({2: "warm", 77: 1, 1: 20.0}))
        assert {(e["property"], e["reason"]) for e in world.status["errors"]} == {
            ("temp", "WrongType"),
            ("#77", "UnknownProperty"),
        }

    @pytest.mark.parametrize(
        "body", [{-1: "x"}, {-2: "x"}, {-2: [1, 2, 3, 4]}, {-3: 5}, {-3: {0: "x"}}, {-6: [1]}, {-8: -1}]
    )
    def test_malformed_reports(self, body: dict[int, object]) -> None:
        """A sealed report that cannot be understood changes nothing, is told, and is healed by a full one."""
        world = ready()
        world.send(world.side.report(body))
        assert "malformed" in world.refused
        assert world.condition("MessagesRefused") == ("True", "Malformed")
        world.send(world.side.report({}))
        world.answer()
        assert world.condition("Synced") == ("True", "Synced")


class TestOwners:
    """Two objects that claim one id."""

    def test_the_later_one_says_so(self) -> None:
        """The object that is not served says whose the board is, and sends nothing."""
        world = World()
        world.send(ClaimSeen("default/first"))
        world.connect_broker()
        assert world.published == []
        for type_ in ("Ready", "Connected", "Synced", "Healthy"):
            assert world.condition(type_) == ("Unknown", "DuplicateBoardID")
        world.send(ClaimSeen(""))
        world.send(BrokerUp())
        world.join()
        assert world.condition("Ready") == ("True", "Synced")

    def test_an_older_claim_that_appears_late(self) -> None:
        """A Board that was served and is not any more says nothing of the board, which is the other's now."""
        world = ready()
        world.send(ClaimSeen("default/first"))
        assert world.condition("Connected") == ("Unknown", "DuplicateBoardID")
        assert world.condition("Synced") == ("Unknown", "DuplicateBoardID")
        assert world.condition("Healthy")[0] == "Unknown"

    def test_finalizer_comes_before_the_first_desired(self) -> None:
        """Nothing is retained for an object that could vanish without being cleaned up after."""
        world = World()
        world.object["metadata"]["finalizers"] = []
        world.start_bridge()
        world.connect_broker()
        assert world.object["metadata"]["finalizers"] == [FINALIZER]
        assert world.count("d") == 1
