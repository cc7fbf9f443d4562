# The compiled model (PROTOCOL.md section 9): which properties there are, and whether a value is one of theirs.
from boardlet_wire import cbor
from micropython import const

_OUT_OF_RANGE = const(1)
_WRONG_TYPE = const(2)
_TOO_LONG = const(5)
# What is raised by fields that are there and are not what the protocol says, wherever the first use of one is.
STRANGE = (ValueError, KeyError, TypeError, IndexError, AttributeError)
# What a value of each type is in Python; the types' numbers are their places here.
_KINDS = (bool, int, (int, float), str, int, bytes, list, list)


def check(row, v):
    # 0, or the code of section 7 for why v is not what the row of a property, field or item allows.
    t = row[2]
    if t > 7 or not isinstance(v, _KINDS[t]) or (t and isinstance(v, bool)):
        return _WRONG_TYPE
    if t == 3:
        v = v.encode()
    if t in (3, 5, 7):
        if len(v) > row.get(6, 64):
            return _TOO_LONG
    elif t in (1, 2, 4):
        if not row.get(4, v) <= v <= row.get(5, 0x7FFFFFFF if t == 1 else v):
            return _OUT_OF_RANGE
    if t > 5:
        of = row[11]
        if t == 6 and len(v) != len(of):
            return _WRONG_TYPE
        for i in range(len(v)):
            code = check(of[i] if t == 6 else of, v[i])
            if code:
                return code
    return 0


class Prop:
    def __init__(self, row):
        self.row = row
        self.index = row[0]
        self.name = row[1]
        self.writable = row.get(3, 0)
        self.spec = row.get(10)
        # The same in another model: the same property on the same hardware; limits may differ.
        self.kind = (self.name, row[2], self.writable, self.spec, row.get(11))
        self.driver = None
        self.wanted = None  # what desired asks for, once it has been passed on
        self.value = None  # as last read
        self.told = None  # as last reported
        self.told_at = None
        self.error = 0
        self.error_told = 0
        self.read_at = None  # when a driver's value is due to be read

    def fit(self, v):
        # A measured value as the property's type has it; raises ValueError or TypeError for what cannot be told. Out of
        # range is no reason: it is the truth.
        t = self.row[2]
        if t == 2:
            v = float(v)
        elif t == 1:
            v = round(v)
        elif t > 5:
            v = list(v)  # of our own: the app may go on changing its one
        if v != self.value:
            cbor.dumps(v)
            if check(self.row, v) > _OUT_OF_RANGE:
                raise ValueError("not of its type")
        return v

    def changed(self):
        v, told = self.value, self.told
        if v is None or told is None:
            return v is not told
        deadband = self.row.get(8)
        return abs(v - told) >= deadband if deadband else v != told


def load(raw):
    # {index: Prop}; raises ValueError for what is no model.
    try:
        return {row[0]: Prop(row) for row in cbor.loads(raw)[1]}
    except STRANGE:
        raise ValueError("not a model")
