"""A strict Golioth, as devices see it: DTLS with their pre-shared keys, CoAP, its limits, and its refusals.

The client of libcoap has talked to it: see test_golioth.py.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from OpenSSL import SSL

from cloud_sync.egress import Egress
from cloud_sync.integrations.coap.message import BLOCK1, CONTENT_FORMAT, MAX_AGE, POST, URI_PATH, Kind, Message, number
from cloud_sync.integrations.golioth import Golioth
from gateway.clock import ManualClock
from tests.cloud_sync.samples import ANYWHERE, NOW_MS

_CALLBACK = "unsigned int(SSL *, const char *, unsigned char *, unsigned int)"
_SUITES = b"PSK-AES128-GCM-SHA256:PSK-AES128-CCM8:@SECLEVEL=0"
PROJECT = "our-project"
PSK_ID = f"gateway@{PROJECT}"
PSK = "planted in a test: a shared key"
BASE = {"type": "golioth", "name": "test", "timeout_s": 5.0, "host": "127.0.0.1"}
MINE = {"psk_id": PSK_ID, "psk": PSK}
Address = tuple[str, int]
Said = tuple[str, str, tuple[tuple[int, bytes], ...]]
"""Code, words and options of an answer."""


def code(text: str) -> int:
    kind, detail = text.split(".")
    return int(kind) << 5 | int(detail)


class Peer:
    """One association."""

    def __init__(self, devices: dict[str, str]) -> None:
        lib: Any = SSL._lib  # type: ignore[attr-defined]
        ffi: Any = SSL._ffi  # type: ignore[attr-defined]
        self.identity = ""
        self.is_secured = False
        self.is_lost = False
        self.blocks = b""
        self.answered: dict[int, bytes] = {}

        def key_of(_: Any, identity: Any, to_key: Any, most: int) -> int:
            self.identity = ffi.string(identity).decode()
            key = devices.get(self.identity, "").encode()
            assert len(key) <= most
            ffi.memmove(to_key, key, len(key))
            return len(key)

        self._callback = ffi.callback(_CALLBACK, key_of)
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_cipher_list(_SUITES)
        lib.SSL_CTX_set_psk_server_callback(context._context, self._callback)
        self.dtls = SSL.Connection(context, None)
        self.dtls.set_ciphertext_mtu(1280)
        self.dtls.set_accept_state()


@dataclass
class FakeGolioth(asyncio.DatagramProtocol):
    """See the module's own words."""

    devices: dict[str, str] = field(default_factory=lambda: {PSK_ID: PSK})
    """Keys by PSK-ID."""
    streamed: list[tuple[str, str, list[dict[str, Any]]]] = field(default_factory=list)
    """PSK-ID, path and readings of each message."""
    bodies: list[bytes] = field(default_factory=list)
    refuses: deque[tuple[str, int | None]] = field(default_factory=deque)
    """Code, and Max-Age, of the next answers."""
    throttles_from: int = 0
    """The request of this number is one too many."""
    judge: Callable[[bytes], str | None] | None = None
    """Of what a message says: the code by which it is refused."""
    handshakes: int = 0
    requests: int = 0
    """Each once, however often it came."""
    datagrams: int = 0
    is_deaf: bool = False
    """To everything."""
    silences: int = 0
    """So many of the next handshakes get no answer from where the key counts."""
    hangs: bool = False
    """It reads, and does not answer."""
    loses: int = 0
    """So many of the next requests are lost on the way."""
    resets: int = 0
    """So many of the next requests are answered with a reset."""
    slow_s: float = 0.0
    """It acknowledges first, and answers so much later."""
    repeats: int = 0
    """Of requests that had been answered, or acknowledged."""
    block_exponent: int = 6
    largest_exponent: int = 6
    """What is larger than such a block it refuses, saying so."""
    answers_blocks: str = "2.31"
    """What it says to a block that is not the last."""
    echoes_blocks: bool = True
    """Else it does not know of blocks, and takes each for all."""
    peers: dict[Address, Peer] = field(default_factory=dict)
    transport: asyncio.DatagramTransport = field(init=False)
    port: int = 0
    _times: dict[str, deque[float]] = field(default_factory=dict)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, address: Address) -> None:
        self.datagrams += 1
        if self.is_deaf:
            return
        peer = self.peers.get(address) or self.peers.setdefault(address, Peer(self.devices))
        if peer.is_lost:
            return
        peer.dtls.bio_write(data)
        knew = peer.identity
        try:
            if not peer.is_secured:
                peer.dtls.do_handshake()
                peer.is_secured = True
                self.handshakes += 1
            while True:
                self._take(peer, address, peer.dtls.recv(65_535))
        except SSL.WantReadError:
            pass
        except SSL.Error:  # it takes leave, or is nobody
            self.peers.pop(address)
        if self.silences and peer.identity != knew:
            self.silences -= 1
            peer.is_lost = True
            return
        self._flush(peer, address)

    def _send(self, peer: Peer, address: Address, data: bytes) -> None:
        peer.dtls.send(data)
        self._flush(peer, address)

    def _flush(self, peer: Peer, address: Address) -> None:
        while True:
            try:
                self.transport.sendto(peer.dtls.bio_read(65_535), address)
            except SSL.WantReadError:
                return

    def forget(self) -> None:
        """Forget every session, as a server does that is started anew."""
        self.peers.clear()

    def _take(self, peer: Peer, address: Address, data: bytes) -> None:
        message = Message.decode(data)
        if message.kind != Kind.CONFIRMABLE:
            return
        if message.id in peer.answered:
            self.repeats += 1
            peer.dtls.send(peer.answered[message.id])
            return
        if self.loses or self.hangs:
            self.loses = max(0, self.loses - 1)
            return
        self.requests += 1
        if self.resets:
            self.resets -= 1
            peer.dtls.send(Message(Kind.RESET, 0, message.id).encode())
            return
        answer = self._answer(peer, message)
        if self.slow_s:
            peer.answered[message.id] = Message(Kind.ACKNOWLEDGEMENT, 0, message.id).encode()
            peer.dtls.send(peer.answered[message.id])
            peer.dtls.send(Message(Kind.CONFIRMABLE, code("2.05"), 1, b"else", (), b"of somebody else").encode())
            answer = Message(Kind.CONFIRMABLE, answer.code, 7, answer.token, answer.options, answer.payload)
            asyncio.get_running_loop().call_later(self.slow_s, self._send, peer, address, answer.encode())
            return
        peer.answered[message.id] = answer.encode()
        peer.dtls.send(peer.answered[message.id])

    def _answer(self, peer: Peer, request: Message) -> Message:
        text, words, options = self._said(peer, request)
        return Message(Kind.ACKNOWLEDGEMENT, code(text), request.id, request.token, options, words.encode())

    def _said(self, peer: Peer, request: Message) -> Said:
        if self._is_too_fast(peer.identity) or self.requests == self.throttles_from:
            return "4.29", "more than 20 requests in a second", ((MAX_AGE, number(2)),)
        if self.refuses:
            text, max_age = self.refuses.popleft()
            options = () if max_age is None else ((MAX_AGE, number(max_age)),)
            return text, f"no, although your key is {self.devices[peer.identity]}", options
        return self._taken(peer, request)

    def _taken(self, peer: Peer, request: Message) -> Said:
        path = "/".join(value.decode() for known, value in request.options if known == URI_PATH)
        if request.code != POST or not path.startswith(".s"):
            return "4.05", "", ()
        if request.option(CONTENT_FORMAT) != 50:
            return "4.15", "", ()
        if len(request.payload) > 16 << self.largest_exponent:
            peer.blocks = b""
            return "4.13", "", ((BLOCK1, number(self.largest_exponent)),)
        if (block := request.option(BLOCK1)) is not None:
            return self._block(peer, path, block, request.payload)
        return self._stream(peer, path, request.payload)

    def _block(self, peer: Peer, path: str, block: int, payload: bytes) -> Said:
        if len(peer.blocks) != (block >> 4) * (16 << (block & 7)):
            return "4.08", "", ()
        peer.blocks += payload
        echoed = ((BLOCK1, number((block & ~7) | min(block & 7, self.block_exponent))),)
        if block & 8:
            return self.answers_blocks, "", echoed if self.echoes_blocks else ()
        body, peer.blocks = peer.blocks, b""
        return *self._stream(peer, path, body, most=10**9)[:2], echoed

    def _stream(self, peer: Peer, path: str, body: bytes, most: int = 1024) -> Said:
        if len(body) > most:
            return "4.13", "", ()
        try:
            readings = json.loads(body)
        except ValueError:
            return "4.00", "no JSON", ()
        if self.judge is not None and (refusal := self.judge(body)) is not None:
            return refusal, "", ()
        self.bodies.append(body)
        self.streamed.append((peer.identity, path, readings))
        return "2.04", "", ()

    def _is_too_fast(self, identity: str) -> bool:
        now_s = asyncio.get_running_loop().time()
        times = self._times.setdefault(identity, deque(maxlen=21))
        times.append(now_s)
        return len(times) == 21 and times[-1] - times[0] < 0.98  # timers of a loop have a grain


@asynccontextmanager
async def fake_golioth(**fields: Any) -> AsyncIterator[FakeGolioth]:
    fake = FakeGolioth(**fields)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: fake, local_addr=("127.0.0.1", 0))
    try:
        yield fake
    finally:
        transport.close()


def made(
    fake: FakeGolioth | None = None, clock: ManualClock | None = None, *, egress: Egress = ANYWHERE, **settings: Any
) -> Golioth:
    raw = BASE | ({} if fake is None else {"port": fake.port}) | settings
    if "mode" not in settings:
        raw = MINE | raw
    return Golioth(Golioth.Config.model_validate(raw), clock or ManualClock(NOW_MS), egress)


def per_device(*devices: str, **keys: str) -> dict[str, Any]:
    key_of = {name: keys.get(name, PSK) for name in devices}
    table = {name: {"psk_id": f"{name}@{PROJECT}", "psk": key} for name, key in key_of.items()}
    return {"mode": "per_device", "device_keys": table, "organizations": ("default",)}


def known(*devices: str) -> dict[str, str]:
    return {f"{name}@{PROJECT}": PSK for name in devices}
