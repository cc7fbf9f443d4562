"""The bridge's settings: whence they come, and what is said of a wrong one at three in the morning."""

from __future__ import annotations

from pathlib import Path

import pytest
from boardlet_bridge.runtime.settings import Settings, SettingsInvalid, load, unknown_variables


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a test sets counts."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"BOARDLET_{name.upper()}", raising=False)


def written(folder: Path, text: str) -> str:
    path = folder / "bridge.yaml"
    path.write_text(text)
    return str(path)


def test_flag_wins_over_variable_over_file_over_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that --config names is read, and each source wins over the next."""
    config = written(tmp_path, "root_key_file: from-file\nbroker_host: from-file\nbroker_user: from-file\n")
    monkeypatch.setenv("BOARDLET_BROKER_HOST", "from-variable")
    monkeypatch.setenv("BOARDLET_BROKER_USER", "from-variable")
    chosen = load(["--config", config, "--broker-user", "from-flag"])
    assert chosen.root_key_file == Path("from-file")
    assert chosen.broker_host == "from-variable"
    assert chosen.broker_user == "from-flag"
    assert chosen.broker_port == 1883


def test_a_variable_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BOARDLET_CONFIG is as good as --config."""
    monkeypatch.setenv("BOARDLET_CONFIG", written(tmp_path, "root_key_file: from-file\n"))
    assert load([]).root_key_file == Path("from-file")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("brokr_host: x", "there is no setting 'brokr_host', did you mean broker_host?"),
        ("broker_port: abc", "broker_port.*valid integer.*is 'abc'"),
        ("broker_port: 0", "broker_port.*greater than or equal to 1.*is 0"),
        ("log_level: loud", "log_level.*'debug', 'info'.*is 'loud'"),
        ("broker_host: [", "cannot read the settings in .*bridge.yaml"),
        ("- broker_host", "must be lines of NAME: VALUE"),
        ("broker_user: x", "root-key-file .*BOARDLET_ROOT_KEY_FILE.*Field required"),
    ],
)
def test_a_wrong_line_is_named_with_its_cause(tmp_path: Path, text: str, said: str) -> None:
    """Each mistake in the file names the setting and what is wrong with it."""
    lines = "" if said.startswith("root-key-file") or text.startswith("-") else "root_key_file: x\n"
    with pytest.raises(SettingsInvalid, match=said):
        load(["--config", written(tmp_path, lines + text + "\n")])


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A missing file is not an empty one."""
    with pytest.raises(SettingsInvalid, match=r"nosuch.yaml.*No such file"):
        load(["--config", str(tmp_path / "nosuch.yaml"), "--root-key-file", "x"])


def test_namespaces_are_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable, as in a Deployment, need not be JSON."""
    monkeypatch.setenv("BOARDLET_NAMESPACES", "north, south")
    assert load(["--root-key-file", "x"]).namespaces == ["north", "south"]
    assert load(["--root-key-file", "x", "--namespaces", "east"]).namespaces == ["east"]


def test_levels_by_component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable, a flag and a file say them; a component or level that there is not is named, with those there are."""
    wanted = {"engine": "debug", "status": "error"}
    assert load(["--root-key-file", "x", "--log-levels", "engine=debug,status=error"]).log_levels == wanted
    assert load(["--config", written(tmp_path, "root_key_file: x\nlog_levels: {engine: debug}\n")]).log_levels == {
        "engine": "debug"
    }
    monkeypatch.setenv("BOARDLET_LOG_LEVELS", "engine=debug, status=error")
    assert load(["--root-key-file", "x"]).log_levels == wanted
    monkeypatch.setenv("BOARDLET_LOG_LEVELS", "engin=debug")
    with pytest.raises(SettingsInvalid, match=r"log_levels.*must name components of bridge, .*, not engin"):
        load(["--root-key-file", "x"])
    monkeypatch.setenv("BOARDLET_LOG_LEVELS", "engine=loud")
    with pytest.raises(SettingsInvalid, match=r"log_levels.*'debug', 'info'.*is 'loud'"):
        load(["--root-key-file", "x"])


def test_a_variable_that_kubernetes_sets_for_a_service_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service boardlet-broker makes Kubernetes set BOARDLET_BROKER_PORT to something that is no port."""
    monkeypatch.setenv("BOARDLET_BROKER_PORT", "tcp://10.0.0.1:1883")
    with pytest.raises(SettingsInvalid, match="enableServiceLinks: false"):
        load(["--root-key-file", "x"])


def test_a_misspelt_variable_is_said() -> None:
    """A variable that nothing reads is told; what Kubernetes adds for Services is not meant."""
    said = unknown_variables(
        {"BOARDLET_BROKR_HOST": "x", "BOARDLET_BRIDGE_SERVICE_HOST": "x", "BOARDLET_HTTP_PORT": "1", "PATH": "x"}
    )
    assert said == ["there is no setting BOARDLET_BROKR_HOST, did you mean broker_host?"]
