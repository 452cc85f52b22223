"""Events as the CloudEvents project's own SDK reads and writes them."""

import json
from datetime import UTC, datetime
from pathlib import Path

from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_http
from cloudevents.core.formats.json import JSONFormat

from cloud_sync.contract import Batch
from cloud_sync.payload.cloud_events import BATCH, STRUCTURED, _event, batched, structured
from cloud_sync.payload.readings_batch import wire_readings
from tests.cloud_sync.samples import NOW_MS, batch, stored

VECTOR = json.loads(Path(__file__).with_name("cloudevents_http.json").read_text("utf-8"))


def read(body: bytes) -> BaseCloudEvent:
    return from_http(HTTPMessage({"content-type": STRUCTURED}, body), JSONFormat())


def test_the_sdk_reads_one_event_a_request() -> None:
    event = read(structured(batch(1)))
    assert event.get_specversion() == "1.0"
    assert event.get_id() == "site-1:log-1:1"
    assert event.get_source() == "/gateways/site-1"
    assert event.get_type() == "com.netneural.reading.v1"
    assert event.get_subject() == "esp32-kitchen"
    assert event.get_time() == datetime.fromtimestamp(NOW_MS / 1000, UTC)
    assert event.get_datacontenttype() == "application/json"
    assert event.get_data() == next(wire_readings(batch(1)))


def test_the_sdk_reads_every_event_of_a_batch() -> None:
    body = batched(batch(3))
    events = [read(json.dumps(one).encode()) for one in json.loads(body)]
    assert [event.get_id() for event in events] == ["site-1:log-1:1", "site-1:log-1:2", "site-1:log-1:3"]
    assert events[0].get_data() == next(wire_readings(batch(1)))
    assert batched(batch(3)) == body


def test_an_event_looks_as_the_sdk_writes_it() -> None:
    given = VECTOR["event"]
    event = _event({"id": given["id"], "time": given["time"], "device_id": given["subject"]}, "gw-1")
    assert event | {"data": given["data"]} == json.loads(VECTOR["structured"]["body"])
    assert list(event) == list(json.loads(VECTOR["structured"]["body"]))
    assert VECTOR["structured"]["headers"] == {"content-type": STRUCTURED}
    assert BATCH == "application/cloudevents-batch+json"


def test_p4_whatever_json_a_device_sent_is_an_event() -> None:
    odd = {"sensors": {}, "big": 10**30, "text": "\x00\U0001f600", "huge": float("inf")}
    data = read(structured(Batch("msg_1", [stored(1, odd)], "site-1", "log-1"))).get_data()
    assert isinstance(data, dict)
    assert (data["big"], data["text"], data["huge"]) == (10**30, "\x00\U0001f600", None)
