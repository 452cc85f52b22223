"""How an MQTT connection begins. In memory only meanwhile.

Source: OASIS MQTT Version 3.1.1, sections 3.1, 3.2 and 3.8.
"""

from app.mqtt import MqttError
from app.mqtt_codec import fill, packet, text

_CONNACK = b"\x20\x02"
REFUSALS = {
    1: "the broker does not speak MQTT 3.1.1",
    2: "the broker refuses the client id",
    3: "the broker takes nothing at the moment",
    4: "the broker does not know this username and password",
    5: "the broker does not let this device in",
}
"""What the return codes of CONNACK mean (table 3.1)."""


def connect(client_id, username, password, keepalive_s, will):
    """Return CONNECT for a session that outlives the connection; `will` is (topic, payload), QoS 1 and retained."""
    return packet(
        0x10,
        b"\x00\x04MQTT\x04\xec",
        keepalive_s.to_bytes(2, "big"),
        text(client_id),
        text(will[0]),
        len(will[1]).to_bytes(2, "big"),
        will[1],
        text(username),
        text(password),
    )


def subscribe(packet_id, filters):
    """Return SUBSCRIBE to these topic filters at QoS 1."""
    parts = [packet_id.to_bytes(2, "big")]
    for topic_filter in filters:
        parts += [text(topic_filter), b"\x01"]
    return packet(0x82, *parts)


async def log_in(reader, writer, login, keepalive_s, will):
    """Send CONNECT and wait for its answer. Raises MqttError."""
    writer.write(connect(login[0], login[1], login[2], keepalive_s, will))
    await writer.drain()
    answer = bytearray(4)
    await fill(reader, answer)
    if answer[:2] != _CONNACK:
        raise MqttError("the broker does not answer with CONNACK: is this its port?")
    code = answer[3]
    if code:
        words = REFUSALS.get(code, "the broker refuses the connection with code %d" % code)
        raise MqttError(words, is_login=code in {2, 4, 5})
