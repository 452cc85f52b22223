"""TLS for the listeners, whatever is spoken inside: handshakes, what they show, and what they are refused for.

asyncio and uvloop both set aside 256 KB for each connection over TLS, tell nobody why a handshake failed, and close
before the other side has heard it. So what goes between a socket and a connection is ours; the cryptography is
OpenSSL's.
"""
