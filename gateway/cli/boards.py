"""Simulated boards of a gateway that runs in this process, with logins that outlive it."""

import json
import os
from itertools import cycle
from pathlib import Path

from gateway.app import Gateway
from gateway.model.errors import AlreadyExists, NeurogateError
from gateway.sources.simulator import SimulatedSensor

_LOCATIONS = ("kitchen", "hall", "office", "bedroom", "bathroom", "workshop", "cellar", "attic")


async def simulated_boards(gateway: Gateway, logins_file: Path, count: int) -> list[SimulatedSensor]:
    """Return `sim-01`, `sim-02`, …; the gateway learns those whose login is not kept from an earlier run.

    The file is what each board would keep in its flash: username and password by device.
    """
    logins = _logins(logins_file)
    names = [f"sim-{number:02}" for number in range(1, count + 1)]
    for name, location in zip(names, cycle(_LOCATIONS), strict=False):
        try:
            credential = await gateway.add_device(name, metadata={"location": location})
        except AlreadyExists:
            if name in logins:
                continue
            raise NeurogateError(
                f"{logins_file} has no password of {name}.",
                hint=f"Revoke it: neurogate device revoke {name}. It is made again at the next start.",
            ) from None
        logins[name] = [credential.username, credential.password]
        write_private(logins_file, json.dumps(logins, indent=2))
    port = (await gateway.status()).mqtt_port
    return [SimulatedSensor(name, *logins[name], port=port, seed=seed) for seed, name in enumerate(names)]


def _logins(file: Path) -> dict[str, list[str]]:
    logins: dict[str, list[str]] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return logins


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
