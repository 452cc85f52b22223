"""The site's own certificates as pure data: nothing here knows files, sockets or what time it is.

P-256 and SHA-256 throughout, which an ESP32 can verify. No certificate has a beginning that a clock could be before: a
board boots in 2000 or 1970 and knows nothing better until it is connected.
"""
