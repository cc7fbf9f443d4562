# Milliseconds modulo 2^30, the shortest period of any port's ticks_ms; differences are right up to six days.
_HALF = 0x20000000
_MASK = 0x3FFFFFFF


def add(a, ms):
    return (a + ms) & _MASK


def diff(a, b):
    return ((a - b + _HALF) & _MASK) - _HALF
