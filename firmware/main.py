# Counts the boot, leaves a moment for Ctrl-C, runs the agent. Almost never updated: it may not fail, others may.
import json
import time

import machine


def grace_ms():
    # A board that crashes at every boot can still be reached: Ctrl-C is honoured here whatever happens later.
    try:
        with open("config.json") as f:
            return int(json.load(f).get("grace_s", 2) * 1000)
    except (OSError, ValueError):
        return 2000


def main():
    if machine.reset_cause() != 4:  # a board that wakes from its sleep has a battery to spare; its crashes are resets
        time.sleep_ms(grace_ms())
    boot = None
    try:
        from boardlet.health import Boot

        boot = Boot()
        from boardlet.agent import run

        run(boot)
    except Exception as e:  # KeyboardInterrupt is none, and goes through to the prompt
        if boot is None:
            raise
        boot.crashed(e)
        machine.reset()


main()
