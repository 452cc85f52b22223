"""How a connection begins, over TLS with the site's own CA, and why it failed, in words. In memory only meanwhile."""

import asyncio

from micropython import const

from app.mqtt import MqttError
from app.within import within

_CONNECT_MS = const(10_000)

_WORDS = (
    ("common name", "the certificate is for another name than %s"),
    ("cn does not match", "the certificate is for another name than %s"),
    ("has expired", "the certificate of %s has expired"),
    ("in the future", "the certificate of %s is not valid yet: is the clock right?"),
    ("not correctly signed by the trusted", "the certificate of %s was not issued by this site's CA"),
    ("ca_chain_required", "the board has no CA to check %s with"),
    ("ca chain required", "the board has no CA to check %s with"),
)
_ENDS = {
    "": "the broker has closed the connection",
    "connect": "the broker does not answer CONNECT in time",
    "puback": "the broker does not acknowledge a message in time",
    "write": "the broker takes nothing any more",
    "ping": "the broker does not answer a ping",
    "subscribe": "the broker refuses a subscription",
    "kind": "the broker sends what only a client may send",
}
"""What an MqttError of one word means, and an EOFError."""


def explain(error, server_name):
    """Return in words why a connection failed."""
    text = str(error)
    for part, words in _WORDS:
        if part in text.lower():
            return words % server_name
    if isinstance(error, (MqttError, EOFError)):
        return _ENDS.get(text, text)
    return "%s: %s" % (type(error).__name__, text)


async def connect(gateway, address, context, beat):
    """Return reader and writer; `context` is what TLS is made with, or None. Raises OSError, ValueError."""
    arguments = {}
    if context is not None:
        arguments = {"ssl": context, "server_hostname": gateway["server_name"]}
    try:
        return await within(_CONNECT_MS, asyncio.open_connection(address, gateway["port"], **arguments), beat)
    except asyncio.TimeoutError:
        raise OSError("%s does not answer" % address) from None


def tls_context(ca_path):
    """Return what TLS is made with: the peer must have a certificate of one of these CAs (DER, one after another).

    Raises ValueError.
    """
    import tls  # `ssl` is a wrapper around it, of 1 KB

    context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    context.verify_mode = tls.CERT_REQUIRED  # pyright: ignore[reportAttributeAccessIssue] - the stubs do not know it
    if ca_path is not None:
        with open(ca_path, "rb") as file:
            head = file.read(4)  # DER begins with 0x30 0x82 and two bytes of length
            while head:
                context.load_verify_locations(head + file.read(head[2] << 8 | head[3]))
                head = file.read(4)
    return context
