"""Whatever is asked, by whomever: no fault of ours, no answer that the document lacks, nothing of others, no secret.

schemathesis makes requests from the OpenAPI document, good ones and bad ones; every role of two organisations sends
them, and whoever has no token. `--hypothesis-profile thorough` takes many minutes.
"""

import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.request import Request, urlopen

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.web.two_organizations import NOWHERE, Organization, TwoOrganizations, running

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
_THOROUGH = settings.default is settings.get_profile("thorough")
_EXAMPLES = 1_000 if _THOROUGH else 25


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
            gateway.url + path.replace("{id}", "x"),
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


@pytest.mark.timeout(7_200 if _THOROUGH else 240)
def test_whatever_is_asked_is_answered_as_documented_and_with_nothing_of_others(
    gateway: TwoOrganizations, document: dict[str, Any]
) -> None:
    ours = {path: found for path, found in document["paths"].items() if not path.startswith("/functions/")}
    schema = schemathesis.openapi.from_dict(document | {"paths": ours})
    schema.config.generation.update(with_security_parameters=False)
    wrong: list[Exception] = []
    succeeded: set[str] = set()
    with requests.Session() as session:
        session.trust_env = False
        for found in schema.get_all_operations():
            operation = found.ok()
            try:
                if _ask(gateway, session, operation):
                    succeeded.add(operation.label)
            except* Exception as group:  # noqa: BLE001 - the others are asked all the same
                group.add_note(operation.label)
                wrong.append(group)
    if wrong:
        raise ExceptionGroup("what was answered", wrong)
    assert {f"{method} {path}" for method, path, _ in operations({"paths": ours})} - succeeded == {
        f"GET {path}" for path in SOCKETS
    }, "each has been asked something that is right"


def _ask(gateway: TwoOrganizations, session: requests.Session, operation: APIOperation) -> bool:
    """Ask one operation many things; return whether one of them was right."""
    everybody: list[tuple[Organization | None, dict[str, str]]] = [(None, {})]
    for one in gateway.organizations:
        everybody += [(one, headers) for headers in one.headers.values()]
    strategies = [operation.as_strategy(generation_mode=GenerationMode.POSITIVE)]
    if operation.body or operation.query or operation.path_parameters:
        strategies.append(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    statuses: set[int] = set()

    @settings(
        max_examples=_EXAMPLES,
        phases=(Phase.generate,),
        derandomize=not _THOROUGH,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of(strategies), who=st.sampled_from(everybody))
    def ask(case: Case, who: tuple[Organization | None, dict[str, str]]) -> None:
        organization, headers = who
        _point_nowhere(case)
        answer = case.call(gateway.url, session, headers=headers, timeout=_PATIENCE_S, allow_redirects=False)
        statuses.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS, headers=headers)
        said = answer.text + repr(answer.headers)
        for secret in gateway.secrets:
            assert secret not in said
        for other in gateway.organizations:
            assert other is organization or other.mark not in said
        gateway.secrets.update(_newly_told(answer.json() if answer.content[:1] == b"{" else {}))

    ask()
    return any(status < HTTPStatus.MULTIPLE_CHOICES for status in statuses)


def _point_nowhere(case: Case) -> None:
    """Let no callback go to whomever the name happens to belong to."""
    if isinstance(case.body, dict) and str(case.body.get("callback_url")).startswith("http"):
        case.body["callback_url"] = NOWHERE


def _newly_told(answer: dict[str, Any]) -> set[str]:
    """Return secrets that are told this once: what was asked for made them."""
    return {answer[name] for name in ("password", "secret") if name in answer}
