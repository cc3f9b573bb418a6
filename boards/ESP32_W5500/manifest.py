# Without PSRAM the code has to run from flash: it is frozen into the firmware, as `make firmware
# BOARD=ESP32_W5500` has compiled it, which is what this board needs and no more. HAARO_DIR, in the
# environment of MicroPython's build, is the path of the checkout of haaro where that was done.
import os

include("$(PORT_DIR)/boards/manifest.py")
freeze_mpy(os.environ["HAARO_DIR"] + "/build/firmware/ESP32_W5500/files/slots/a")
