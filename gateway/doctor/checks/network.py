"""Whether boards on the network can reach the broker at all, and where."""

from contextlib import suppress
from ipaddress import ip_address

from gateway.doctor.evidence import Evidence
from gateway.doctor.listeners import listeners, named
from gateway.doctor.sockets import own_address
from gateway.model.finding import Finding, fine, warning


async def network(evidence: Evidence) -> list[Finding]:
    """Look at the address that is listened on, this machine's own, and a firewall."""
    mqtt = named(evidence, "mqtt.port")
    if mqtt is None:
        return []
    if _is_loopback(mqtt.host):
        hint = 'Set mqtt.host = "0.0.0.0" if boards are to connect from the network.'
        return [warning(f"MQTT listens on {mqtt.host} only: no board on the network reaches it.", hint)]
    address = own_address()
    if address is None:
        return [warning("This machine has no route to any network.", "Plug the cable in, or see: nmcli, ip address.")]
    found = [fine(f"Boards reach MQTT at {address}, port {mqtt.port}.")]
    if _has_ufw(evidence):
        allowed = " ".join(f"ufw allow {one.port}/tcp;" for one in listeners(evidence) if not _is_loopback(one.host))
        found.append(
            warning("The firewall ufw is on.", f"See that it lets boards in: sudo ufw status. If not: {allowed}")
        )
    return found


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _has_ufw(evidence: Evidence) -> bool:
    with suppress(OSError):
        settings = (evidence.machine.etc / "ufw/ufw.conf").read_text("utf-8")
        return any(line.replace(" ", "").lower() == "enabled=yes" for line in settings.splitlines())
    return False
