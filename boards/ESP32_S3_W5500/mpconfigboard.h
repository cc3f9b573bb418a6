#define MICROPY_HW_BOARD_NAME               "ESP32-S3 with W5500 (haaro)"
#define MICROPY_HW_MCU_NAME                 "ESP32-S3"

// The serial console is on UART0, by the board's USB bridge.
#define MICROPY_HW_ENABLE_UART_REPL         (1)
