"""One installation to be tested: a folder with configuration, registered devices and a data directory."""

from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path

from gateway.clock import SystemClock
from gateway.storage.data_dir import DataDir, load_or_create_key
from gateway.storage.state import DeviceCredential, State
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
"""Where the packages are, for processes that run elsewhere."""

SECRET = f"whsec_{b64encode(bytes(range(32))).decode()}"

_CONFIG = """\
version = 1

[gateway]
id = "storm"
data_dir = "data"

[mqtt]
host = "127.0.0.1"
port = {mqtt_port}
websocket_port = 0
tls_port = 0

[http]
host = "127.0.0.1"
port = {http_port}
tls_port = 0

[storage]
synchronous = "{synchronous}"

[egress]
policy = "any"

[log]
level = "info"
format = "json"
"""

_WEBHOOK = """
[[integrations]]
type = "webhook"
name = "{name}"
url = "http://127.0.0.1:{port}/"
secret = "${{file:webhook.secret}}"
start = "oldest"
rate_limit_per_minute = 0
"""


@dataclass(slots=True)
class Site:
    """`webhooks` are ports by name. The gateway's own ports stay the same over restarts."""

    folder: Path
    webhooks: dict[str, int] = field(default_factory=dict)
    synchronous: str = "full"
    mqtt_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)

    @property
    def config(self) -> Path:
        """The configuration, after `write`."""
        return self.folder / "neurogate.toml"

    @property
    def secret(self) -> Path:
        """What signs the webhooks, after `write`."""
        return self.folder / "webhook.secret"

    @property
    def data_dir(self) -> DataDir:
        """The gateway's own files."""
        return DataDir(self.folder / "data")

    def write(self) -> None:
        """Write configuration and secret."""
        self.secret.write_text(SECRET)
        tables = [_WEBHOOK.format(name=name, port=port) for name, port in self.webhooks.items()]
        ports = {"mqtt_port": self.mqtt_port, "http_port": self.http_port}
        self.config.write_text("".join([_CONFIG.format(synchronous=self.synchronous, **ports), *tables]))

    async def add_devices(self, count: int) -> list[DeviceCredential]:
        """Register `board-00`, `board-01`, …, as `neurogate device add` does."""
        data_dir = self.data_dir.ensure()
        key = load_or_create_key(data_dir.password_key)
        async with State.open(data_dir.state_db, key, clock=SystemClock()) as state:
            return [await state.add_device("default", f"board-{number:02}") for number in range(count)]
