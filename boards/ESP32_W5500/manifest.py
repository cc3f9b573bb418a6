# Without PSRAM the code has to run from flash: it is frozen into the firmware. HAARO_DIR, in the
# environment of MicroPython's build, is the path of a checkout of haaro.
import os

include("$(PORT_DIR)/boards/manifest.py")
package("haaro", base_path=os.environ["HAARO_DIR"] + "/firmware", opt=2)
