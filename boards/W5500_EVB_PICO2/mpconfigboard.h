#define MICROPY_HW_BOARD_NAME               "W5500-EVB-Pico2 (haaro)"

// 2 MiB: 640 KiB for MicroPython, 256 KiB for the program as ROMFS, 1152 KiB for files: two slots.
#ifndef MICROPY_HW_FLASH_STORAGE_BYTES
#define MICROPY_HW_FLASH_STORAGE_BYTES      (1152 * 1024)
#endif
#ifndef MICROPY_HW_ROMFS_BYTES
#define MICROPY_HW_ROMFS_BYTES              (256 * 1024)
#endif

#define MICROPY_PY_NETWORK                  (1)
#define MICROPY_PY_NETWORK_HOSTNAME_DEFAULT "haaro"

// As the chip is wired on the board.
#define MICROPY_HW_WIZNET_SPI_ID            (0)
#define MICROPY_HW_WIZNET_SPI_BAUDRATE      (20 * 1000 * 1000)
#define MICROPY_HW_WIZNET_SPI_SCK           (18)
#define MICROPY_HW_WIZNET_SPI_MOSI          (19)
#define MICROPY_HW_WIZNET_SPI_MISO          (16)
#define MICROPY_HW_WIZNET_PIN_CS            (17)
#define MICROPY_HW_WIZNET_PIN_RST           (20)
#define MICROPY_HW_WIZNET_PIN_INTN          (21)
