"""POST signed batches of readings to any HTTP receiver.

The body is `{"type":"readings.batch","gateway_id":…,"readings":[…]}`. The very bytes that are sent are
signed: by Standard Webhooks 1.0 and, for existing receivers, in `X-Webhook-Signature`. `webhook-id` is the
same on every retry. Redirects are not followed, and of an answer only 2 KB are read, to say why it refused.
"""

from typing import Self

from pydantic import ConfigDict, Field, HttpUrl, SecretStr, field_validator
from pydantic_core import to_json

from cloud_sync.contract import Batch, Forwards, Integration, IntegrationConfig, Outcome
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.signed_post import SignedPost, without_credentials
from cloud_sync.signing import standard_webhooks
from gateway.clock import Clock
from gateway.model.reading import wire_reading


class Webhook(Integration, Forwards):
    """POST signed batches of readings to any HTTP receiver."""

    type = "webhook"

    class Config(IntegrationConfig):
        """Settings of a webhook."""

        model_config = ConfigDict(hide_input_in_errors=True)

        url: HttpUrl = Field(description="Where the batches go.")
        secret: SecretStr | None = Field(
            None, description="Signs the body: `whsec_` and base64, or any text; 24 to 64 bytes."
        )

        @field_validator("url")
        @classmethod
        def _no_credentials(cls, url: HttpUrl) -> HttpUrl:
            return without_credentials(url)

        @field_validator("secret")
        @classmethod
        def _is_a_key(cls, secret: SecretStr | None) -> SecretStr | None:
            if secret is not None:
                standard_webhooks.parse_secret(secret.get_secret_value())
            return secret

    def __init__(self, config: Config, clock: Clock, egress: Egress) -> None:
        super().__init__(config, clock, egress)
        secret = config.secret.get_secret_value() if config.secret else ""
        self._post = SignedPost(str(config.url), secret, clock, egress, timeout_s=config.timeout_s)

    async def __aenter__(self) -> Self:
        """Open the session; connections are made when there is something to send."""
        await self._post.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the session."""
        await self._post.__aexit__(*exc)

    def encode(self, batch: Batch) -> bytes:
        """Return the body. An infinity, which JSON cannot express, becomes null."""
        gateway_id, log_uuid = batch.gateway_id, batch.log_uuid
        # One at a time: no other thread gets on while a call into the encoder lasts.
        readings = [
            to_json(wire_reading(reading, gateway_id=gateway_id, log_uuid=log_uuid), inf_nan_mode="null")
            for reading in batch.readings
        ]
        frame = to_json({"type": "readings.batch", "gateway_id": gateway_id, "readings": []})
        return b"".join((frame.removesuffix(b"]}"), b",".join(readings), b"]}"))

    async def send(self, batch: Batch, body: bytes) -> Outcome:
        """Post it once and classify the answer."""
        return await self._post.send(batch.id, body)
