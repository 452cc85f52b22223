"""`neurogate` with a destination, `crashes`, that breaks down over its own settings, as a defect of ours might."""

from typing import Any

from cloud_sync.contract import Batch, Outcome
from cloud_sync.integrations.webhook import Webhook
from gateway.cli import main

_REAL_SEND = Webhook.send


async def _send(self: Any, batch: Batch, body: bytes) -> Outcome:
    if self.config.name != "crashes":
        return await _REAL_SEND(self, batch, body)
    config: Webhook.Config = self.config
    token = config.auth_token.get_secret_value() if config.auth_token else ""
    try:
        raise KeyError(f"https://user:{token}@example.org/?token={token}")  # noqa: TRY301 - a cause, too
    except KeyError as error:
        raise RuntimeError(f"{self!r} {config!r} {config}") from error


if __name__ == "__main__":
    Webhook.send = _send  # type: ignore[method-assign]
    main()
