# haaro is not frozen here: this board has PSRAM, the code comes from the filesystem image, and a
# new version of it then needs no new firmware.
include("$(PORT_DIR)/boards/manifest.py")
