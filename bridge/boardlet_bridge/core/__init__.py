"""What the bridge decides, and nothing else: events in, effects out, no clock, socket, log or randomness."""
