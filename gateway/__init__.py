"""neurogate: the on-site agent between ESP32 sensors and every cloud."""

__version__ = "0.1.0"
