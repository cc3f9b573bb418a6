set(IDF_TARGET esp32)

# No sdkconfig.ble: Bluetooth's memory is needed for routes and packets.
set(SDKCONFIG_DEFAULTS
    boards/sdkconfig.base
    boards/sdkconfig.240mhz
    boards/ESP32_W5500/sdkconfig.board
)

set(MICROPY_FROZEN_MANIFEST ${MICROPY_BOARD_DIR}/manifest.py)
