# The compiled model (PROTOCOL.md section 9): which properties there are, and whether a value is one of theirs.
from boardlet_wire import cbor
from micropython import const

OUT_OF_RANGE = const(1)
WRONG_TYPE = const(2)
READ_ONLY = const(3)
UNKNOWN = const(4)
TOO_LONG = const(5)
DRIVER_FAILED = const(6)
NO_HANDLER = const(7)
HANDLER_FAILED = const(8)
NOT_RUNNING = const(9)


class Prop:
    def __init__(self, row):
        self.index = row[0]
        self.name = row[1]
        self.type = row[2]
        self.writable = row.get(3, 0)
        self.low = row.get(4)
        self.high = row.get(5)
        self.size = row.get(6, 64)
        self.default = row.get(7)
        self.deadband = row.get(8, 0)
        self.interval = row.get(9, 0) * 1000
        self.spec = row.get(10)
        self.driver = None
        self.wanted = None  # what desired asks for
        self.value = None  # as last read
        self.told = None  # as last reported
        self.told_at = None
        self.error = 0
        self.error_told = 0
        self.read_at = 0  # when a driver's value is due to be read

    def check(self, v):
        # 0, or the code of section 7 for why this value is not one of the property's.
        t = self.type
        if t == 0:
            return 0 if isinstance(v, bool) else WRONG_TYPE
        if t == 3:
            if not isinstance(v, str):
                return WRONG_TYPE
            return TOO_LONG if len(v.encode()) > self.size else 0
        if isinstance(v, bool) or not isinstance(v, (int, float) if t == 2 else int):
            return WRONG_TYPE
        if (self.low is not None and v < self.low) or (self.high is not None and v > self.high):
            return OUT_OF_RANGE
        return 0

    def fit(self, v):
        # A measured value as the property's type has it.
        if self.type == 2:
            return float(v)
        if self.type == 1 and isinstance(v, float):
            return round(v)
        return v

    def changed(self):
        if self.told is None or self.value is None:
            return self.value is not None
        if self.deadband and self.type in (1, 2):
            return abs(self.value - self.told) >= self.deadband
        return self.value != self.told


def load(raw):
    # {index: Prop}; raises ValueError for what is no model.
    try:
        return {row[0]: Prop(row) for row in cbor.loads(raw)[1]}
    except (KeyError, TypeError, IndexError):
        raise ValueError("not a model")
