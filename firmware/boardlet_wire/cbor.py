# The bounded subset of CBOR (RFC 8949) that PROTOCOL.md section 3 allows, for interpreters with little heap.
#
# Encoding appends to one bytearray; decoding walks one buffer with an index kept in a one-element list, so that nothing
# is copied but byte and text strings. Every length that the peer names is checked against what is really there before
# anything is allocated, and nesting is bounded to five: garbage costs a ValueError of one word, never memory.
import struct


def dumps(obj):
    out = bytearray()
    _encode(out, obj, 0)
    return bytes(out)


def _head(out, major, n):
    if n < 24:
        out.append(major | n)
    elif n < 0x100:
        out.append(major | 24)
        out.append(n)
    elif n < 0x10000:
        out.append(major | 25)
        out.append(n >> 8)
        out.append(n & 255)
    elif n <= 0xFFFFFFFF:
        out.append(major | 26)
        out.extend(struct.pack(">I", n))
    else:
        raise ValueError("number")


def _encode(out, obj, depth):
    if obj is True:
        out.append(0xF5)
    elif obj is False:
        out.append(0xF4)
    elif obj is None:
        out.append(0xF6)
    elif isinstance(obj, int):
        if obj >= 0:
            _head(out, 0, obj)
        else:
            _head(out, 0x20, -1 - obj)
    elif isinstance(obj, float):
        _float(out, obj)
    elif isinstance(obj, str):
        raw = obj.encode()
        _head(out, 0x60, len(raw))
        out.extend(raw)
    elif isinstance(obj, (dict, list, tuple)):
        _container(out, obj, depth)
    else:
        _head(out, 0x40, len(obj))
        out.extend(obj)


def _container(out, obj, depth):
    if depth >= 5:
        raise ValueError("depth")
    if isinstance(obj, dict):
        _head(out, 0xA0, len(obj))
        for key in sorted(obj):
            _encode(out, key, depth + 1)
            _encode(out, obj[key], depth + 1)
    else:
        _head(out, 0x80, len(obj))
        for item in obj:
            _encode(out, item, depth + 1)


def _float(out, x):
    # float16 where it is exact, else float32, told from the bits: MicroPython's struct has no "e" everywhere.
    try:
        raw = struct.pack(">f", x)
    except OverflowError:
        raise ValueError("number")
    exponent = ((raw[0] & 0x7F) << 1 | raw[1] >> 7) - 112
    high = (raw[1] & 0x7F) << 3 | raw[2] >> 5
    sign = raw[0] & 0x80
    if exponent > 142:
        raise ValueError("number")
    if not (raw[3] or raw[2] & 0x1F) and 0 < exponent < 31:
        half = exponent << 10 | high
    elif not (raw[1] or raw[2] or raw[3] or raw[0] & 0x7F):
        half = 0
    else:
        out.append(0xFA)
        out.extend(raw)
        return
    out.append(0xF9)
    out.append(sign | half >> 8)
    out.append(half & 255)


def loads(buf):
    at = [0]
    obj = _decode(buf, at, 0)
    if at[0] != len(buf):
        raise ValueError("trailing")
    return obj


def _need(buf, at, n):
    start = at[0]
    if n > len(buf) - start:
        raise ValueError("truncated")
    at[0] = start + n
    return start


def _decode(buf, at, depth):
    first = buf[_need(buf, at, 1)]
    major = first >> 5
    if depth >= 5 and 4 <= major <= 5:
        raise ValueError("depth")
    n = first & 31
    if major == 7:
        return _simple(buf, at, n)
    if n >= 24:
        if n > 26:
            raise ValueError("kind")
        size = 1 << (n - 24)
        i = _need(buf, at, size)
        n = 0
        for i in range(i, i + size):
            n = n << 8 | buf[i]
    if major == 0:
        return n
    if major == 1:
        if n > 0x7FFFFFFF:
            raise ValueError("number")
        return -1 - n
    if major == 2:
        i = _need(buf, at, n)
        return bytes(buf[i : i + n])
    if major == 3:
        i = _need(buf, at, n)
        try:
            return str(bytes(buf[i : i + n]), "utf-8")
        except UnicodeError:
            raise ValueError("text")
    if major == 4:
        if n > len(buf) - at[0]:
            raise ValueError("truncated")
        return [_decode(buf, at, depth + 1) for _ in range(n)]
    if major == 5:
        # Two bytes an entry at the least: a length that cannot be true is refused before the first entry.
        if 2 * n > len(buf) - at[0]:
            raise ValueError("truncated")
        out = {}
        for _ in range(n):
            key = _decode(buf, at, depth + 1)
            if type(key) is not int:
                raise ValueError("key")
            out[key] = _decode(buf, at, depth + 1)
        return out
    raise ValueError("kind")


def _simple(buf, at, n):
    if n == 20:
        return False
    if n == 21:
        return True
    if n == 22:
        return None
    if n == 25:
        i = _need(buf, at, 2)
        half = buf[i] << 8 | buf[i + 1]
        exponent = half >> 10 & 31
        x = half & 0x3FF
        if exponent == 31:
            raise ValueError("number")
        x = x / 16777216 if not exponent else (x | 0x400) * 2.0 ** (exponent - 25)
        return -x if half & 0x8000 else x
    if n == 26 or n == 27:
        size = 4 if n == 26 else 8
        i = _need(buf, at, size)
        x = struct.unpack(">f" if n == 26 else ">d", bytes(buf[i : i + size]))[0]
        if x - x != 0:
            raise ValueError("number")
        return x
    raise ValueError("kind")
