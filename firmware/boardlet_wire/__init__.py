# The protocol's bytes: what board and bridge must agree on, pure, for MicroPython and CPython alike. PROTOCOL.md is normative.
