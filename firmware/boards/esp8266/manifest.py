# ESP8266: what the port freezes for every board, and the agent: only frozen does it fit beside the network stack.
include("$(PORT_DIR)/boards/manifest.py")
include("../../manifest.py")
