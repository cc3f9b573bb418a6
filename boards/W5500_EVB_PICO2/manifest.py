# haaro is not frozen here: the code comes from the filesystem image, and a new version of it then
# needs no new firmware; or from ROMFS, see board.md.
include("$(PORT_DIR)/boards/manifest.py")
