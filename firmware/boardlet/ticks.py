# Milliseconds modulo 2^30, the shortest period of any port's ticks_ms; differences are right up to six days.
def add(a, ms):
    return (a + ms) & 0x3FFFFFFF


def diff(a, b):
    return ((a - b + 0x20000000) & 0x3FFFFFFF) - 0x20000000
