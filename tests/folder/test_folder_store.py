"""The folder as a store: what an API server does for a cluster, over a real folder and the kernel's real notices."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from boardlet_bridge.core.notice import Notice
from boardlet_bridge.core.store import StoreInvalid
from boardlet_bridge.folder.store import FolderSettings, FolderStore
from boardlet_cli.main import app
from folderworld import BOARD, SAMPLES, loaded
from typer.testing import CliRunner
from waiting import until

ABSENT_S = 0.1
KEY = ("boards", "default", "g1")


class Told:
    """What a sink has been told; `statuses` are what it wants written."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Mapping[str, Any]] = {}
        self.log: list[tuple[str, str, int]] = []
        self.statuses: dict[str, dict[str, Any]] = {}
        self.before: Callable[[], Any] = lambda: None

    def on_board(self, change: str, obj: Mapping[str, Any]) -> None:
        self._on("Board", change, obj)

    def on_model(self, change: str, obj: Mapping[str, Any]) -> None:
        self._on("BoardModel", change, obj)

    def _on(self, kind: str, change: str, obj: Mapping[str, Any]) -> None:
        self.before()
        name = obj["metadata"]["name"]
        self.log.append((change, name, obj["metadata"]["generation"]))
        self.objects[kind, name] = obj
        if change == "DELETED":
            del self.objects[kind, name]

    def on_rewound(self) -> None:
        raise AssertionError("a folder does not go back")

    def board_versions(self) -> dict[tuple[str, str], str]:
        return {}

    model_versions = board_versions

    def snapshot(self, key: tuple[str, str, str]) -> dict[str, Any] | None:
        obj = self.objects.get(("Board", key[2]))
        status = self.statuses.get(key[2])
        if obj is None or status is None or obj.get("status") == status:
            return None
        meta = {k: obj["metadata"][k] for k in ("name", "namespace", "uid", "resourceVersion")}
        return {"metadata": meta, "status": status}

    def written(self, key: tuple[str, str, str], obj: Mapping[str, Any]) -> None:
        self.objects["Board", key[2]] = obj

    @property
    def board(self) -> Mapping[str, Any]:
        return self.objects["Board", "g1"]

    def generation(self, name: str = "g1") -> int:
        obj = self.objects.get(("Board", name))
        return obj["metadata"]["generation"] if obj else 0


@asynccontextmanager
async def served(root: Path, **settings: Any) -> AsyncIterator[tuple[FolderStore, Told]]:
    """A store that serves a folder, and what it tells."""
    told = Told()
    chosen = {"status_interval_s": 0, "status_writes_per_s": 1000, "status_burst": 1000, "resync_s": 600}
    chosen |= {"store_absent_s": ABSENT_S, "namespaces": (), **settings}
    store = FolderStore(FolderSettings(store_folder=root, **chosen), told, lambda outcome: None)
    async with AsyncExitStack() as stack:
        await store.open(stack)
        await store.first(lambda why: None)
        tasks = [asyncio.create_task(work) for work in store.serve(stack).values()]
        try:
            yield store, told
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a model and a Board."""
    folder = tmp_path / "objects"
    (folder / "north").mkdir(parents=True)
    (folder / "greenhouse.yaml").write_text((SAMPLES / "greenhouse.yaml").read_text())
    (folder / "north/g1.yaml").write_text(BOARD)
    return folder


def record(root: Path, name: str = "g1", kind: str = "boards") -> dict[str, Any]:
    """An object's status file, nothing while there is none."""
    return loaded(root / f".status/default/{kind}/{name}.status")


def problems(root: Path) -> list[dict[str, Any]]:
    return loaded(root / ".status/problems").get("problems", [])


def board(name: str, board_id: str = "k7m2q9xb", **spec: Any) -> str:
    """Another Board as YAML."""
    body = {"boardID": board_id, "modelRef": {"name": "greenhouse"}, **spec}
    meta = {"name": name}
    return yaml.safe_dump({"apiVersion": "boardlet.dev/v1alpha1", "kind": "Board", "metadata": meta, "spec": body})


def test_objects_are_as_an_api_server_gives_them(root: Path) -> None:
    """Models come first; defaults are the schema's; uid, generation, version, finalizer and status are there."""

    async def run() -> None:
        async with served(root) as (_, told):
            assert told.log == [("ADDED", "greenhouse", 1), ("ADDED", "g1", 1)]
            meta = told.board["metadata"]
            assert len(meta["uid"]) == 36
            assert meta["resourceVersion"].isdigit()
            assert meta["finalizers"] == ["boardlet.dev/mailbox"]
            assert told.board["spec"]["settings"] == {"heartbeatSeconds": 60, "logLevel": "Warning"}
            assert told.board["status"]["conditions"][0]["reason"] == "Pending"

    asyncio.run(run())


def test_an_edit_raises_the_generation_and_is_on_disk_first(root: Path) -> None:
    """A changed spec is a new generation, in the record before anybody is told; comments and labels are none."""

    async def run() -> None:
        file = root / "north/g1.yaml"
        async with served(root) as (_, told):
            at_telling = []
            told.before = lambda: at_telling.append(record(root)["metadata"]["generation"])
            file.write_text(BOARD.replace("led: false", "led: true"))
            await until(lambda: told.generation() == 2)
            assert at_telling == [2]
            assert told.board["spec"]["properties"] == {"led": True}
            file.write_text(file.read_text().replace("name: g1", "name: g1\n  labels: {site: north}"))
            await until(lambda: told.board["metadata"].get("labels") == {"site": "north"})
            file.write_text("# Bob knows more\n" + file.read_text())
            os.utime(file)
            file.with_name("last.yaml").write_text(board("last"))
            await until(lambda: told.generation("last") == 1)
            assert told.generation() == 2

    asyncio.run(run())


def test_an_edit_arrives_without_any_interval(root: Path) -> None:
    """Of edits that follow each other some are told in less than 25 ms: whoever polled would take his interval."""

    async def run() -> None:
        file = root / "north/g1.yaml"
        async with served(root) as (_, told):
            took = []
            for n in range(30):
                began = time.monotonic()
                file.write_text(BOARD.replace("led: false", f"led: {'true' if n % 2 == 0 else 'false'}"))
                await until(lambda n=n: told.generation() == n + 2)
                took.append(time.monotonic() - began)
            assert min(took) < 0.025, took

    asyncio.run(run())


def test_a_restart_remembers(root: Path) -> None:
    """Uid, generation and status survive; an edit made meanwhile is one generation more; nothing else changes."""

    async def run() -> None:
        async with served(root) as (store, told):
            told.statuses["g1"] = {"conditions": [], "reported": {"led": True}}
            store.mark(KEY, True)
            await until(lambda: record(root)["status"].get("reported"))
            uid = told.board["metadata"]["uid"]
        before = record(root)
        async with served(root) as (_, told):
            assert told.board["metadata"] == before["metadata"]
            assert told.board["status"] == {"conditions": [], "reported": {"led": True}}
        (root / "north/g1.yaml").write_text(BOARD.replace("led: false", "led: true"))
        async with served(root) as (_, told):
            assert (told.board["metadata"]["uid"], told.generation()) == (uid, 2)
            assert told.board["status"]["reported"] == {"led": True}

    asyncio.run(run())


def test_a_deletion_waits_for_the_mailbox(root: Path) -> None:
    """A Board whose document is gone is deleting, also over a restart, until the finalizer is off, and then gone."""

    async def run() -> None:
        file = root / "north/g1.yaml"
        async with served(root) as (_, told):
            uid = told.board["metadata"]["uid"]
            file.unlink()
            await until(lambda: told.board["metadata"].get("deletionTimestamp"))
        async with served(root) as (store, told):
            assert told.board["metadata"]["deletionTimestamp"]
            file.write_text(BOARD)
            store.set_finalizer(told.board, False)
            await until(lambda: ("DELETED", "g1", 1) in told.log and told.generation() == 1)
            assert told.board["metadata"]["uid"] != uid, "written anew it is another object"
            (root / "greenhouse.yaml").unlink()
            await until(lambda: ("BoardModel", "greenhouse") not in told.objects)
            assert not record(root, "greenhouse", "boardmodels")

    asyncio.run(run())


def test_a_file_replaced_in_two_steps_deletes_nothing(root: Path) -> None:
    """What is away for less than store_absent_s stays the same object, also under another file name."""

    async def run() -> None:
        file = root / "north/g1.yaml"
        async with served(root, store_absent_s=30) as (_, told):
            uid = told.board["metadata"]["uid"]
            file.unlink()
            (root / "seen.yaml").write_text(board("seen"))
            await until(lambda: told.generation("seen") == 1)
            (root / "south").mkdir()
            (root / "south/new.yaml").write_text(BOARD.replace("led: false", "led: true"))
            await until(lambda: told.generation() == 2)
            assert told.board["metadata"]["uid"] == uid
            assert record(root)["file"] == "south/new.yaml"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (BOARD.replace("spec:", "spec: ["), "is no YAML: "),
        (BOARD.replace("kind: Board", "kind: Bord"), "its kind is none of BoardModel, Board"),
        (BOARD.replace("v1alpha1", "v9"), "apiVersion: must be boardlet.dev/v1alpha1"),
        (BOARD.replace("modelRef", "modelref"), "spec.modelref: there is no such field, did you mean modelRef?"),
        (BOARD.replace("k7m2q9xa", "K7m2q9xa"), "spec.boardID: must match "),
        (BOARD.replace("  boardID: k7m2q9xa\n", ""), "spec: 'boardID' is a required property"),
        (BOARD.replace("k7m2q9xa", "k7m2q9xz"), "spec.boardID: must not be changed"),
        (BOARD + "  settings: {heartbeatSeconds: 0}\n", "spec.settings.heartbeatSeconds: must be at least 1, is 0"),
        (BOARD + "  settings: {sleepSeconds: 9, maxOfflineSeconds: 1}\n", "maxOfflineSeconds: must be at least sleep"),
        (BOARD + "  properties: {led: true}\n", "is no YAML: the key 'properties' stands here twice"),
        (BOARD.replace("name: g1", "name: G1"), "metadata.name: must be lower-case letters"),
        (BOARD.replace("name: g1", "name: g1\n  annotations: {a: 5}"), "metadata.annotations.a: must be a string"),
        (
            BOARD.replace("name: g1", 'name: g1\n  deletionTimestamp: "2026-01-02T03:04:05Z"'),
            "metadata.deletionTimestamp: it was being deleted where it comes from",
        ),
        (BOARD.replace("{led: false}", "{2026-01-01: x, 5: y}"), "the key 5 is a number, and must be a string"),
        ("- a list\n", "this document is a list, and no object"),
        ("{apiVersion: boardlet.dev/v1alpha1, kind: Board, metadata: {name: g1}}", "'spec' is a required property"),
    ],
)
def test_what_is_wrong_is_said_and_the_last_good_version_goes_on(root: Path, text: str, cause: str) -> None:
    """Each mistake is in the file of problems with place, cause and next step; nothing else changes or is lost."""

    async def run() -> None:
        file = root / "north/g1.yaml"
        async with served(root) as (_, told):
            before = told.board
            file.write_text(text)
            await until(lambda: problems(root))
            (said,) = problems(root)
            assert cause in said["cause"]
            assert said["file"] == "north/g1.yaml"
            assert said["next"]
            (root / "other.yaml").write_text(board("other"))
            await until(lambda: told.generation("other") == 1)
            await asyncio.sleep(2 * ABSENT_S)  # longer than an absence may last
            assert told.board is before
        async with served(root) as (_, told):
            assert told.board == before, "also after a restart"
            file.write_text(BOARD.replace("led: false", "led: true"))
            await until(lambda: told.generation() == 2 and not problems(root))

    asyncio.run(run())


def test_of_two_documents_of_one_name_the_one_that_is_served_counts(root: Path) -> None:
    """A duplicate is a problem of the later one, whatever its file is called; removing the first hands over."""

    async def run() -> None:
        async with served(root) as (_, told):
            (root / "a.yaml").write_text(BOARD.replace("led: false", "led: true"))
            await until(lambda: problems(root))
            assert [(p["file"], p["object"]) for p in problems(root)] == [("a.yaml", "Board default/g1")]
            assert "north/g1.yaml:2" in problems(root)[0]["cause"]
            uid, generation = told.board["metadata"]["uid"], told.generation()
            assert generation == 1
            (root / "north/g1.yaml").unlink()
            await until(lambda: told.generation() == 2)
            assert told.board["metadata"]["uid"] == uid

    asyncio.run(run())


def test_a_model_must_keep_what_boards_in_the_field_know(root: Path) -> None:
    """The kinds' rules about changes hold: an index keeps its name and type, a removed one is reserved."""

    async def run() -> None:
        file = root / "greenhouse.yaml"
        good = file.read_text()
        async with served(root) as (_, told):
            for bad, cause in (
                (good.replace("name: led", "name: lamp"), "must keep the name and type of every index"),
                (good.partition("    - name: door")[0], "must list the index of every removed property"),
                (good.replace("type: GpioOut", "type: Adc"), "property 'led'"),
            ):
                file.write_text(bad)
                await until(lambda cause=cause: problems(root) and cause in problems(root)[0]["cause"])
            assert told.objects["BoardModel", "greenhouse"]["metadata"]["generation"] == 1
            file.write_text(good.partition("    - name: door")[0] + "  reservedIndexes: [2]\n")
            await until(lambda: told.objects["BoardModel", "greenhouse"]["metadata"]["generation"] == 2)

    asyncio.run(run())


def test_an_object_from_a_cluster_stays_what_it_is(root: Path) -> None:
    """`kubectl get -o yaml`, a List too, brings uid, generation and status along; a copy of it is another object."""
    uid = "0b5f9f5e-58f3-4d5a-8c5f-0d3e3f1f6a01"
    obj = yaml.safe_load(BOARD)
    obj["metadata"] |= {
        "uid": uid, "generation": 7, "resourceVersion": "812", "creationTimestamp": "2026-01-02T03:04:05Z",
    }  # fmt: skip
    obj["status"] = {"conditions": [], "desired": {"revision": 9, "digest": "5d0c5d0c5d0c5d0c", "generation": 7}}
    copied = {**obj, "metadata": {**obj["metadata"], "name": "g2"}}
    text = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [obj, copied]})

    async def run() -> None:
        (root / "north/g1.yaml").write_text(text)
        async with served(root) as (_, told):
            assert (told.board["metadata"]["uid"], told.generation()) == (uid, 7)
            assert told.board["metadata"]["creationTimestamp"] == "2026-01-02T03:04:05Z"
            assert told.board["status"]["desired"]["revision"] == 9
            assert told.objects["Board", "g2"]["metadata"]["uid"] != uid
            (root / "north/g1.yaml").write_text(text.replace("led: false", "led: true"))
            await until(lambda: (told.generation(), told.generation("g2")) == (8, 2))

    asyncio.run(run())


def test_a_disk_that_is_not_mounted_deletes_nothing(root: Path, tmp_path: Path) -> None:
    """A folder that is suddenly empty, statuses and all, is said to be away; when it is back all is as before."""

    async def run() -> None:
        async with served(root) as (store, told):
            before = told.board
            os.rename(root, tmp_path / "disk")
            os.mkdir(root)
            await until(lambda: store.parts()["folder"])
            assert "is it mounted?" in store.parts()["folder"]
            await asyncio.sleep(2 * ABSENT_S)
            assert os.listdir(root) == []
            os.rmdir(root)
            os.rename(tmp_path / "disk", root)
            await until(lambda: not store.parts()["folder"])
            assert told.board is before

    asyncio.run(run())


def test_statuses_that_were_cleaned_away_come_back(root: Path) -> None:
    """`git clean` takes the status folder; the bridge that runs writes the same uid and generation anew."""

    async def run() -> None:
        async with served(root) as (_, told):
            shutil.rmtree(root / ".status")
            await until(lambda: record(root) and record(root, "greenhouse", "boardmodels"))
            assert record(root)["metadata"] == told.board["metadata"]

    asyncio.run(run())


def test_a_status_file_that_is_broken(root: Path) -> None:
    """Its object gets a new uid, all others stay what they are, and the file is whole again."""

    async def run() -> None:
        async with served(root) as (_, told):
            uids = {name: obj["metadata"]["uid"] for name, obj in told.objects.items()}
        (root / ".status/default/boards/g1.status").write_bytes(b"\x00\xff")
        async with served(root) as (_, told):
            again = {name: obj["metadata"]["uid"] for name, obj in told.objects.items()}
            assert {name[1] for name in uids if uids[name] == again[name]} == {"greenhouse"}
            assert record(root)["metadata"]["uid"] == again["Board", "g1"]

    asyncio.run(run())


def test_one_bridge_a_folder(root: Path) -> None:
    """A second bridge is told so at once, and the first one goes on; a folder that is not there is said to be none."""

    async def run() -> None:
        async with served(root):
            with pytest.raises(StoreInvalid, match="another bridge serves"):
                async with served(root):
                    pass
        with pytest.raises(StoreInvalid, match="there is no such folder: create it"):
            async with served(root / "nothing"):
                pass

    asyncio.run(run())


def test_what_happened_is_kept_with_the_next_status(root: Path) -> None:
    """Notices stand in the record, the last ten, and cost no write of their own."""

    async def run() -> None:
        async with served(root) as (store, told):
            for n in range(12):
                store.tell(told.board, Notice("Connected", f"n{n}"))
            assert "events" not in record(root)
            told.statuses["g1"] = {"conditions": []}
            store.mark(KEY, True)
            await until(lambda: record(root).get("events"))
            assert [e["message"] for e in record(root)["events"]] == [f"n{n}" for n in range(2, 12)]

    asyncio.run(run())


def test_a_value_set_behind_a_link_arrives(root: Path, tmp_path: Path) -> None:
    """`boardlet set` edits the file that a link leads to, the link stays one, and the bridge hears of it at once."""
    target = tmp_path / "elsewhere/g1.yaml"
    target.parent.mkdir()
    (root / "north/g1.yaml").rename(target)
    (root / "north/g1.yaml").symlink_to(target)
    words = ["set", "board/g1", "led=true", "--store", f"dir:{root}"]

    async def run() -> None:
        async with served(root) as (_, told):
            assert CliRunner().invoke(app, words).exit_code == 0
            await until(lambda: told.generation() == 2)

    asyncio.run(run())
    assert (root / "north/g1.yaml").is_symlink()
    assert "led: true}  # off at night" in target.read_text()


def test_namespaces_and_hidden_files_are_left_alone(root: Path) -> None:
    """Other namespaces than those to be served, editors' and Git's files are neither served nor complained about."""

    async def run() -> None:
        (root / ".git").mkdir()
        (root / ".git/x.yaml").write_text("nonsense: [")
        (root / "north/.g1.yaml.swp").write_text("nonsense: [")
        (root / "notes.txt").write_text("nonsense: [")
        (root / "south.yaml").write_text(board("g2").replace("name: g2", "name: g2\n  namespace: south"))
        async with served(root, namespaces=["default"]) as (_, told):
            assert set(told.objects) == {("BoardModel", "greenhouse"), ("Board", "g1")}
            assert problems(root) == []

    asyncio.run(run())


def test_kopf_is_not_there() -> None:
    """A bridge that serves a folder does not even load kopf."""
    code = (
        "import sys, pathlib, tempfile\n"
        "from boardlet_bridge.runtime import settings, wiring\n"
        "root = pathlib.Path(tempfile.mkdtemp()); (root / 'key').write_text('00' * 32)\n"
        "wiring.Bridge(settings.load(['--root-key-file', str(root / 'key'), '--store', f'dir:{root}']))\n"
        "print(sorted(m for m in sys.modules if m.startswith('kopf')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
