# Raspberry Pi Pico W: what the port freezes for the board, and the agent.
include("$(PORT_DIR)/boards/RPI_PICO_W/manifest.py")
include("../../manifest.py")
