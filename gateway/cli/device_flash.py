"""`neurogate device flash` and `logs`: a board on this machine's USB, by the gateway on this machine or another one.

The options are those of gateway/provisioning/wishes.py, which scripts/flash has too.
"""

import asyncio
import os
import socket
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from gateway.cli.gateway_link import ask, connect
from gateway.cli.progress import ProgressShown
from gateway.config import Settings, TlsSettings, load
from gateway.model.errors import GatewaySilent
from gateway.model.status import GatewayStatus
from gateway.operations import certificates, devices
from gateway.operations.readings import read_readings
from gateway.operations.status import gateway_status
from gateway.provisioning.credential import Credential
from gateway.provisioning.errors import FlashFailed
from gateway.provisioning.flash import flash as flash_board
from gateway.provisioning.reachable import Address, authority_der
from gateway.provisioning.wishes import address_of, ask_wifi, named_gateway, order_of, outcome, parser
from gateway.storage.state import DeviceCredential


def flash(arguments: Sequence[str]) -> None:
    """Put the program on an ESP32, register it, and wait for its first reading."""
    asked = parser("neurogate device flash", has_gateway=True).parse_args(arguments)
    address, link = named_gateway(asked) or _own_gateway(asked)
    order = order_of(asked)
    with _Shown() as shown:
        reading = flash_board(order, address, link, shown, ask_wifi=ask_wifi)
    print(outcome(reading))


class _Shown(ExitStack):
    """Lines, and a bar while something is copied."""

    _bar: ProgressShown | None = None

    def step(self, words: str) -> None:
        self.close()
        self._bar = None
        print(words, file=sys.stderr, flush=True)

    def progress(self, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = self.enter_context(ProgressShown("copied", "bytes"))
        self._bar.update(done, total)


class _ControlSocket:
    """The gateway on this machine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._organization_id = settings.gateway.organization_id

    def register(self, device_id: str, metadata: dict[str, str]) -> Credential:
        return _credential(
            ask(
                self._settings,
                devices.add_device,
                organization_id=self._organization_id,
                device_id=device_id,
                metadata={**metadata},
            )
        )

    def renew(self, device_id: str) -> Credential:
        return _credential(
            ask(
                self._settings,
                devices.rotate_device,
                organization_id=self._organization_id,
                device_id=device_id,
            )
        )

    def newest_reading(self, device_id: str) -> dict[str, Any] | None:
        page = ask(self._settings, read_readings, organization_id=self._organization_id, device_id=device_id, limit=1)
        return page.readings[0] if page.readings else None


def _credential(new: DeviceCredential) -> Credential:
    return Credential(new.organization_id, new.device_id, new.username, new.password)


def _own_gateway(asked: Namespace) -> tuple[Address, _ControlSocket]:
    """Return how a board reaches the gateway that runs here: over TLS, if that has it.

    Raises GatewaySilent when none does, and FlashFailed.
    """
    settings = load(asked.config, os.environ).settings
    status, ca_der = asyncio.run(_gateway(settings, is_tls_wanted=asked.ca is None and not asked.plain))
    host = f"{socket.gethostname().partition('.')[0]}.local"
    address = address_of(
        asked,
        host,
        mqtt_port=status.mqtt_port,
        mqtt_tls_port=status.mqtt_tls_port,
        http_port=status.http_port,
        ca_der=ca_der,
    )
    return address, _ControlSocket(settings)


async def _gateway(settings: Settings, *, is_tls_wanted: bool) -> tuple[GatewayStatus, bytes | None]:
    async with connect(settings) as gateway:
        if not gateway.is_live:
            raise GatewaySilent(
                "No gateway runs here, so no reading can arrive.",
                hint="Start it (neurogate run), name another one with --gateway URL, or ask nobody: --offline FILE.",
            )
        status = await gateway.call(gateway_status)
        if not status.mqtt_tls_port or not is_tls_wanted:
            return status, None
        _check_tls(settings.tls)
        known = await gateway.call(certificates.show_certificates)
        return status, authority_der("".join(one.pem for one in known if one.role != "server").encode())


def _check_tls(tls: TlsSettings) -> None:
    """Raise FlashFailed when what a board has is not enough for this gateway's TLS."""
    if tls.client_certificates == "required":
        raise FlashFailed(
            "Over TLS this gateway wants a certificate of every board, and the firmware shows none.",
            hint='Set tls.client_certificates = "optional", or do without TLS: --plain',
        )
    if tls.certificate_file:
        raise FlashFailed(
            "This gateway shows a certificate of your own; which CA is a board to know it by?",
            hint="Name it: --ca FILE. Or do without TLS: --plain",
        )
