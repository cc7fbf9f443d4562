# STM32: what the port freezes for every board, and the agent.
include("$(PORT_DIR)/boards/manifest.py")
include("../../manifest.py")
