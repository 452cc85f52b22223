"""Tell a Slack channel, by an incoming webhook, or whatever takes such, as Mattermost does.

Source: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks and, for the text,
https://docs.slack.dev/messaging/formatting-message-text: `&`, `<` and `>` of what is told are escaped, so that it calls
nobody and links nowhere. The address is the secret: it is shown to nobody. Slack knows no id of a message, so one whose
answer is lost may stand there twice.
"""

from typing import Self

from pydantic import ConfigDict, Field, HttpUrl, TypeAdapter, ValidationError, field_validator
from pydantic_core import to_json

from cloud_sync.contract import Integration, Notification, Notifies, Outcome, Tests
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.line import HttpConfig
from cloud_sync.integrations.http.receiver_check import check_receiver
from cloud_sync.integrations.http.signed_post import SignedPost, without_credentials
from cloud_sync.payload.notification_text import MessageTemplate, Notify, Writer
from gateway.clock import Clock
from gateway.model.finding import Finding
from gateway.model.priorities import Priority
from gateway.model.secret import Secret

_URL = TypeAdapter(HttpUrl)
_CHARACTERS = 40_000  # Slack cuts what is longer
_CUT = "\n… (cut; the whole is in the notification log)"
_USUAL = MessageTemplate(text="*{{title}}*\n{{body}}\n{{details}}\n_{{priority}}, {{gateway_id}}, {{time}}_")


class Slack(Integration, Notifies, Tests):
    """Tell a Slack channel."""

    type = "slack"

    class Config(HttpConfig):
        """Settings of a Slack channel."""

        model_config = ConfigDict(hide_input_in_errors=True)

        webhook_url: Secret = Field(description="The address of the incoming webhook; whoever has it may write there.")
        channel: str | None = Field(
            None, max_length=80, description="Another channel, such as `#alerts`: only old webhooks let it be chosen."
        )
        username: str | None = Field(None, max_length=80, description="Who writes: only for old webhooks.")
        icon_emoji: str | None = Field(
            None, pattern=r"^:[a-z0-9_+'-]+:$", description="A picture, such as `:bell:`: only for old webhooks."
        )
        notify: Notify = Field(Notify(), description="What it is told, and how: see its own settings.")

        @field_validator("webhook_url")
        @classmethod
        def _is_an_address(cls, secret: Secret) -> Secret:
            try:
                url = _URL.validate_python(secret.get_secret_value())
            except ValidationError:
                raise ValueError("it is no address such as https://hooks.slack.com/services/…") from None
            without_credentials(url)
            return secret

    def __init__(self, config: Config, clock: Clock, egress: Egress) -> None:
        super().__init__(config, clock, egress)
        self._config = config
        self._writer = Writer(config.notify, _USUAL, escaped)
        self._url = str(_URL.validate_python(config.webhook_url.get_secret_value()))
        self._post = SignedPost(self._url, (), clock, egress, timeout_s=config.timeout_s, line=config.line())

    async def __aenter__(self) -> Self:
        """Open the session; connections are made when there is something to send."""
        await self._post.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the session."""
        await self._post.__aexit__(*exc)

    def wants(self, kind: str, priority: Priority) -> bool:
        """Whether it is to be told by itself."""
        return self._config.notify.wants(kind, priority)

    def preview(self, notification: Notification) -> str:
        """Return the text, as Slack gets it."""
        return cut(self._writer.write(notification).text)

    async def notify(self, notification: Notification) -> Outcome:
        """Post it once and classify the answer."""
        config = self._config
        said = {"channel": config.channel, "username": config.username, "icon_emoji": config.icon_emoji}
        body = {"text": self.preview(notification)} | {name: value for name, value in said.items() if value}
        return await self._post.send(notification.id, to_json(body))

    async def check(self) -> list[Finding]:
        """Go as far as a message would, and there ask with OPTIONS, which posts nothing."""
        return await check_receiver(self._url, self._post, "POST", self.clock, self.egress, signs=None)


def escaped(text: str) -> str:
    """Return a text as Slack shows it literally."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def cut(text: str) -> str:
    """Return no more than Slack takes, and no half of an escape."""
    if len(text) <= _CHARACTERS:
        return text
    kept = text[: _CHARACTERS - len(_CUT)]
    begun = kept.rfind("&", -len("&amp;"))
    return (kept if begun < 0 or ";" in kept[begun:] else kept[:begun]) + _CUT
