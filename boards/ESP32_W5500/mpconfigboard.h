#define MICROPY_HW_BOARD_NAME               "ESP32 with W5500 (haaro)"
#define MICROPY_HW_MCU_NAME                 "ESP32"
