"""A process that tells what is handed in: `python -m tests.cloud_sync.notifications.killed FOLDER URL COUNT`.

It hands in so many, prints the id of each as soon as that is on disk, and ends when all are sent, unless it is killed.
"""

import asyncio
import sys
from pathlib import Path

from cloud_sync.integrations.webhook import Webhook
from cloud_sync.notifier import Notifier
from gateway.clock import SystemClock
from gateway.config import NotificationSettings
from gateway.metrics import Metrics
from gateway.storage.notification_rows import NewNotification
from gateway.storage.state import State
from gateway.supervisor import Supervisor
from tests.cloud_sync.notifications.desk import Channel, Channels
from tests.cloud_sync.samples import ANYWHERE


async def main(folder: Path, url: str, count: int) -> None:
    clock, metrics = SystemClock(), Metrics()
    config = Webhook.Config.model_validate({"type": "webhook", "name": "hook", "url": url, "rate_limit_per_minute": 0})
    settings = NotificationSettings(alone=20, digest_interval_s=0.05, first_wait_s=0.01)
    async with (
        State.open(folder / "state.db", b"k" * 32, clock=clock) as state,
        Webhook(config, clock, ANYWHERE) as webhook,
    ):
        channel = Channel(name="hook")
        channel.config, channel.integration = config, webhook
        channels = Channels([channel])
        keep_running = Supervisor(metrics).keep_running
        notifier = Notifier(channels, state, settings, keep_running, clock, metrics, gateway_id="site-1")
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(notifier.run())
            for n in range(count):
                accepted = await notifier.send(NewNotification("default", "hook", "", f"number {n}"))
                print(accepted.added.id, flush=True)
            while await notifier.log.waiting_integrations():  # noqa: ASYNC110 - another process looks on
                await asyncio.sleep(0.02)
            running.cancel()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
