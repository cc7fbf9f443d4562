"""Every setting of the bridge, in one place: its docstring is the reference manual.

A flag wins over an environment variable (`BOARDLET_` and the name in capitals), that over a line of the YAML file that
`--config` names, that over the default. Secrets come from files only, so that no process list shows them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    CliApp,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from boardlet_bridge.runtime.logs import COMPONENTS

Level = Literal["debug", "info", "warning", "error"]
PREFIX: Final = "BOARDLET_"
CLUSTER: Final = "cluster"
FOLDER: Final = "dir:"
# What Kubernetes adds to a pod's environment for each Service.
_SERVICE: Final = re.compile("_SERVICE_HOST$|_SERVICE_PORT|_PORT$|_PORT_")


class SettingsInvalid(Exception):
    """A setting cannot be used; the message names it, and what is wrong."""


class Settings(BaseSettings):
    """The Boardlet bridge: mirrors the boards of one MQTT broker as Board objects of one Kubernetes cluster."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        cli_prog_name="boardlet-bridge",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        use_attribute_docstrings=True,
        extra="forbid",
    )

    config: Path | None = None
    """A YAML file with any of the settings below, named as here."""

    broker_host: str = "127.0.0.1"
    """Name or address of the MQTT broker."""
    broker_port: int = Field(1883, ge=1, le=65535)
    """Port of the MQTT broker; 8883 is usual with TLS."""
    broker_user: str = "boardlet-bridge"
    """The bridge's user name at the broker."""
    broker_password_file: Path | None = None
    """File with the bridge's password at the broker; read anew at every connection."""
    broker_tls: bool = False
    """Speak TLS with the broker."""
    broker_ca_file: Path | None = None
    """Authority of the broker's certificate (PEM); default: the system's."""
    broker_cert_file: Path | None = None
    """Client certificate for the broker (PEM)."""
    broker_key_file: Path | None = None
    """Private key of the client certificate (PEM)."""
    broker_logins: Literal["files", "dynamic-security", "none"] = "files"
    """How the bridge lets boards in at the broker: by the files named below; over the network, by mosquitto's plugin
    dynamic-security, up to about 1,000 boards; or not at all, then somebody else does."""
    broker_users_file: Path | None = None
    """mosquitto's password_file, where the bridge is to keep it: who has a Board is let in, and the bridge itself."""
    broker_acl_file: Path | None = None
    """mosquitto's acl_file, where the bridge is to keep it: a board its own topics, the bridge those of all boards."""
    broker_psk_file: Path | None = None
    """mosquitto's psk_file, where the bridge is to keep it: keys by which boards speak TLS without a certificate."""
    broker_pid_file: Path | None = None
    """mosquitto's pid_file: by SIGHUP the bridge tells a broker on this host, or in this pod with a shared process
    namespace, that the files above have changed. Without it somebody else must see that, as in the chart."""

    root_key_file: Path
    """File with the site's root key, 64 hex digits, from which every board's key follows; or with two while it is
    replaced, as lines of the first key number and the digits. Keep a copy in a safe."""

    kubeconfig: Path | None = None
    """Kubeconfig file; default: the pod's service account, else $KUBECONFIG, else ~/.kube/config."""
    context: str | None = None
    """Context of the kubeconfig; default: its current one."""
    store: str = "cluster"
    """Where Boards and BoardModels are kept: `cluster`, or `dir:PATH` for a folder of YAML files, without any cluster
    (docs/folder.md). Example: dir:/etc/boardlet/site."""
    store_absent_s: float = Field(5.0, ge=0)
    """An object whose document is gone from the folder for this many seconds is deleted; Git and editors put a file in
    place in two steps, which must not delete a board."""
    namespaces: Annotated[list[str], NoDecode] = []
    """Namespaces to serve, with commas between; default: all."""

    enrollment_namespace: str | None = Field(None, pattern="^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    """Namespace in which boards that have only the site's claim may ask for an identity; default: none may."""
    enrollment_claim_number: int = Field(1, ge=1, le=2**31 - 1)
    """Number of the site's claim; a higher one shuts out every board that was flashed with the one before."""
    enrollment_max_open: int = Field(20, ge=1, le=400)
    """So many Enrollments may wait at a time; who asks beyond them is refused, counted, and asks again later."""
    enrollment_ask_s: int = Field(15, ge=1, le=3600)
    """A board that waits for its approval asks again after about so many seconds."""
    enrollment_policy_file: Path | None = None
    """YAML file of a policy that approves listed hardware without a person (docs/enrolment.md); read each time."""

    replica_name: str | None = None
    """The name of this replica among those that share the boards of one site; default: the pod's or host's name."""
    lease_s: int = Field(15, ge=0, le=3600)
    """A replica whose Lease has stood still for this many seconds has its boards served by the others; all replicas of
    a site have the same. 0: no Lease, this bridge serves every board and must be the only one."""
    broker_absent_s: float = Field(30.0, ge=0)
    """A replica that has not reached the broker for this many seconds leaves its boards to the others, as long as one
    of them does reach it; all replicas of a site have the same. 0: never."""
    lease_namespace: str | None = None
    """Namespace of the Leases; default: the pod's, or that of the kubeconfig's context."""

    status_interval_s: float = Field(5.0, ge=0)
    """A board's mere values are written to its status at most once in this many seconds; conditions at once."""
    status_writes_per_s: float = Field(50.0, gt=0)
    """Writes of this bridge per second, in the long run: a control plane is no time-series database."""
    status_burst: int = Field(200, ge=1)
    """Writes that may exceed the rate for a moment, as when a broker comes back."""
    resync_s: float = Field(600.0, ge=1)
    """All objects are listed anew after this many seconds, to find deletions that a watch has missed."""

    events_per_s: float = Field(5.0, gt=0)
    """Kubernetes Events of this bridge per second, in the long run: a courtesy that must not cost statuses their place.
    What finds the queue full is dropped and counted (`boardlet_events_total`)."""
    events_burst: int = Field(100, ge=1)
    """Events that may exceed the rate for a moment."""
    board_events_burst: int = Field(10, ge=1)
    """Events of one board without delay, so that one bad board does not use up everybody's."""
    board_event_interval_s: float = Field(60.0, gt=0)
    """After the burst, one event of a board in this many seconds; the others are dropped and counted."""
    flapping_ends: int = Field(5, ge=2)
    """A board whose connection ended so often within flapping_s gets one event, Flapping, instead of one each time."""
    flapping_s: float = Field(600.0, gt=0)
    """Over this many seconds the ends of a board's connections are counted; so long it is then not told about again."""

    grace_factor: float = Field(1.5, ge=1)
    """A board that is silent for this many heartbeats counts as not connected."""
    proof_heartbeats: int = Field(10, ge=1)
    """A board is asked for proof of its life after this many heartbeats, so that messages which a broker has held back
    cannot keep a dead board connected for longer; each costs a command and a full report."""
    pending_grace_s: float = Field(1.0, ge=0)
    """An edit that a board confirms within this many seconds costs one status write instead of two."""
    mint_burst: int = Field(20, ge=1)
    """Edits of one board that are passed on without delay: each is one write to the board's flash."""
    mint_interval_s: float = Field(5.0, gt=0)
    """After the burst, one edit of a board in this many seconds; the last one always arrives."""

    http_host: str = "127.0.0.1"
    """Address on which /livez, /readyz and /metrics are served."""
    http_port: int = Field(8080, ge=0, le=65535)
    """Port for /livez, /readyz and /metrics; 0 for none."""
    metrics_max_series: int = Field(10_000, ge=0)
    """At most so many values of boards are metrics, where BoardModels say `metric: Gauge`: each is a time series, and a
    scrape of 10,000 stops the bridge for about 25 ms more. What is beyond them is left out and counted
    (`boardlet_property_values_omitted`). 0: none are, whatever models say."""
    log_level: Level = "info"
    """The least important messages that are logged."""
    log_levels: Annotated[dict[str, Level], NoDecode] = {}
    """The same for single components, with commas between, as engine=debug,status=error: what a line has as its logger.
    engine=debug logs what happens to each board (connected, rebooted, crashed, …)."""
    log_format: Literal["console", "json"] = "json"
    """How log lines look: for a person or for a collector."""

    @field_validator("log_levels", mode="before")
    @classmethod
    def _by_component(cls, value: object) -> object:
        if isinstance(value, str):
            pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
            value = {name.strip(): level.strip() for name, _, level in pairs}
        if isinstance(value, Mapping) and (strange := value.keys() - set(COMPONENTS)):
            raise ValueError(f"must name components of {', '.join(COMPONENTS)}, not {', '.join(map(str, strange))}")
        return value

    @field_validator("store")
    @classmethod
    def _known_store(cls, value: str, info: ValidationInfo) -> str:
        if value == CLUSTER:
            return value
        if not value.startswith(FOLDER) or value == FOLDER:
            raise ValueError("must be cluster or dir:PATH, as dir:/etc/boardlet/site")
        for name in ("kubeconfig", "context"):
            if info.data.get(name) is not None:
                raise ValueError(f"is a folder, and {name} names a cluster: take one of them away")
        return value

    @property
    def store_folder(self) -> Path | None:
        """The folder that is the store; None where it is a cluster."""
        return Path(self.store.removeprefix(FOLDER)).expanduser() if self.store != CLUSTER else None

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            [name.strip(' "[]') for name in value.split(",") if name.strip(' "[]')] if isinstance(value, str) else value
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _File(settings_cls)


class _File(PydanticBaseSettingsSource):
    # The YAML file that a flag or a variable names; they come before it, so that what they said is known here.
    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False  # the file is read as a whole, below

    def __call__(self) -> dict[str, Any]:
        path = self.current_state.get("config")
        if path is None:
            return {}
        try:
            lines = yaml.safe_load(Path(path).read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise SettingsInvalid(f"cannot read the settings in {path}: {' '.join(str(error).split())}") from error
        if lines is not None and not isinstance(lines, dict):
            raise SettingsInvalid(f"{path}: must be lines of NAME: VALUE, with the names of --help")
        for name in lines or {}:
            if name not in Settings.model_fields:
                raise SettingsInvalid(f"{path}: there is no setting {name!r}{_meant(str(name))}")
        return lines or {}


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """What is wrong with variables that look like settings and are none; Kubernetes' own are not meant."""
    said = []
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX).lower()
        if variable == PREFIX + name.upper() and name not in Settings.model_fields and not _SERVICE.search(variable):
            said.append(f"there is no setting {variable}{_meant(name)}")
    return said


def _meant(name: str) -> str:
    near = difflib.get_close_matches(name.replace("-", "_"), Settings.model_fields, 1)
    return f", did you mean {near[0]}?" if near else ""


def load(argv: list[str]) -> Settings:
    """The settings of this process; exits after --help and on unknown flags, raises SettingsInvalid."""
    try:
        return CliApp.run(Settings, cli_args=argv)
    except ValidationError as error:
        raise SettingsInvalid("\n".join(_said(problem) for problem in error.errors())) from error
    except SettingsError as error:
        raise SettingsInvalid(str(error)) from error


def _said(problem: Any) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else "settings"
    said = f"--{name.replace('_', '-')} (or {PREFIX}{name.upper()}, or a line {name}): {problem['msg']}"
    if problem["type"] != "missing":
        said += f", is {problem['input']!r:.100}"
    if str(problem["input"]).startswith("tcp://"):
        said += "; Kubernetes sets that for a Service of this name: have enableServiceLinks: false in the pod"
    return said
