"""All that the bridge knows of one board; the features beside this file change it, `board.step` calls them.

Nothing here needs to survive the process: the object, the mailbox and the board itself hold the truth, and a new bridge
asks all three. Times are seconds of the caller's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from math import inf
from typing import Any, Final, Literal

from boardlet_wire.names import AWAKE_S, DEFAULT_HEARTBEAT_S, Health

from boardlet_bridge.core.codec import Scalar
from boardlet_bridge.core.condition import Condition, Connection, Fault, ModelFault, Suspicion
from boardlet_bridge.core.credential import BoardKeys, KeyRing
from boardlet_bridge.core.model import Model
from boardlet_bridge.core.notice import Told
from boardlet_bridge.core.root_key import serving
from boardlet_bridge.core.value import Value

# A board that has not said its receive limit yet is taken to have the smallest one of PROTOCOL.md's agents.
ASSUMED_RECEIVE_LIMIT: Final = 512
# A board that sleeps may miss one turn, and a radio needs a minute to join its network, before it counts as overdue.
MISSED_TURNS: Final = 2
JOINING_S: Final = 60
FETCHING_S: Final = 30.0  # then a board gives up fetching a model (PROTOCOL.md section 6)


class Link(Enum):
    """What is known of the board's connection; the value is the reason of the condition Connected."""

    WAITING = "Waiting"  # nothing has been asked yet
    BROKER = "BrokerUnreachable"
    ASKING = "Asking"
    LIVE = "Answered"
    GONE = "Gone"
    ASLEEP = "Asleep"
    OVERDUE = "Overdue"
    SILENT = "Silent"
    NEVER = "NeverSeen"
    VERSION = "UnsupportedProtocol"
    REVOKED = "Revoked"

    @property
    def reason(self) -> Connection:
        value: Connection = self.value
        return value


@dataclass(frozen=True, slots=True)
class Limits:
    """How patient the core is; every field in seconds unless it says otherwise."""

    grace_factor: float = 1.5
    """Silence of this many heartbeats means not connected."""
    pending_grace_s: float = 1.0
    """An edit or a reconnect that settles within this time costs one status write, not two."""
    start_grace_s: float = 15.0
    """A bridge that starts reads all objects and all that the broker retains: so long statuses stand as they are."""
    ask_grace_s: float = 5.0
    """Then, and when its broker is back, it asks all boards at once: so long statuses stand as they are."""
    proof_heartbeats: int = 10
    """However often a board speaks, it is asked after this many heartbeats: only an answer proves when it spoke."""
    ask_again_s: float = 10.0
    """A question that the board has not answered is asked anew after this time."""
    mail_again_s: float = 5.0
    """A desired that has not been read back from the broker is published anew after this time."""
    mint_burst: int = 20
    """Edits of one board that are passed on without delay (a board's flash is written once for each)."""
    mint_interval_s: float = 5.0
    """After the burst, one edit of a board in this time."""
    awake_s: float = AWAKE_S
    """A sleeping board's turn takes at most this long; that it was awake meanwhile costs no status write."""
    switch_s: float = 3.0
    """A board that becomes another model ends its session and begins one: if within this time, that is no news."""
    flapping_ends: int = 5
    """A board whose connection ended so often within flapping_s is told to flap, once, instead of each time."""
    flapping_s: float = 600.0
    """Over this time ends are counted, and a board that flaps is not told about again."""
    suspicion_s: float = 300.0
    """MessagesRefused stays True for this time after the last refused message."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which desired is meant: revision orders, digest says what, uid and generation say of which object."""

    uid: bytes
    revision: int
    digest: bytes
    generation: int

    def same(self, other: Identity | None) -> bool:
        """Whether both stand for the same desired of the same object (rule: uid, revision and digest)."""
        return other is not None and (self.uid, self.revision, self.digest) == (other.uid, other.revision, other.digest)


@dataclass(frozen=True, slots=True)
class Desired:
    """What the bridge asks of the board now."""

    identity: Identity
    values: Mapping[int, Value]  # as Kubernetes shows them
    payload: bytes
    model: Model

    def sealed(self, payload: bytes) -> Desired:
        """The same under another key."""
        return replace(self, payload=payload)


@dataclass(frozen=True, slots=True)
class Sleep:
    """A board's word that it sleeps, which ends a session."""

    epoch: bytes
    until: float  # later is overdue
    allowed_s: int
    proven: bool  # said in a session that this bridge has heard live; else it is a memory of the broker's


@dataclass(frozen=True, slots=True)
class PropertyError:
    """One property's error as the status shows it."""

    property: str
    source: Literal["Bridge", "Board"]
    reason: Fault
    message: str


@dataclass(frozen=True, slots=True)
class Birth:
    """What a board said of itself when its session began."""

    fields: Mapping[str, Scalar]
    receive_limit: int
    model_digest: bytes
    app_digest: bytes
    safe_mode: bool

    @property
    def news(self) -> tuple[bytes, bytes, object]:
        """What of it is worth a write; that a sleeper has woken, and how often it booted, is not."""
        return self.model_digest, self.app_digest, self.fields.get("lastCrash")


@dataclass(slots=True)
class Board:
    """The state of one Board object and the board behind it."""

    keys: BoardKeys
    ring: KeyRing
    limits: Limits

    # The object
    uid: bytes = b""
    title: str = ""  # as kubectl's arguments name it
    generation: int = 0
    spec: Mapping[str, Any] = field(default_factory=dict)
    accepted_restore: str = ""
    deleting: bool = False
    finalizer: bool = False
    recorded: Identity | None = None  # status.desired
    model: Model | None = None
    model_reason: ModelFault = "Pending"
    model_message: str = "waiting for the model"
    rival: str = ""

    # Keys
    proven_key: int = 0  # the highest number that the board has spoken under
    recorded_key: int = 0  # the number that it had by its object's status
    offered_in: bytes = b""  # the session in which the next key was sent last
    offers: int = 0  # how often in that session
    offer_again: float = 0.0

    # Desired
    desired: Desired | None = None
    spec_errors: tuple[PropertyError, ...] = ()
    too_large: int = 0  # bytes that the board cannot take
    exhausted: bool = False  # somebody claims the highest revision that there is
    restored_generation: int = 0
    mint_tokens: float = 0.0
    mint_tokens_at: float = -1.0
    mint_delayed_until: float = 0.0
    mailbox_known: bool = False
    mailbox: bytes = b""
    mailbox_identity: Identity | None = None
    mailed_at: float = 0.0
    session_cleared: bool = False
    cleared_at: float = 0.0

    # Session
    broker_up: bool = False
    link: Link = Link.WAITING
    link_detail: str = ""
    foreign: bool = False  # the last session message was sealed with another key
    epoch: bytes = b""
    birth: Birth | None = None
    nonce: bytes = b""
    asks: int = 0
    asked_at: float = 0.0
    introducing: bool = False
    introduced_at: float = -1e9
    traceback_due: bool = False  # whether the board is to say what its app.py raised
    deadline: float = 0.0
    answered_at: float = 0.0  # when a question of ours was last answered
    proof_by: float = inf  # until when the next answer is owed, inf while none is
    armed: float = 0.0  # the time of the Wake that will look at the deadline
    next_sequence: int = 0
    switching: bool = False  # whether its session has ended on the way to another model
    sleep: Sleep | None = None  # until the next session begins
    awake_until: float = 0.0  # of a board that has woken from its sleep

    # Reported
    applied: Identity | None = None
    highest_revision: int = 0  # of the board's own word, whatever object it belonged to
    refused: tuple[int, bytes, int] | None = None
    reported: dict[str, Value] = field(default_factory=dict)  # as Kubernetes shows them
    board_errors: dict[int, int] = field(default_factory=dict)
    strange: dict[int, PropertyError] = field(default_factory=dict)  # what is wrong with what the board reported
    health: int = Health.RUNNING
    suspicion: Suspicion | None = None
    suspicion_until: float = 0.0
    dropped_by_board: dict[str, int] | None = None  # since it booted, by its own word
    dropped_in_boot: Scalar | None = None
    dropped_by_bridge: dict[str, int] = field(default_factory=dict)
    dropped_due: float = 0.0  # when a count may cost a status write again

    # What was last decided to be shown
    shown: tuple[Condition, ...] = ()
    inherited: frozenset[tuple[object, ...]] = frozenset()  # what the object showed when it was met, until then
    settled: bool = False  # whether that is what follows from all the above
    news: tuple[bytes, bytes, object] | None = None  # of the birth that was answered last
    only_sensed: bool = False  # whether this step changed nothing of it but values that no condition depends on
    hold_until: float = 0.0
    unshown: bool = False  # values have changed since
    told: Told = field(default_factory=Told)
    untold: bool = True  # conditions have been shown that were not looked at for notices

    @property
    def login(self) -> int:
        """The number of the key whose password lets the board in at the broker; 0: it is not to be let in.

        It follows from the object alone. A key that came over the air counts here when the status has it: a bridge that
        starts then knows it too, and another replica, which keeps the logins and has not heard the board.
        """
        return 0 if self.deleting or not self.uid else self._in_use(self.recorded_key)

    @property
    def unrecorded(self) -> bool:
        """Whether the board has changed its key since its object's status was written, for which its login waits."""
        return 0 < self.recorded_key < self.proven_key

    @property
    def wanted_key(self) -> int:
        """The number of the key that the board is to hold, by its object."""
        return int((self.spec.get("credential") or {}).get("keyNumber") or 1)

    @property
    def revoked_key(self) -> int:
        """Keys of this number and below are not accepted: the object revokes them, or their root key was removed."""
        return max(self.revoked_by_object, self.ring.lowest - 1)

    @property
    def revoked_by_object(self) -> int:
        return int((self.spec.get("credential") or {}).get("revokedKeyNumber") or 0)

    @property
    def rootless(self) -> bool:
        """Whether the board is shut out because the root key of its key was removed, and for nothing else."""
        return not self.key_number and max(self.proven_key, self.wanted_key) > self.revoked_by_object

    @property
    def root_number(self) -> int:
        """The first key number of the root key that the board's key follows from; 0: it has none."""
        return serving(self.ring.roots, self.key_number).first if self.key_number else 0

    @property
    def lowest_key(self) -> int:
        """Every key that is accepted has a higher number than this."""
        return max(self.revoked_key, self.proven_key - 1)

    @property
    def key_number(self) -> int:
        """The number of the key in use: what the board has proven, else what it was flashed with; 0: it is revoked.

        Flashed it is with the first number that is not revoked; what the object wants above that it gets over the air.
        """
        return self._in_use(self.proven_key)

    def _in_use(self, spoken: int) -> int:
        revoked = self.revoked_key
        if spoken > revoked:
            return spoken
        flashed = min(self.wanted_key, revoked + 1)
        return flashed if flashed > revoked else 0

    @property
    def heartbeat_s(self) -> int:
        settings = self.spec.get("settings") or {}
        return int(settings.get("heartbeatSeconds") or DEFAULT_HEARTBEAT_S)

    @property
    def patience_s(self) -> float:
        """Silence after which the board is not connected: it may still run with the former heartbeat."""
        former = 0 if self.confirmed else DEFAULT_HEARTBEAT_S
        return max(self.heartbeat_s, former) * self.limits.grace_factor

    @property
    def sleep_s(self) -> int:
        """How long the object asks the board to sleep between its turns; 0: not at all."""
        return int((self.spec.get("settings") or {}).get("sleepSeconds") or 0)

    def allowed_s(self, sleeps_s: int) -> int:
        """How long a board that says it sleeps for `sleeps_s` may stay away; it may not know the newest spec yet."""
        most = (self.spec.get("settings") or {}).get("maxOfflineSeconds")
        return max(int(most), sleeps_s) if most else MISSED_TURNS * sleeps_s + JOINING_S

    @property
    def live(self) -> bool:
        return self.link is Link.LIVE

    @property
    def asleep(self) -> bool:
        """Whether the board sleeps, by its own word in a session that this bridge has heard, and is not late yet."""
        return self.link is Link.ASLEEP and self.sleep is not None and self.sleep.proven

    @property
    def present(self) -> bool:
        """Whether the board's last word may be shown for this object: it answers, or sleeps in order."""
        return not self.rival and (self.live or self.asleep)

    @property
    def confirmed(self) -> bool:
        """Whether the board, in its present session, has said that it runs exactly what is asked."""
        return self.present and self.desired is not None and self.desired.identity.same(self.applied)

    def switches(self, now: float) -> bool:
        """Whether the board was sent another model, and may end its session to become it."""
        if self.desired is None or self.birth is None or self.birth.model_digest == self.desired.model.digest:
            return False
        return now < max(self.mailed_at, self.answered_at) + FETCHING_S

    @property
    def receive_limit(self) -> int:
        return self.birth.receive_limit if self.birth else ASSUMED_RECEIVE_LIMIT

    @property
    def model_held(self) -> bool:
        """Whether the indexes that the board reports are those of the model at hand."""
        return self.model is not None and self.birth is not None and self.birth.model_digest == self.model.digest
