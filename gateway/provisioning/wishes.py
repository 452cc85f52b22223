"""What a person may ask of flashing, as options: the same for `neurogate device flash` and `scripts/flash`.

A password is never an option, as everybody on the machine can read those: it comes from the environment, a file, or a
question on the terminal.
"""

import argparse
import getpass
import os
import sys
from pathlib import Path

from gateway.provisioning.credential import Credential, from_file
from gateway.provisioning.errors import FlashFailed
from gateway.provisioning.flash import Order, Wifi
from gateway.provisioning.gateway_api import GatewayApi
from gateway.provisioning.ports import AUTO
from gateway.provisioning.reachable import Address, authority_der

MQTT_PORT, MQTT_TLS_PORT, HTTP_PORT = 1883, 8883, 8080
_WIFI_PASSWORD, _TOKEN = "NEUROGATE_WIFI_PASSWORD", "NEUROGATE_TOKEN"


def parser(prog: str, *, has_gateway: bool) -> argparse.ArgumentParser:
    """Return the options; `has_gateway`: a gateway on this machine is asked unless another one is named."""
    options = argparse.ArgumentParser(
        prog=prog,
        description="Put the program on an ESP32, register it at the gateway, and wait for its first reading."
        " A board that was flashed before keeps its login, Wi-Fi, calibration and waiting readings.",
        allow_abbrev=False,
    )
    options.add_argument("--port", default=AUTO, help="serial port of the board; auto: the only one (default)")
    options.add_argument("--device", default="", help="its name (default: as it is, or esp32- and the chip's number)")
    options.add_argument("--metadata", metavar="KEY=VALUE", action="append", default=[], help="goes with its readings")
    options.add_argument("--replace", action="store_true", help="take the place of a board of that name: new password")
    options.add_argument("--wait", metavar="SECONDS", type=float, default=90.0, help="for the first reading")
    wifi = options.add_argument_group("Wi-Fi (2.4 GHz)")
    wifi.add_argument("--wifi", metavar="NAME", help=f"network; its password: ${_WIFI_PASSWORD}, a file, or asked for")
    wifi.add_argument("--wifi-password-file", metavar="FILE", type=Path)
    where = options.add_argument_group("the gateway")
    chosen = where.add_mutually_exclusive_group(required=not has_gateway)
    chosen.add_argument("--gateway", metavar="URL", help="ask it over HTTP, for example http://gateway.local:8080")
    chosen.add_argument("--offline", metavar="FILE", type=Path, help="ask nobody: what device add --json printed")
    where.add_argument("--token", help=f"an owner's or admin's; better: ${_TOKEN}")
    where.add_argument("--host", help="where the board finds it (default: the URL's host, or this machine.local)")
    where.add_argument("--mqtt-port", metavar="PORT", type=int)
    where.add_argument("--http-port", metavar="PORT", type=int, help="where the board may ask for the time")
    tls = where.add_mutually_exclusive_group()
    default = " (default: that of the gateway on this machine)" if has_gateway else ""
    tls.add_argument("--ca", metavar="FILE", type=Path, help=f"MQTT over TLS: the site's CA, PEM or DER{default}")
    if has_gateway:
        tls.add_argument("--plain", action="store_true", help="MQTT without TLS, although the gateway has it")
    where.add_argument("--server-name", default="", help="what its certificate is for, if not the host")
    if has_gateway:
        where.add_argument("-c", "--config", metavar="FILE", type=Path, help="its configuration, on this machine")
    chip = options.add_argument_group("MicroPython and program")
    chip.add_argument("--image", metavar="FILE", type=Path, help="write MicroPython first; new boards have none")
    chip.add_argument("--sha256", metavar="SUM", default="", help="of the image")
    chip.add_argument("--firmware", metavar="FOLDER", type=Path, help="sources of your own")
    return options


def order_of(asked: argparse.Namespace) -> Order:
    """Return what was asked for. Raises FlashFailed."""
    if (asked.image is None) != (not asked.sha256):
        raise FlashFailed(
            "--image and --sha256 go together.", hint="The sum stands beside the image on micropython.org/download."
        )
    metadata = {}
    for text in asked.metadata:
        name, separator, value = text.partition("=")
        if not separator or not name or not text.isprintable():
            raise FlashFailed(f"{text!r} is not KEY=VALUE.", hint="For example: --metadata room=kitchen")
        metadata[name] = value
    wifi = None if asked.wifi is None else Wifi(asked.wifi, _wifi_password(asked))
    return Order(
        port=asked.port,
        device_id=asked.device,
        metadata=metadata,
        replace=asked.replace,
        wifi=wifi,
        image=asked.image,
        sha256=asked.sha256,
        firmware=asked.firmware,
        wait_s=asked.wait,
    )


def _wifi_password(asked: argparse.Namespace) -> str:
    if asked.wifi_password_file is not None:
        return _read(asked.wifi_password_file).decode().rstrip("\r\n")
    if (password := os.environ.get(_WIFI_PASSWORD)) is not None:
        return password
    if sys.stdin.isatty():
        return getpass.getpass(f"Password of {asked.wifi}: ")
    raise FlashFailed(
        f"The password of {asked.wifi} is missing.", hint=f"Set {_WIFI_PASSWORD}, or name a --wifi-password-file."
    )


def ask_wifi() -> Wifi | None:
    """Ask the person, if there is one."""
    if not sys.stdin.isatty():
        return None
    ssid = input("Wi-Fi network (2.4 GHz): ").strip()
    return Wifi(ssid, getpass.getpass(f"Password of {ssid}: ")) if ssid else None


def named_gateway(asked: argparse.Namespace) -> tuple[Address, GatewayApi | Credential] | None:
    """Return the gateway that was named, and how it is asked; None when none was. Raises FlashFailed."""
    if asked.offline is not None:
        if not asked.host:
            raise FlashFailed("Where will the board find the gateway?", hint="--host ADDRESS")
        return address_of(asked, asked.host), from_file(asked.offline)
    if asked.gateway is None:
        return None
    token = asked.token or os.environ.get(_TOKEN, "")
    if not token:
        raise FlashFailed(
            "The gateway wants a token.", hint=f"On the gateway: neurogate token create; then set {_TOKEN}."
        )
    api = GatewayApi(asked.gateway, token, _pem(asked.ca))
    return address_of(asked, api.host, http_port=api.http_port), api


def address_of(
    asked: argparse.Namespace,
    host: str,
    *,
    mqtt_port: int = MQTT_PORT,
    mqtt_tls_port: int = MQTT_TLS_PORT,
    http_port: int = HTTP_PORT,
    ca_der: bytes | None = None,
) -> Address:
    """Return where the board will connect; what was asked for comes first. Raises FlashFailed.

    `ca_der` is what it knows the gateway by when no other CA was asked for; None: without TLS then.
    """
    if asked.ca is not None:
        ca_der = authority_der(_read(asked.ca))
    port = asked.mqtt_port or (mqtt_port if ca_der is None else mqtt_tls_port)
    return Address(asked.host or host, port, asked.http_port or http_port, ca_der, asked.server_name)


def _pem(ca: Path | None) -> str:
    text = "" if ca is None else _read(ca).decode("ascii", errors="replace")
    return text if "BEGIN CERTIFICATE" in text else ""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FlashFailed(f"{path} cannot be read: {error.strerror}.", hint="Name a file that you may read.") from None


def outcome(reading: dict[str, object] | None) -> str:
    """Say how flashing ended."""
    if reading is None:
        return "Done. Whether its readings arrive, nobody was asked: neurogate tail on the gateway shows it."
    sensors = reading.get("sensors")
    names = ", ".join(sensors) if isinstance(sensors, dict) else "none"
    return f"Done: the first reading of {reading.get('device_id')} is at the gateway ({names})."
