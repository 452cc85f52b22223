"""The pins of an ESP32-DevKitC (ESP32-WROOM-32), as hardware/pinmap.toml has them.

On a WROVER, GPIO 16 and 17 belong to its PSRAM: take RADAR_RX = 25, RADAR_TX = 33 there.
"""

NAME = "ESP32-DevKitC V4 (ESP32-WROOM-32)"
RADAR_UART = 2
RADAR_RX = 16
RADAR_TX = 17
RADAR_OUT = 26
PIR = 27
GAS = 34
LED = 2
BUTTON = 0

DIVIDER_TOP_OHM = 10_000
DIVIDER_BOTTOM_OHM = 9_100
