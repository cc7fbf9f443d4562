"""The protocol's keys, letters and codes by name, for hosts; boards hold the few they need as constants.

Source: PROTOCOL.md sections 2 to 9. The members' values are the bytes on the wire, so none may ever change.
"""

from enum import IntEnum
from typing import Final

PROTOCOL_VERSION: Final = 1
DEFAULT_HEARTBEAT_S: Final = 60
DEFAULT_LOG_LEVEL: Final = 1
AWAKE_S: Final = 20  # a board that sleeps between its turns is awake for at most this long (section 10)
REVISION_MAX: Final = 2**31 - 1

SESSION, DESIRED, REPORTED, COMMAND, WANT, FILE = "s", "d", "r", "c", "w", "f"
ANSWER, TELEMETRY, LOG, INPUT = "a", "t", "l", "i"
# Topics whose seal covers the session's epoch (section 2).
EPOCH_SEALED: Final = frozenset({REPORTED, WANT, FILE, ANSWER, TELEMETRY, LOG, INPUT})


class SessionKey(IntEnum):
    """Keys of a session message (section 5)."""

    VERSION = 0
    STATE = 1
    EPOCH = 2
    KEY_NUMBER = 3
    BOOT_COUNT = 4
    BOOT_CAUSE = 5
    AGENT = 6
    PORT = 7
    MACHINE = 8
    MPY = 9
    MICROPYTHON = 10
    RECEIVE_LIMIT = 11
    MODEL = 12
    APP = 13
    APPLIED = 14
    REFUSED = 15
    CRASH = 16
    SAFE_MODE = 17
    SLEEP_S = 18


class SessionState(IntEnum):
    """Whether the board is there (section 5)."""

    GONE = 0
    HERE = 1
    ASLEEP = 2


class BootCause(IntEnum):
    """Why the board booted, as far as its port can tell (section 5)."""

    UNKNOWN = 0
    POWER_ON = 1
    HARD_RESET = 2
    WATCHDOG = 3
    DEEP_SLEEP = 4
    SOFT_RESET = 5
    CRASH = 6


class DesiredKey(IntEnum):
    """Keys of a desired message (section 6)."""

    UID = 0
    REVISION = 1
    GENERATION = 2
    STATE = 3


class StateKey(IntEnum):
    """Negative keys of a desired's state; keys from 0 up are property indexes (section 6)."""

    MODEL = -1
    APP = -2
    SETTINGS = -3


class SettingKey(IntEnum):
    """Keys of the settings map (section 6)."""

    HEARTBEAT_S = 0
    LOG_LEVEL = 1
    SLEEP_S = 2


class RefusalCode(IntEnum):
    """Why a board refused a desired as a whole (section 6)."""

    CONFLICT = 1
    TOO_LARGE = 2
    MALFORMED = 3
    MODEL_UNAVAILABLE = 4
    REVERTED = 5
    STORAGE_FAILED = 6


class ReportKey(IntEnum):
    """Negative keys of a report; keys from 0 up are property indexes (section 7)."""

    SEQUENCE = -1
    APPLIED = -2
    ERRORS = -3
    UPTIME_S = -4
    NONCE = -5
    REFUSED = -6
    COUNTERS = -7
    HEALTH = -8


class PropertyCode(IntEnum):
    """A property's error as the board tells it; 0 clears (section 7)."""

    CLEARED = 0
    OUT_OF_RANGE = 1
    WRONG_TYPE = 2
    READ_ONLY = 3
    UNKNOWN_PROPERTY = 4
    TOO_LONG = 5
    DRIVER_FAILED = 6
    NO_HANDLER = 7
    HANDLER_FAILED = 8
    NOT_RUNNING = 9


class Counter(IntEnum):
    """What a board counts of that which it dropped (section 7)."""

    WRONG_SEAL = 0
    MALFORMED = 1
    OVERSIZE = 2
    STALE = 3


class Health(IntEnum):
    """How a board says that it is (section 7)."""

    RUNNING = 0
    SAFE_MODE = 1
    APP_FAILED = 2


class CommandKey(IntEnum):
    """Keys of a command (section 8)."""

    NONCE = 0
    OPERATION = 1
    EPOCH = 2
    ARGUMENTS = 5


class Operation(IntEnum):
    """What a command asks (section 8)."""

    REPORT = 0
    INTRODUCE = 1
    ROTATE = 2


class WantKey(IntEnum):
    """Keys of a want (section 9)."""

    DIGEST = 0
    OFFSET = 1
    LENGTH = 2


class FileKey(IntEnum):
    """Keys of a file message (section 9)."""

    DIGEST = 0
    OFFSET = 1
    TOTAL = 2
    DATA = 3
    ERROR = 4


FILE_NOT_HERE: Final = 1


class ModelKey(IntEnum):
    """Keys of a compiled model (section 9)."""

    VERSION = 0
    PROPERTIES = 1


class PropertyKey(IntEnum):
    """Keys of a property in a compiled model, of an Array's items and of a Record's field (section 9)."""

    INDEX = 0
    NAME = 1
    TYPE = 2
    ACCESS = 3
    MINIMUM = 4
    MAXIMUM = 5
    MAX_LENGTH = 6
    DEFAULT = 7
    DEADBAND = 8
    MIN_INTERVAL_S = 9
    DRIVER = 10
    OF = 11


class DriverKey(IntEnum):
    """Keys of a property's driver in a compiled model (section 9)."""

    KIND = 0
    PINS = 1
    INVERTED = 2
    PULL = 3
    SCALE = 4
    OFFSET = 5
    SAMPLE_MS = 6
    FREQUENCY_HZ = 7
    BUS = 8
    ADDRESS = 9
    MEASURES = 10
    BAUD_RATE = 11
    BINARY = 12
    SENDS = 13


class RequestKey(IntEnum):
    """Keys of a request to be enrolled (section 12)."""

    VERSION = 0
    NONCE = 1
    PUBLIC = 2
    HARDWARE = 3
    PORT = 4
    MACHINE = 5
    AGENT = 6
    MICROPYTHON = 7


class GrantKey(IntEnum):
    """Keys of the answer to a request (section 12)."""

    CODE = 0
    WAIT_S = 1
    PUBLIC = 2
    WRAPPED = 3


class GrantCode(IntEnum):
    """What a request came to (section 12)."""

    GRANTED = 0
    PENDING = 1
    DENIED = 2
    TOO_MANY = 3
    BURNT = 4


class IdentityKey(IntEnum):
    """Keys of what is wrapped in an answer (section 12)."""

    ID = 0
    NUMBER = 1
    KEY = 2
