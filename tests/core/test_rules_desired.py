"""Schedules that the rules 1, 2 and 3 of docs/design.md answer: what a board is asked."""

from __future__ import annotations

import copy

from boardlet_bridge.core.board import FINALIZER
from boardlet_bridge.core.event import Message, ModelSeen, ObjectSeen
from peer import GREENHOUSE, World, model, ready


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
