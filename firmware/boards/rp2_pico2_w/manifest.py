# Raspberry Pi Pico 2 W: what the port freezes for the board, and the agent.
include("$(PORT_DIR)/boards/RPI_PICO2_W/manifest.py")
include("../../manifest.py")
