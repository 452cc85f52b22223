"""Whether each port is the gateway's: listened on, reached, and not somebody else's."""

import asyncio
import os
from ipaddress import ip_address

from gateway.daemon_thread import in_daemon_thread
from gateway.doctor.evidence import Evidence
from gateway.doctor.listeners import Listener, listeners
from gateway.doctor.sockets import Listening, listening, owner
from gateway.model.finding import Finding, broken, fine, warning

_PATIENCE_S = 3.0


async def ports(evidence: Evidence) -> list[Finding]:
    """Look at each port that is switched on."""
    open_now = await in_daemon_thread(lambda: listening(evidence.machine.proc))
    return list(await asyncio.gather(*(_port(one, open_now, evidence) for one in listeners(evidence))))


async def _port(one: Listener, open_now: list[Listening], evidence: Evidence) -> Finding:
    there = next((other for other in open_now if other.port == one.port and _meets(one.host, other.address)), None)
    where = f"Port {one.port} ({one.setting})"
    if there is None:
        return await _free(one, where, evidence)
    pid, who = await in_daemon_thread(lambda: owner(there, evidence.machine.proc))
    ours = None if evidence.vitals is None else evidence.vitals.pid
    if ours is None and pid is None and there.uid == _gateway_uid(evidence):
        return warning(
            f"{where} is taken by {who}, perhaps the gateway: this user may not see that.",
            f"Run this as that user: sudo -u {evidence.data_dir.owner} neurogate doctor",
        )
    if ours is None or (pid is not None and pid != ours):
        end = f"perhaps: systemctl stop {who.split()[0]}" if pid is not None else "sudo ss -ltnp shows its name"
        return broken(f"{where} is taken by {who}.", f"Stop it ({end}), or set {one.setting}.")
    return await _reached(one, where)


def _gateway_uid(evidence: Evidence) -> int | None:
    """Return the user whose data directory it is; None when there is none, or nobody may know."""
    try:
        return evidence.data_dir.path.stat().st_uid
    except OSError:
        return None


async def _free(one: Listener, where: str, evidence: Evidence) -> Finding:
    if evidence.is_running:
        return broken(f"{where} is not listened on, though the gateway runs.", "See its log, and restart it.")
    least = _first_free_port(evidence)
    if one.port < least and os.geteuid() != 0:
        return warning(
            f"{where} is free, but ports below {least} are for root.",
            f"Set {one.setting} to one above, or let the service have CAP_NET_BIND_SERVICE.",
        )
    return fine(f"{where} is free.")


async def _reached(one: Listener, where: str) -> Finding:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            _, writer = await asyncio.open_connection(one.local, one.port)
    except (OSError, TimeoutError) as error:
        why = getattr(error, "strerror", None) or "no answer"
        return broken(f"{where} takes no connection: {why}.", "See the gateway's log; if it hangs, restart it.")
    writer.close()
    return fine(f"{where} is the gateway's and takes connections.")


def _meets(host: str, address: str) -> bool:
    """Whether somebody who listens on `address` keeps us from listening on `host`."""
    try:
        ours, theirs = ip_address(host), ip_address(address)
    except ValueError:  # a name
        return True
    return ours == theirs or ours.is_unspecified or theirs.is_unspecified


def _first_free_port(evidence: Evidence) -> int:
    try:
        return int((evidence.machine.proc / "sys/net/ipv4/ip_unprivileged_port_start").read_text("ascii"))
    except (OSError, ValueError):
        return 1024
