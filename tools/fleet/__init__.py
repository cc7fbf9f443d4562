"""Thousands of simulated boards in one process: the real protocol through real sockets, without firmware or drivers.

A second implementation of the board's half of PROTOCOL.md, made for numbers: `packet` is MQTT, `board` is one board
(bytes in, bytes out), `link` its connection, `__main__` the process, `control` how a test or a benchmark holds it.
`trial` is one board in a cluster, with its `objects`: what `helm test` runs.
"""
