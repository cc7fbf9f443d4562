# Counts the boot, leaves a moment for Ctrl-C, runs the agent. Almost never updated: it may not fail, others may.
import json
import os
import time

import machine


def settings():
    try:
        with open("config.json") as f:
            return json.load(f)
    except (OSError, ValueError):
        return {}


def main():
    cfg, boot = settings(), None
    if machine.reset_cause() != 4:  # a board that wakes from its sleep has a battery to spare; its crashes are resets
        # A board that crashes at every boot can still be reached: Ctrl-C is honoured here whatever happens later.
        time.sleep_ms(int(cfg.get("grace_s", 2) * 1000))
    try:
        from boardlet.health import Boot

        boot = Boot()
        # A board whose key is being changed holds two; only one that was flashed with a claim has `enrol`.
        name = "rotation" if "keys" in os.listdir() else "enrol" if "key" not in cfg else "boardlet.agent"
        try:
            run = __import__(name, None, None, ("run",)).run
        except ImportError:
            from boardlet.agent import run
        run(boot)
    except Exception as e:  # KeyboardInterrupt is none, and goes through to the prompt
        if boot is None:
            raise
        boot.crashed(e)
        machine.reset()


main()
