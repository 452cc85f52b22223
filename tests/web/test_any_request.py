"""Whatever is asked, by whomever: no fault of ours, no answer that the document lacks, nothing of others, no secret.

schemathesis makes requests from the OpenAPI document, good ones and bad ones; every role of two organisations sends
them, and whoever has no token. `--hypothesis-profile thorough` takes many minutes.
"""

import json
import re
from collections.abc import Iterator
from http import HTTPStatus
from itertools import count
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.extent import THOROUGH, much
from tests.web.two_organizations import DESTINATION, NOWHERE, Organization, TwoOrganizations, running

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
OPEN = {"/health", "/ready", "/metrics"}
"""Without a token; `/metrics` for the networks that may."""
SOCKETS = {"/ws", "/mqtt"}
"""They log in once they have switched protocols."""

_PATIENCE_S = 20.0
_EXAMPLES = much(50, 2_000)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoOrganizations]:
    with running(tmp_path_factory.mktemp("gateway")) as site:
        yield site


@pytest.fixture(scope="module")
def document(gateway: TwoOrganizations) -> dict[str, Any]:
    asked = Request(gateway.url + "/api/openapi.json", headers=gateway.organizations[0].headers["member"])
    with urlopen(asked, timeout=_PATIENCE_S) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_without_a_token_nothing_is_told(gateway: TwoOrganizations, document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        answer = requests.request(
            method,
            gateway.url + re.sub(r"\{\w+\}", "x", path),
            headers={"Content-Type": "application/json"},
            data="{}",
            timeout=_PATIENCE_S,
        )
        if path in OPEN:
            assert answer.status_code == 200
        elif path in SOCKETS:
            assert answer.status_code == 400
        else:
            assert (answer.status_code, bool(operation["security"])) == (401, True), path


def test_both_prefixes_answer_the_same(document: dict[str, Any]) -> None:
    def under(prefix: str) -> dict[str, Any]:
        told = json.loads(json.dumps(document["paths"]))
        return {
            path.removeprefix(prefix): {
                method: operation | {"operationId": ""} for method, operation in methods.items()
            }
            for path, methods in told.items()
            if path.startswith(prefix)
        }

    assert under("/api/v1/") == under("/functions/v1/") != {}


_WHO = {"sensor-data": "a device's password", "golioth-webhook": "a pipeline of Golioth"}
"""Who asks, where it is nobody with a token."""


class Example(NamedTuple):
    """An example of the document, and what was answered."""

    path: str
    body: Any
    answer: requests.Response


@pytest.fixture(scope="module")
def examples(gateway: TwoOrganizations, document: dict[str, Any]) -> list[Example]:
    """Ask them, before anybody asks at random: a name is taken once."""
    askers = gateway.organizations[0].headers
    asked: list[Example] = []
    for method, path, operation in operations(document):
        # Under the other prefix the names would be taken, and what is gone would be gone for what comes next.
        if path.startswith("/functions/") or method == "DELETE" or path.endswith("transfer"):
            continue
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            who = askers[_WHO.get(path.rpartition("/")[2], "admin")]
            if "organizations" in path:
                who = gateway.headers
            for example in _examples(document, content["schema"]):
                answer = requests.request(
                    method,
                    gateway.url + path.replace("{id}", _id_in(path, gateway.organizations[0])),
                    json=_own(example, path, gateway.organizations[0]),
                    headers=who | {"Content-Type": media_type},
                    timeout=_PATIENCE_S,
                )
                asked.append(Example(path, example, answer))
    return asked


def test_every_body_has_an_example(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert [*_examples(document, content["schema"])], f"{method} {path} has none"


def test_every_example_of_the_document_works(examples: list[Example]) -> None:
    """With the right token the examples do what they say."""
    assert examples
    for path, example, answer in examples:
        assert answer.ok, f"{path}: {example}: {answer.text}"


def _id_in(path: str, organization: Organization) -> str:
    """Return what an organisation has where a path says `{id}`."""
    before, found, _ = path.partition("/{id}")
    return organization.ids[before.rpartition("/")[2]] if found else ""


def _examples(document: dict[str, Any], schema: dict[str, Any]) -> Iterator[Any]:
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    yield from schema.get("examples", ())
    for one in schema.get("oneOf", schema.get("anyOf", ())):
        yield from _examples(document, one)


def _own(example: Any, path: str, organization: Organization) -> Any:
    """Return an example in the names of what there is and what there is not yet, and let it lead nowhere."""
    names = {"esp32-kitchen": "only-of-alpha", "https://app.example.com/mqtt": NOWHERE, '"hub"': f'"{path[-4:]}"'}
    names["0b8f2c1e-7d7b-4f6e-9a55-3c1d2e4f5a6b"] = organization.ids["integrations"]
    text = json.dumps(example)
    for name, other in names.items():
        text = text.replace(name, other)
    own = json.loads(text)
    if "{id}" in path:
        own.pop("id", None)
    return own


@pytest.mark.usefixtures("examples")
@pytest.mark.timeout(much(240, 7_200))
def test_whatever_is_asked_is_answered_as_documented_and_with_nothing_of_others(
    gateway: TwoOrganizations, document: dict[str, Any]
) -> None:
    ours = {path: found for path, found in document["paths"].items() if not path.startswith("/functions/")}
    schema = schemathesis.openapi.from_dict(document | {"paths": ours})
    schema.config.generation.update(with_security_parameters=False)
    wrong: list[Exception] = []
    with requests.Session() as session:
        session.trust_env = False
        for found in schema.get_all_operations():
            assert isinstance(found, Ok)
            operation = found.ok()
            try:
                _ask(gateway, session, operation)
            except* Exception as group:  # noqa: BLE001 - the others are asked all the same
                group.add_note(operation.label)
                wrong.append(group)
    if wrong:
        raise ExceptionGroup("what was answered", wrong)


@pytest.mark.usefixtures("examples")
def test_no_log_line_holds_a_secret_or_tells_of_a_fault(gateway: TwoOrganizations) -> None:
    """Of all that has been asked: the examples, and in the order of this file the rest too."""
    for line in gateway.log:
        assert json.loads(line)["level"] in {"debug", "info", "warning"}, line
        assert "the OpenAPI document lacks" not in line
        for secret in gateway.secrets:
            assert secret not in line


def _ask(gateway: TwoOrganizations, session: requests.Session, operation: APIOperation[Any, Any, Any, Any]) -> None:
    """Ask one operation many things."""
    most = _WHO.get(operation.path.rpartition("/")[2], "admin")
    # Who may ask stands first, and more than once: most of what is refused is refused for the same reason.
    everybody: list[tuple[Organization | None, dict[str, str]]] = [(None, gateway.headers)] * 4
    everybody += [(one, one.headers[most]) for one in gateway.organizations] * 4
    everybody += [(one, headers) for one in gateway.organizations for headers in one.headers.values()]
    everybody.append((None, {}))
    strategies = [operation.as_strategy(generation_mode=GenerationMode.POSITIVE)]
    if operation.body or operation.query or operation.path_parameters:
        strategies.append(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    addresses = (f"10.0.{number // 256}.{number % 256}" for number in count())

    @settings(
        max_examples=_EXAMPLES,
        phases=(Phase.generate,),
        derandomize=not THOROUGH,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=st.one_of(strategies),
        who=st.sampled_from(everybody),
        target=st.sampled_from([None, *gateway.organizations]),
    )
    def ask(case: Case[Any], who: tuple[Organization | None, dict[str, str]], target: Organization | None) -> None:
        organization, headers = who
        _point_nowhere(case)
        is_aimed = target is not None and _aim(case, target, organization)
        headers = headers | {"X-Forwarded-For": next(addresses)}
        answer = case.call(gateway.url, session, headers=headers, timeout=_PATIENCE_S, allow_redirects=False)
        # What is aimed may have been wrong before, and is right now.
        checks = CHECKS if target is None else [one for one in CHECKS if one is not negative_data_rejection]
        case.validate_response(answer, checks=checks, headers=headers)
        is_foreign = target is not organization and not gateway.headers.items() <= headers.items()
        assert not (is_aimed and is_foreign and answer.status_code < HTTPStatus.BAD_REQUEST)
        said = answer.text + repr(answer.headers)
        for secret in gateway.secrets:
            assert secret not in said
        gateway.secrets.update(_newly_told(answer.json() if answer.content[:1] == b"{" else {}))
        if gateway.headers.items() <= headers.items() or operation.path == "/metrics":
            return  # who is of the site sees all of it; so do the networks that may have the metrics
        asked = f"{answer.request.url} {answer.request.body!r}"
        for other in gateway.organizations:
            assert other is organization or other.mark not in said or other.mark in asked

    ask()


def _point_nowhere(case: Case[Any]) -> None:
    """Let no callback go to whomever the name happens to belong to, and wait for no device that is not there."""
    if isinstance(case.body, dict) and "wait" in case.body:
        case.body["wait"] = False
    if isinstance(case.body, dict) and str(case.body.get("callback_url")).startswith("http"):
        case.body["callback_url"] = NOWHERE


def _aim(case: Case[Any], target: Organization, mine: Organization | None) -> bool:
    """Ask for what is somebody's, where it can be named; return whether nobody else may have it."""
    if isinstance(case.body, dict):
        # Not what is foreign in what is made: it would be one's own then, and told.
        # Nor a device that others ask with: those that are changed or revoked are lent.
        device_id = (mine or target).mark
        if case.path.split("/")[-1] != "metadata":
            device_id = (mine or target).ids["devices"]
        names: dict[str, Any] = {"device_id": device_id, "topics": ["devices/kitchen/#"]}
        names["destination"] = DESTINATION
        names |= {"username": target.mark} if case.body.get("action") != "create" else {}
        case.body |= {name: value for name, value in names.items() if name in case.body}
        messages = case.body.get("messages")
        for message in messages if isinstance(messages, list) else ():
            if isinstance(message, dict) and "topic" in message:
                message["topic"] = "devices/kitchen/note"
    if "device_id" in case.query:
        case.query["device_id"] = target.mark
    if "organization_id" in case.query:
        case.query["organization_id"] = target.name
    if isinstance(case.body, dict) and "organization_id" in case.body:
        case.body["organization_id"] = target.name
    if "id" in case.path_parameters:
        aimed = {"id": _id_in(case.path, target), "command_id": target.mark}
        case.path_parameters |= {name: value for name, value in aimed.items() if name in case.path_parameters}
        return True
    if "subscription_id" in case.query:
        case.query["subscription_id"] = target.ids["subscriptions"]
        return True
    return False


def _newly_told(answer: dict[str, Any]) -> set[str]:
    """Return secrets that are told this once: what was asked for made them."""
    told = answer | (answer.get("credential") or {})
    return {told[name] for name in ("password", "secret", "token") if name in told}
