# The SDK has no such board; a Pico 2 is the same but for its flash: W25Q16JV, 2 MiB instead of 4 MiB.
set(PICO_BOARD "pico2")
set(PICO_FLASH_SIZE_BYTES 2097152)
add_compile_definitions(PICO_FLASH_SIZE_BYTES=2097152)

set(MICROPY_PY_LWIP 1)
set(MICROPY_PY_NETWORK_WIZNET5K W5500)

# Newer versions of the port take these from here, older ones from mpconfigboard.h.
if(NOT DEFINED MICROPY_HW_FLASH_STORAGE_BYTES)
    set(MICROPY_HW_FLASH_STORAGE_BYTES 1179648)
endif()
if(NOT DEFINED MICROPY_HW_ROMFS_BYTES)
    set(MICROPY_HW_ROMFS_BYTES 262144)
endif()

set(MICROPY_FROZEN_MANIFEST ${MICROPY_BOARD_DIR}/manifest.py)
