"""Flashing, step by step: a board that was blank, or had an older release, sends readings afterwards.

- everything that can be known before the board is touched is checked before
- a board that is this device already keeps its credential, its calibration, its settings and the readings that wait
- a step that fails says what to do; run again, it goes on: what is on the board already is not copied twice
- a board's first login is written before its program, so what fails later costs no second registration
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gateway.model.errors import AlreadyExists
from gateway.model.topics import is_name
from gateway.provisioning.board import Board, Facts, File
from gateway.provisioning.credential import Credential, GatewayLink
from gateway.provisioning.errors import FlashFailed
from gateway.provisioning.image import check_image, write_image
from gateway.provisioning.ports import check_port, find_port
from gateway.provisioning.reachable import Address, check_reachable
from gateway.provisioning.release import MPY_VERSION, SLOT, compiled

_CONFIG, _CA, _SLOT_FILE = "/config.json", "/ca.der", "/slot.json"
_OLDEST = (1, 27)
_SPARE_BLOCKS = 8
_POLL_S = 1.0
_SHOWN_LINES = 15


class Shown(Protocol):
    """Who tells the person how far it is."""

    def step(self, words: str) -> None:
        """Something begins, or has ended."""
        ...

    def progress(self, done: int, total: int) -> None:
        """So many of so many bytes are copied."""
        ...


@dataclass(slots=True, frozen=True)
class Wifi:
    """The network of a board."""

    ssid: str
    password: str = field(repr=False)


@dataclass(slots=True, frozen=True)
class Order:
    """What is wanted."""

    port: str
    device_id: str = ""
    """Empty: the one that the board has, or one after the chip's number."""
    metadata: dict[str, str] = field(default_factory=dict)
    replace: bool = False
    """Whether a board that is not this device yet may become it, with a new password."""
    wifi: Wifi | None = None
    """None: as the board has it."""
    image: Path | None = None
    sha256: str = ""
    firmware: Path | None = None
    wait_s: float = 90


def flash(
    order: Order,
    address: Address,
    link: GatewayLink | Credential,
    shown: Shown,
    *,
    ask_wifi: Callable[[], Wifi | None] = lambda: None,
) -> dict[str, Any] | None:
    """Carry out an order; return the first reading. With a credential alone nobody is asked, and None is returned.

    Raises FlashFailed, and what the gateway answers.
    """
    port = find_port(order.port)
    check_port(port)
    release = compiled(order.firmware)
    if not isinstance(link, Credential):
        check_reachable(address)
    shown.step(f"The board will send to {address}.")
    if order.image is not None:
        check_image(order.image, order.sha256)
        shown.step(f"MicroPython is written to {port}; that takes a minute.")
        write_image(port, order.image)
        time.sleep(3)  # the board's first start makes its file system
    with Board.open(port) as board:
        facts = board.facts()
        _check(facts)
        shown.step(f"{facts.machine} with MicroPython {'.'.join(map(str, facts.version))} on {port}")
        there = board.files()
        old = _old_config(board, there)
        wifi = order.wifi or _old_wifi(old) or ask_wifi()
        if wifi is None:
            raise FlashFailed(
                "The board does not know a Wi-Fi network.",
                hint="Name it: --wifi NAME. Its password: NEUROGATE_WIFI_PASSWORD, --wifi-password-file, or asked for.",
            )
        missing = {path: content for path, content in release.items() if _differs(there.get(path), content)}
        _check_space(facts, there, missing, release)
        credential = _credential(order, facts, old, link, shown)
        _write_config(board, there, address, wifi, credential)
        _write_release(board, there, release, missing, shown)
        before = None if isinstance(link, Credential) else link.newest_reading(credential.device_id)
        shown.step(f"{credential.device_id} starts.")
        board.reset()
        if isinstance(link, Credential):
            return None
        secrets = (wifi.password, credential.password)
        return _first_reading(board, link, credential.device_id, before, order.wait_s, secrets)


def _check(facts: Facts) -> None:
    chip = facts.machine.rpartition("with ")[2]
    if facts.platform != "esp32" or chip != "ESP32":
        raise FlashFailed(
            f"This is another chip: {facts.machine}.", hint="The pins and the program are those of an ESP32 (WROOM-32)."
        )
    if facts.version < _OLDEST or facts.mpy != MPY_VERSION:
        raise FlashFailed(
            f"The board's MicroPython {'.'.join(map(str, facts.version))} does not fit: "
            f"{'.'.join(map(str, _OLDEST))} or newer is needed, which takes compiled files of version {MPY_VERSION}.",
            hint="Write a newer one: --image FILE --sha256 SUM",
        )


def _differs(there: File | None, content: bytes) -> bool:
    return there is None or there.sha256 != hashlib.sha256(content).hexdigest()


def _check_space(facts: Facts, there: dict[str, File], missing: dict[str, bytes], release: dict[str, bytes]) -> None:
    def blocks(size: int) -> int:
        return size // facts.block + 2  # LittleFS keeps a little of each file beside its content

    needed = sum(blocks(len(content)) for content in missing.values())
    given_back = sum(
        blocks(file.size) for path, file in there.items() if path in missing or _is_left_over(path, release)
    )
    if (needed - given_back + _SPARE_BLOCKS) * facts.block > facts.free:
        raise FlashFailed(
            f"The board's flash has {facts.free:,} bytes left, which is not enough.",
            hint="Look what else lies there: mpremote fs ls. A module with 4 MB of flash has room for all of this.",
        )


def _is_left_over(path: str, release: dict[str, bytes]) -> bool:
    """Whether a file is of an older release."""
    return path.startswith("/slots/") and path not in release


def _old_config(board: Board, there: dict[str, File]) -> dict[str, Any]:
    if _CONFIG not in there:
        return {}
    try:
        found = json.loads(board.read(_CONFIG) or b"")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _old_wifi(config: dict[str, Any]) -> Wifi | None:
    match config.get("wifi"):
        case {"ssid": str(ssid), "password": str(password)}:
            return Wifi(ssid, password)
        case _:
            return None


def _old_credential(config: dict[str, Any]) -> Credential | None:
    match config:
        case {
            "organization_id": str(organization_id),
            "device_id": str(device_id),
            "mqtt": {"username": str(username), "password": str(password)},
        }:
            return Credential(organization_id, device_id, username, password)
        case _:
            return None


def _credential(
    order: Order, facts: Facts, old_config: dict[str, Any], link: GatewayLink | Credential, shown: Shown
) -> Credential:
    if isinstance(link, Credential):
        return link
    old = _old_credential(old_config)
    if old is not None and order.device_id in ("", old.device_id) and not order.replace:
        shown.step(f"The board is {old.device_id} already, and keeps its login.")
        return old
    device_id = order.device_id or f"esp32-{facts.unique_id[-6:]}"
    if not is_name(device_id):
        raise FlashFailed(f"{device_id} is no name for a device.", hint="Use letters, digits and _ . : - in it.")
    try:
        credential = link.register(device_id, order.metadata)
    except AlreadyExists:
        if not order.replace:
            raise FlashFailed(
                f"{device_id} is registered already, and this board does not have its login.",
                hint="Give the board another name, or let it take the other's place: --replace",
            ) from None
        credential = link.renew(device_id)
    shown.step(f"{device_id} is registered at the gateway.")
    return credential


def _write_config(board: Board, there: dict[str, File], address: Address, wifi: Wifi, credential: Credential) -> None:
    if address.ca_der is not None:
        if _differs(there.get(_CA), address.ca_der):
            board.write(_CA, address.ca_der)
    else:
        board.remove(_CA)
    document = {
        "gateway": address.document,
        "wifi": {"ssid": wifi.ssid, "password": wifi.password},
        "mqtt": {"username": credential.username, "password": credential.password},
        "device_id": credential.device_id,
        "organization_id": credential.organization_id,
    }
    config = json.dumps(document).encode()
    if _differs(there.get(_CONFIG), config):
        board.write(_CONFIG, config)


def _write_release(
    board: Board, there: dict[str, File], release: dict[str, bytes], missing: dict[str, bytes], shown: Shown
) -> None:
    for path in there:
        if _is_left_over(path, release) or path in ("/board.py", "/main.mpy", "/boot.mpy"):  # would come first
            board.remove(path)
    total = sum(len(content) for content in missing.values())
    done = 0

    def tell(size: int) -> None:
        nonlocal done
        done += size
        shown.progress(done, total)

    if missing:
        shown.progress(0, total)
    for path, content in missing.items():
        board.write(path, content, tell)
    slot = {"active": SLOT.rpartition("/")[2], "confirmed": True, "starts": 0}
    board.write(_SLOT_FILE, json.dumps(slot).encode())
    now = board.files()
    if wrong := [path for path, content in release.items() if _differs(now.get(path), content)]:
        raise FlashFailed(
            f"{', '.join(wrong)} is not on the board as it was sent.",
            hint="Flash it again; if it stays, its flash is worn.",
        )
    shown.step(f"{len(release)} files are on the board, {len(missing)} of them new; all compared by their hashes.")


def _first_reading(
    board: Board,
    link: GatewayLink,
    device_id: str,
    before: dict[str, Any] | None,
    wait_s: float,
    secrets: tuple[str, ...],
) -> dict[str, Any]:
    said = ""
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        said += board.console(_POLL_S)
        newest = link.newest_reading(device_id)
        if newest is not None and (before is None or newest["id"] != before["id"]):
            return newest
    for secret in filter(None, secrets):
        said = said.replace(secret, "***")
    lines = [line for line in said.splitlines() if line.strip()][-_SHOWN_LINES:]
    shown = "".join(f"\n    {line}" for line in lines) or " nothing"
    raise FlashFailed(
        f"No reading of {device_id} came in within {wait_s:g} s. The board says:{shown}",
        hint="Everything is on it, and it goes on trying. Wi-Fi: name and password (2.4 GHz only). Login refused: flash"
        " it again with --replace. Then: neurogate device logs",
    )
