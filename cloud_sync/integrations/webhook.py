"""Send signed batches of readings, and notifications, to any HTTP receiver.

The body is `{"type":"readings.batch","gateway_id":…,"readings":[…]}`, or what a template or CloudEvents make of the
readings. The very bytes that are sent, compressed if so, are signed: by Standard Webhooks 1.0 and, for existing
receivers, in `X-Webhook-Signature`. `webhook-id` is the same on every retry. Connections go only where egress allows,
redirects are not followed, and of an answer only 2 KB are read, to say why it refused.

A notification goes out alike: by default as `{"type":"notification",…}`, see `payload/notification_body.py`.
"""

import gzip
from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, HttpUrl, JsonValue, field_validator, model_validator

from cloud_sync.contract import Batch, Forwards, Integration, Notification, Notifies, Outcome, Tests
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.custom_headers import check_headers, check_name, check_value, parsed_headers
from cloud_sync.integrations.http.line import HttpConfig
from cloud_sync.integrations.http.receiver_check import check_receiver
from cloud_sync.integrations.http.signed_post import SignedPost, without_credentials
from cloud_sync.payload import cloud_events
from cloud_sync.payload.notification_body import as_event, wire_notification
from cloud_sync.payload.notification_text import FIELDS, MessageTemplate, Notify, Writer, fields_of
from cloud_sync.payload.readings_batch import as_json, readings_batch
from cloud_sync.payload.template import PayloadTemplate, Template, filled
from cloud_sync.signing import standard_webhooks
from gateway.clock import Clock
from gateway.model.finding import Finding
from gateway.model.priorities import Priority
from gateway.model.secret import Secret

_BEARER = "Authorization"
_JSON = "application/json"
_AS_IT_IS = MessageTemplate(subject="{{subject}}", text="{{message}}")


class Webhook(Integration, Forwards, Notifies, Tests):
    """Send signed batches of readings, and notifications, to any HTTP receiver."""

    type = "webhook"

    class Config(HttpConfig):
        """Settings of a webhook."""

        model_config = ConfigDict(hide_input_in_errors=True)

        url: HttpUrl = Field(description="Where the batches go.", repr=False)  # there may be a token in it
        secret: tuple[Secret, ...] = Field(
            (),
            description="Signs the body: `whsec_` and base64, or any text; 24 to 64 bytes. While it is changed a list, "
            "the newest first: each of them signs.",
        )
        method: Literal["POST", "PUT", "PATCH"] = Field("POST", description="How they are sent.")
        content_type: str | None = Field(
            None, description="What the receiver is told the body is; by default `application/json`."
        )
        custom_headers: dict[str, Secret] = Field({}, description="Headers that each request has besides.")
        auth_token: Secret | None = Field(None, description="Sent as `Authorization: Bearer …`.")
        api_key: Secret | None = Field(None, description="Sent in the header that `api_key_header` names.")
        api_key_header: str = Field("X-API-Key", description="Header of the API key.")
        gzip: bool = Field(default=False, description="Compress the body; what is signed are the compressed bytes.")
        payload_template: PayloadTemplate = Field(
            None, description="The body as the receiver wants it: JSON with fields such as `{{device_id}}`."
        )
        cloudevents: Literal["structured", "batch"] | None = Field(
            None,
            description="Send CloudEvents 1.0: `structured` is one event a request, `batch` a list of them.",
        )
        notify: Notify = Field(
            Notify(kinds=()), description="Which notifications it gets by itself, and how: see its own settings."
        )
        notification_template: JsonValue = Field(
            None,
            description="The body of a notification as the receiver wants it: JSON with fields such as `{{message}}`.",
        )

        @field_validator("url")
        @classmethod
        def _no_credentials(cls, url: HttpUrl) -> HttpUrl:
            return without_credentials(url)

        @field_validator("secret", mode="before")
        @classmethod
        def _one_or_several(cls, secret: Any) -> Any:  # noqa: ANN401 - what stands in the file
            if secret is None:
                return ()
            return (secret,) if isinstance(secret, str | Secret) else secret

        @field_validator("secret")
        @classmethod
        def _are_keys(cls, secrets: tuple[Secret, ...]) -> tuple[Secret, ...]:
            for secret in secrets:
                standard_webhooks.parse_secret(secret.get_secret_value())
            return secrets

        @field_validator("content_type")
        @classmethod
        def _is_a_value(cls, content_type: str | None) -> str | None:
            if content_type is not None:
                check_value("content-type", Secret(content_type))
            return content_type

        @field_validator("custom_headers", mode="before")
        @classmethod
        def _or_as_text(cls, headers: Any) -> Any:  # noqa: ANN401 - what stands in the file
            return parsed_headers(headers)

        @field_validator("custom_headers")
        @classmethod
        def _can_be_sent(cls, headers: dict[str, Secret]) -> dict[str, Secret]:
            check_headers(headers)
            return headers

        @field_validator("auth_token", "api_key")
        @classmethod
        def _fits_in_a_header(cls, secret: Secret | None) -> Secret | None:
            if secret is not None:
                check_value("the header", secret)
                if not secret.get_secret_value():
                    raise ValueError("it is empty.")
            return secret

        @field_validator("api_key_header")
        @classmethod
        def _is_a_name(cls, name: str) -> str:
            check_name(name)
            return name

        @field_validator("notification_template")
        @classmethod
        def _is_one_of_notifications(cls, template: JsonValue) -> JsonValue:
            if template is not None:
                filled(template, FIELDS)
            return template

        @model_validator(mode="after")
        def _goes_together(self) -> Self:
            set_twice = {name.lower() for name in self.custom_headers} & {name.lower() for name in self._identity()}
            if set_twice:
                raise ValueError(f"{set_twice.pop()} is set twice, by custom_headers and by auth_token or api_key.")
            if None not in (self.auth_token, self.api_key) and self.api_key_header.lower() == _BEARER.lower():
                raise ValueError("Authorization is set twice, by auth_token and by api_key.")
            templates = (self.payload_template, self.notification_template)
            if self.cloudevents and (templates != (None, None) or self.content_type is not None):
                raise ValueError(
                    "cloudevents fixes the body: leave out payload_template, notification_template and content_type."
                )
            if self.batch_max_readings > 1 and self._one_by_one():
                raise ValueError(
                    "a request carries one reading: set batch_max_readings = 1, or send several with "
                    + ('cloudevents = "batch".' if self.cloudevents else '"$each_reading" in payload_template.')
                )
            return self

        def headers(self) -> dict[str, str]:
            """Return the headers that may hold secrets."""
            both = self.custom_headers | self._identity()
            return {name: value.get_secret_value() for name, value in both.items()}

        def _identity(self) -> dict[str, Secret]:
            identity = {}
            if self.auth_token is not None:
                identity[_BEARER] = Secret(f"Bearer {self.auth_token.get_secret_value()}")
            if self.api_key is not None:
                identity[self.api_key_header] = self.api_key
            return identity

        def _one_by_one(self) -> bool:
            if self.payload_template is not None:
                return Template(self.payload_template).is_for_one_reading
            return self.cloudevents == "structured"

    def __init__(self, config: Config, clock: Clock, egress: Egress) -> None:
        super().__init__(config, clock, egress)
        self._config = config
        self._write, content_type = _body(config)
        self._compresses = config.gzip
        self._writer = Writer(config.notify, _AS_IT_IS)
        headers = {"content-type": content_type} | ({"content-encoding": "gzip"} if config.gzip else {})
        self._post = SignedPost(
            str(config.url),
            [secret.get_secret_value() for secret in config.secret],
            clock,
            egress,
            timeout_s=config.timeout_s,
            method=config.method,
            headers=headers,
            private_headers=config.headers(),
            line=config.line(),
        )

    async def __aenter__(self) -> Self:
        """Open the session; connections are made when there is something to send."""
        await self._post.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the session."""
        await self._post.__aexit__(*exc)

    def encode(self, batch: Batch) -> bytes:
        """Return the body."""
        return self._compressed(self._write(batch))

    def _compressed(self, body: bytes) -> bytes:
        return gzip.compress(body, mtime=0) if self._compresses else body  # with a time it would differ each time

    async def send(self, batch: Batch, body: bytes) -> Outcome:
        """Send it once and classify the answer."""
        return await self._post.send(batch.id, body)

    def wants(self, kind: str, priority: Priority) -> bool:
        """Whether it is to be told by itself."""
        return self._config.notify.wants(kind, priority)

    def preview(self, notification: Notification) -> str:
        """Return the body, before it is compressed."""
        return self._notification_body(notification).decode()

    def _notification_body(self, notification: Notification) -> bytes:
        config = self._config
        written = self._writer.write(notification)
        if config.notification_template is not None:
            fields = fields_of(notification) | {"subject": written.subject, "message": written.text}
            return as_json(filled(config.notification_template, FIELDS)(fields))
        wire = wire_notification(notification) | {"subject": written.subject, "message": written.text}
        if config.cloudevents is None:
            return as_json(wire)
        return as_json(as_event(wire) if config.cloudevents == "structured" else [as_event(wire)])

    async def notify(self, notification: Notification) -> Outcome:
        """Send it once and classify the answer."""
        return await self._post.send(notification.id, self._compressed(self._notification_body(notification)))

    async def check(self) -> list[Finding]:
        """Go as far as a batch would, and there ask with OPTIONS, which no receiver takes for a reading."""
        url, config = str(self._config.url), self._config
        signs = bool(config.secret)
        return await check_receiver(url, self._post, config.method, self.clock, self.egress, signs=signs)


def _body(config: Webhook.Config) -> tuple[Callable[[Batch], bytes], str]:
    """Return what writes the body, and its media type."""
    if config.cloudevents == "structured":
        return cloud_events.structured, cloud_events.STRUCTURED
    if config.cloudevents == "batch":
        return cloud_events.batched, cloud_events.BATCH
    write = readings_batch if config.payload_template is None else Template(config.payload_template).encode
    return write, config.content_type or _JSON
