"""Comes in over TLS as a board does: micropython … PORT NAME CA[,CA…] USERNAME PASSWORD [CERTIFICATE KEY].

Certificates and keys are DER files.
"""

import socket
import ssl
import sys

PORT, NAME, AUTHORITIES, USERNAME, PASSWORD = sys.argv[1:6]
SHOWN = sys.argv[6:]


def content(path):
    with open(path, "rb") as file:  # noqa: PTH123 - MicroPython has no Path
        return file.read()


def field(text):
    return len(text).to_bytes(2, "big") + text.encode()


def connect():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    for path in AUTHORITIES.split(","):
        context.load_verify_locations(cadata=content(path))
    if SHOWN:
        context.load_cert_chain(content(SHOWN[0]), content(SHOWN[1]))
    sock = socket.socket()
    sock.connect(socket.getaddrinfo("127.0.0.1", int(PORT))[0][-1])
    sock = context.wrap_socket(sock, server_hostname=NAME)
    login = field(USERNAME) + field(PASSWORD) if USERNAME else b""
    body = field("MQTT") + (b"\4\xc2\0\0" if USERNAME else b"\4\2\0\0") + field("board") + login
    sock.write(bytes([0x10, len(body)]) + body)
    return sock.read(4)


try:
    print("answer", connect().hex())
except (OSError, ValueError) as error:
    print("refused", " ".join(str(error).split()))
