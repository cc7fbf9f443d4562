"""A site whose objects are files, end to end: real bridge, mosquitto and virtual board, and no control plane."""

from __future__ import annotations

from folderworld import LED, LIGHT, FolderSite, until


def test_a_site_of_files(site: FolderSite) -> None:
    """An edited file reaches the pin and comes back as Synced; broken YAML and kill -9 in between lose nothing."""
    site.bridge.start()
    site.board.start()
    first = site.synced(1)
    assert site.board.pin(LED) == 0
    site.board.set_adc(LIGHT, 840)
    until(lambda: site.object()["status"]["reported"].get("light") == 420)
    labels = 'board="g1",model="greenhouse",namespace="default",property="light",unit="lx"'
    assert site.bridge.metric(f"boardlet_property_value{{{labels}}}") == 420

    site.edit("led: false", "led: true")
    assert site.synced(2)["metadata"]["uid"] == first["metadata"]["uid"]
    assert site.board.pin(LED) == 1

    (site.objects / "broken.yaml").write_text("kind: Board\n  metadata: [\n")
    until(lambda: [p["file"] for p in site.problems] == ["broken.yaml"])
    site.edit("led: true", "led: false")
    site.synced(3)
    assert site.board.pin(LED) == 0

    site.bridge.kill()
    site.edit("led: false", "led: true")
    site.bridge.start()
    assert site.synced(4)["metadata"]["uid"] == first["metadata"]["uid"]
    assert site.board.pin(LED) == 1
    assert site.problems, "what is wrong is still said after a restart"

    watching = site.watch()
    assert "the board runs it" in site.boardlet("set", "board/g1", "led=false", "--wait", "20")
    assert site.board.pin(LED) == 0
    assert "led: false}  # off at night" in site.file.read_text()
    site.boardlet("set", "board/g1", "led=true", "--wait", "20")
    lines = watching()
    assert lines[0].split()[:3] == ["NAME", "READY", "REASON"]
    assert {line.split()[2] for line in lines[1:]} >= {"Synced"}

    after = site.synced(6)
    good = site.file.read_text()
    site.file.write_text(good.replace("spec:", "spec: ["))
    until(lambda: len(site.problems) == 2)
    site.bridge.kill()
    site.bridge.start()
    assert site.synced(6)["status"]["desired"] == after["status"]["desired"], "the last good version goes on"
    (site.objects / "broken.yaml").unlink()
    site.file.write_text(good)
    until(lambda: not site.problems)

    site.file.unlink()
    until(lambda: not site.object())
    assert site.board.pin(LED) == 1, "nobody told the board anything"
    site.file.write_text(good)
    assert site.synced(1)["metadata"]["uid"] != first["metadata"]["uid"], "it is another object"
