# ESP32, ESP32-S2, -S3, -C3, -C6: what the port freezes for every board, and the agent.
include("$(PORT_DIR)/boards/manifest.py")
include("../../manifest.py")
