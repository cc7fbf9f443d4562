# The protocol's bytes, pure, for MicroPython and CPython alike: what board and bridge must agree on (PROTOCOL.md).
