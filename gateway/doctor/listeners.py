"""Which ports the gateway is to listen on: one place for all checks that look at them."""

from dataclasses import dataclass

from gateway.doctor.evidence import Evidence

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - it is not listened on here


@dataclass(slots=True, frozen=True)
class Listener:
    """One port, by the setting that names it."""

    setting: str
    host: str
    port: int

    @property
    def local(self) -> str:
        """Where this machine reaches it."""
        return _ANY.get(self.host, self.host)

    @property
    def uses_tls(self) -> bool:
        """Whether TLS is spoken there."""
        return self.setting.endswith("tls_port")


def listeners(evidence: Evidence) -> list[Listener]:
    """Return those that are switched on; of one that takes any port the running gateway says which."""
    mqtt, http, status = evidence.settings.mqtt, evidence.settings.http, evidence.status
    found = [
        Listener("mqtt.port", mqtt.host, mqtt.port if status is None else status.mqtt_port),
        Listener("mqtt.tls_port", mqtt.host, mqtt.tls_port),
        Listener("mqtt.websocket_port", mqtt.host, mqtt.websocket_port),
        Listener("mqtt.websocket_tls_port", mqtt.host, mqtt.websocket_tls_port),
        Listener("http.port", http.host, http.port if status is None else status.http_port),
        Listener("http.tls_port", http.host, http.tls_port),
        Listener("http.websocket_port", http.host, http.websocket_port),
        Listener("http.metrics_port", http.host, http.metrics_port),
    ]
    return [one for one in found if one.port]


def named(evidence: Evidence, setting: str) -> Listener | None:
    """Return the listener of a setting; None when it is off."""
    return next((one for one in listeners(evidence) if one.setting == setting), None)
