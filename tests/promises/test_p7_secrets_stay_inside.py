"""P7: secrets are planted wherever there are any, everything goes wrong, and then every place is searched for them.

A new route is asked by itself. A new command has to be added to COMMANDS, a new place to `Planted.look_around`.
"""

import asyncio
import base64
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import JsonValue

from gateway.cli.gateway_link import Gateway as Link
from gateway.cli.gateway_link import connect
from gateway.config import load
from gateway.model.errors import NeurogateError
from gateway.operations.integrations import (
    add_integration,
    change_integration,
    list_integrations,
    try_integration,
)
from tests.command_line import neurogate
from tests.gateway_process import CONFIG, ROOT, WAIT_S, GatewayProcess, connect_packet, reading
from tests.ports import free_port
from tests.promises.planted import Places, Plants
from tests.site import running_site
from tests.test_docs import COMMANDS as EVERY_COMMAND

pytestmark = pytest.mark.timeout(600)

NOT_RUN = {"run": "is the gateway itself", "demo": "makes a site of its own"}
COMMANDS: dict[str, tuple[str, ...]] = {
    "alert list": ("--json",),
    "alert acknowledge": ("1",),
    "alert resolve": ("1",),
    "backup": ("OUT/site.backup", "--passphrase-file", "OUT/passphrase"),
    "buffer dead-letters": ("--json",),
    "buffer drop": ("--all",),
    "buffer erase": ("--device", "nobody", "--yes"),
    "buffer export": (),
    "buffer quarantine": ("--json",),
    "buffer replay": ("--all", "--no-wait"),
    "buffer status": ("--json",),
    "certs init": (),
    "certs issue": ("attic", "--out", "OUT/issued"),
    "certs renew": ("--json",),
    "certs show": ("--json",),
    "check": (),
    "config show": ("--origin",),
    "credential add": ("hub2", "--json"),
    "credential list": ("--json",),
    "credential revoke": ("hub2@default",),
    "credential rotate": ("hub@default", "--json"),
    "credential show": ("hub@default", "--json"),
    "org add": ("acme", "--name", "Acme Ltd.", "--json"),
    "org list": ("--json",),
    "org rename": ("acme", "Acme"),
    "org show": ("acme", "--json"),
    "device add": ("attic", "--json"),
    "device command": ("attic", "identify", "--timeout", "1", "--json"),
    "device commands": ("attic", "--json"),
    "device flash": ("--port", "OUT/none", "--wifi", "home", "--wifi-password-file", "OUT/passphrase"),
    "device list": ("--json",),
    "device logs": ("--port", "OUT/none"),
    "device metadata": ("attic", "room=under the roof"),
    "device transfer": ("attic", "--to", "acme", "--json"),
    "device revoke": ("attic", "--organization", "acme"),
    "org remove": ("acme",),
    "device rotate": ("kitchen", "--json"),
    "device show": ("kitchen", "--json"),
    "diag": ("--output", "OUT/diag.tar.gz", "--json"),
    "doctor": ("--json",),
    "init": ("--dir", "OUT/init"),
    "integration add": ("webhook", "new", "--set", "url=http://nowhere.invalid", "--secret", "secret=env:API_KEY"),
    "integration list": ("--json",),
    "integration set": ("new", "--secret", "auth_token=env:CUSTOM_HEADER"),
    "integration show": ("new", "--json"),
    "integration test": ("new", "--json"),
    "integration types": ("webhook", "--json"),
    "notify preview": ("new",),
    "notify test": ("new",),
    "notify log": ("--json",),
    "notify resend": ("--all",),
    "integration remove": ("new",),
    "parser list": (),
    "parser test": ("OUT/passphrase",),
    "restore": ("OUT/site.backup", "--config", "OUT/new/neurogate.toml", "--passphrase-file", "OUT/passphrase"),
    "secrets list": (),
    "secrets remove": ("UNUSED",),
    "secrets rotate": (),
    "secrets set": ("UNUSED",),
    "service install": ("--dry-run",),
    "service status": (),
    "service uninstall": ("--dry-run", "--yes"),
    "tail": ("--last", "3", "--count", "3", "--json"),
    "token create": ("bob", "--json"),
    "token list": ("--json",),
    "token revoke": ("bob",),
}
SHOWS = ("credential add", "credential rotate", "device add", "device rotate", "device transfer", "token create")
"""Commands that show what they have made, once; it must be seen nowhere else, so it is planted, too."""

MORE_CONFIG = """
[ingest]
hook_secret = "${env:HOOK_SECRET}"
[egress]
policy = "any"
"""
WEBHOOK = """
[[integrations]]
type = "webhook"
name = "NAME"
url = "URL/${env:PATH_TOKEN}?key=${env:QUERY_TOKEN}"
secret = ["${vault:SIGN}", "${file:old.secret}"]
auth_token = "${vault:BEARER}"
api_key = "${env:API_KEY}"
rate_limit_per_minute = 0
[integrations.custom_headers]
X-Custom = "${env:CUSTOM_HEADER}"
"""
LOST = """
[[integrations]]
type = "webhook"
name = "lost"
url = "https://example.org/${env:PATH_TOKEN}/${vault:NOT_THERE}"
"""
WRONG = {
    "credentials in the address": '[[integrations]]\ntype="webhook"\nname="x"\nurl="https://user:PLANTED@example.org"',
    "no address": '[[integrations]]\ntype="webhook"\nname="x"\nurl="${env:WRONG}"',
    "a wrong method": '[[integrations]]\ntype="webhook"\nname="x"\nurl="https://x"\nmethod="${env:WRONG}"',
    "an unknown key": '[[integrations]]\ntype="webhook"\nname="x"\nurl="https://x"\nsercet="${env:WRONG}"',
    "a header that cannot be": '[[integrations]]\ntype="webhook"\nname="x"\nurl="https://x"\n'
    'custom_headers={"X-A"="${env:WRONG}\\n"}',
    "a wrong type": '[[integrations]]\ntype="webhook"\nname="x"\nurl="https://x"\nsecret={a="${env:WRONG}"}',
    "a short secret": '[ingest]\nhook_secret="SHORT"',
    "a secret as a number": '[mqtt]\nport="${env:WRONG}"',
    "a secret as a name": '[gateway]\nid="${env:WRONG} x"',
    "a secret as a list": '[egress]\nallow=["${env:WRONG} x"]',
    "an unknown section": '[secrets]\napi_key="PLANTED"',
    "no such file": '[[integrations]]\ntype="webhook"\nname="x"\nurl="https://x"\nsecret="${file:nope}${env:WRONG}"',
}

WRONG_SETTINGS: tuple[dict[str, Any], ...] = (
    {"auth_token": {"PLANTED": "PLANTED"}},
    {"api_key": ["PLANTED"]},
    {"custom_headers": {"X A": "PLANTED"}},
    {"custom_headers": '{"X-A": "PLANTED'},
    {"secret": "PLANTED" * 2},
    {"url": "PLANTED"},
    {"url": "https://user:PLANTED@example.org"},
    {"auth_token": "PLANTED\n"},
    {"organizations": ["PLANTED"]},
    {"batch_max_readings": 2, "payload_template": "{{PLANTED}}", "password": "PLANTED"},
)


class Planted(GatewayProcess):
    """A site full of secrets, whose log is kept."""

    def __init__(self, folder: Path) -> None:
        self.site, self.out = folder / "site", folder / "out"
        self.site.mkdir()
        self.out.mkdir()
        super().__init__(self.site)
        self.plants, self.places = Plants(), Places()
        new = self.plants.new
        names = ("HOOK_SECRET", "PATH_TOKEN", "QUERY_TOKEN", "API_KEY", "CUSTOM_HEADER", "WRONG")
        self.environ = {name: new(f"environment's {name}") for name in names}
        self.in_vault = {name: new(f"vault's {name}") for name in ("SIGN", "BEARER", "UNUSED")}
        self.wrong = new("wrong password")
        (self.site / "old.secret").write_text(new("file's secret"))
        (self.out / "passphrase").write_text(new("passphrase"))
        self.log = self.out / "log"

    def configure(self, urls: dict[str, str]) -> None:
        tables = [WEBHOOK.replace("NAME", name).replace("URL", url) for name, url in urls.items()]
        (self.site / "neurogate.toml").write_text(
            "".join([CONFIG.replace("[log]", '[log]\nlevel = "debug"'), MORE_CONFIG, *tables, LOST])
        )

    def popen(self, *arguments: str, **pipes: Any) -> subprocess.Popen[bytes]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NEUROGATE_")}
        program = "tests.promises.gateway_with_a_crash" if arguments[0] == "run" else "gateway.cli"
        process = subprocess.Popen(
            [sys.executable, "-m", program, *arguments],
            cwd=self.folder,
            env=inherited | self.environ | {"PYTHONPATH": str(ROOT)},
            **pipes,
        )
        self.look_at_arguments(process.pid)
        return process

    def start(self) -> None:
        with self.log.open("ab") as log:
            before = log.tell()
            self.process = self.popen("run", stdout=log, stderr=log)
        deadline = time.monotonic() + WAIT_S
        while b'"gateway ready"' not in self.log.read_bytes()[before:]:
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        (line,) = [one for one in self.log.read_bytes()[before:].splitlines() if b'"gateway ready"' in one]
        self.mqtt_port, self.http_port = json.loads(line)["mqtt_port"], json.loads(line)["http_port"]

    def command(self, *words: str, typed: str = "", place: str = "", shows: Collection[str] = ()) -> tuple[int, str]:
        """Run a command and look at what it says."""
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        with self.popen(*words, **pipes) as process:
            self.look_at_arguments(process.pid)
            out, err = process.communicate(typed.encode(), timeout=4 * WAIT_S)  # doctor waits for whoever is away
        self.places.note(place or f"what `{' '.join(words)}` says", out + err, shows=shows)
        return process.returncode, out.decode()

    def made(self, name: str, field: str, *words: str) -> str:
        """Let a command make a secret, which is shown there and planted from now on."""
        code, out = self.command(*words, "--json", shows=(name,))
        assert code == 0, out
        return self.plants.add(name, json.loads(out)[field])

    def look_at_arguments(self, pid: int) -> None:
        self.places.note("the arguments of a process", Path(f"/proc/{pid}/cmdline").read_bytes())

    def look_around(self) -> None:
        """Look at everything that is on disk."""
        for path in self.data_dir.rglob("*"):
            if path.is_file():
                self.places.note(f"the file {path.name}", path.read_bytes(), shows=self._keys_in(path))
        self.places.note("the log", self.log.read_bytes())
        if (self.out / "site.backup").exists():
            self.places.note("the backup", (self.out / "site.backup").read_bytes())
        if (self.out / "diag.tar.gz").exists():
            self.places.note("the bundle", gzip.decompress((self.out / "diag.tar.gz").read_bytes()))

    def _keys_in(self, path: Path) -> list[str]:
        """Plant the keys in a file that is for them, and return their names."""
        if path.suffix != ".key":
            return []
        content = path.read_bytes()
        # Of a PEM file, the lines with the keys themselves: what follows in a block is public.
        keys = re.findall(rb"BEGIN PRIVATE KEY-----\n(.+)\n", content) or [content]
        names = [f"key {number} of {path.name}, {hashlib.sha256(key).hexdigest()}" for number, key in enumerate(keys)]
        for name, key in zip(names, keys, strict=True):
            self.plants.add(name, key)
        return names


@asynccontextmanager
async def receiver() -> AsyncIterator[dict[str, str]]:
    """Yield addresses by name: receivers that answer with what they were told, and such as are not there."""

    async def echo(request: web.Request) -> web.Response:
        body = await request.text()
        told = f"{request.path_qs} {dict(request.headers)} {body}"
        status = int(request.match_info["status"])
        return web.Response(status=status, text=told, headers={"Location": str(request.url)} if status == 302 else {})

    app = web.Application()
    app.router.add_route("*", "/{status}/{rest:.*}", echo)
    async with TestServer(app) as server:
        told = {
            f"told{status}": str(server.make_url(f"/{status}")) for status in (200, 302, 400, 401, 410, 413, 429, 500)
        }
        away = f"http://127.0.0.1:{free_port()}"
        yield told | {"away": away, "nowhere": "http://nowhere.invalid", "crashes": str(server.make_url("/200"))}


async def every_route(folder: Path) -> list[tuple[str, str]]:
    """Return the method and the path of every route there is."""
    async with running_site(folder) as site:
        server = site.gateway._running.http._main
        routes = [(one.method, one.resource.canonical) for one in server._runner.app.router.routes() if one.resource]
    return sorted({(method, path) for method, path in routes if method != "HEAD"})


def bodies(site: Planted, path: str) -> Iterator[str]:
    """Yield what is asked of each route: right for some of them, and a secret in the wrong place for all."""
    yield "{}"
    yield json.dumps(reading("kitchen", 7))
    if path.endswith(("/sensor-data", "/mqtt-listener", "/golioth-webhook")):
        return  # what is sent there is kept as it came, for whoever looks into the quarantine
    yield site.wrong
    yield json.dumps({"operation": "publish", "password": site.wrong, "api_key": {"x": site.wrong}, "secret": 1})
    for operation in ("test", "credentials"):
        yield json.dumps({"operation": operation, "action": "list"})
    message = {"topic": "devices/kitchen/status", "payload": "on", "qos": 1}
    yield json.dumps({"operation": "publish", "messages": [message]})
    yield json.dumps({"operation": "subscribe", "topics": ["#"], "callback_url": f"http://u:{site.wrong}@127.0.0.1/"})


async def ask_everything(site: Planted, routes: list[tuple[str, str]], callers: dict[str, dict[str, str]]) -> None:
    """Ask every route as everybody, and look at the answers."""
    url = f"http://127.0.0.1:{site.http_port}"
    at_once = asyncio.Semaphore(20)

    async def ask(name: str, method: str, path: str, body: str | None) -> None:
        filled = re.sub(r"\{[^}]*\}", "test", path)
        async with at_once, session.request(method, url + filled, data=body, headers=callers[name]) as answer:
            content = await answer.read()
        site.places.note(f"the answer to {name} asking {method} {path}", str(answer.headers).encode() + content)
        assert answer.status < 500 or path == "/ready", (method, path, body, content)

    timeout = aiohttp.ClientTimeout(total=WAIT_S)
    json_type = {"content-type": "application/json"}
    async with aiohttp.ClientSession(timeout=timeout, headers=json_type) as session, asyncio.TaskGroup() as tasks:
        for method, path in routes:
            for name in callers:
                for body in [None] if method in ("GET", "DELETE") else bodies(site, path):
                    if name.startswith("nobody") and body not in (None, "{}"):
                        continue  # each wrong login is answered later than the one before
                    tasks.create_task(ask(name, method, path, body))


async def subscribe_with_a_token_in_the_address(site: Planted, token: str, address: str) -> None:
    secret = site.plants.new("callback's token")
    asked = {"operation": "subscribe", "topics": ["devices/+/status"], "callback_url": f"{address}/{secret}?k={secret}"}
    headers = {"Authorization": f"Bearer {token}"}
    url = f"http://127.0.0.1:{site.http_port}/api/v1/mqtt-broker"
    async with aiohttp.ClientSession() as session, session.post(url, json=asked, headers=headers) as answer:
        assert answer.status == 201
        content = await answer.read()
        site.plants.add("callback's signature key", json.loads(content)["secret"])
        site.places.note("the answer to who subscribes", content, shows=["callback's signature key"])


async def manage_integrations(site: Planted, urls: dict[str, str]) -> None:
    """Let organisations have integrations of their own, right ones and wrong ones, and look at what is said of them."""
    new = site.plants.new
    own: dict[str, JsonValue] = {
        "secret": [new("row's signing secret")],
        "auth_token": new("row's token"),
        "api_key": new("row's key"),
        "rate_limit_per_minute": 0,
        "custom_headers": {"X-Custom": new("row's header")},
    }
    path, wrong = "{}?key={}".format(new("row's path token"), new("row's query token")), new("row's wrong value")
    async with connect(load(site.site / "neurogate.toml", site.environ).settings) as link:
        for name in ("told200", "told400", "told401", "away"):
            added = await link.call(
                add_integration,
                organization_id="default",
                integration_type="webhook",
                name=f"row to {name}",
                settings=own | {"url": f"{urls[name]}/{path}"},
            )
            site.places.note("what is said of one that is added", repr(added))
        changed = await link.call(change_integration, integration_id=added.id, settings={"timeout_s": 3})
        site.places.note("what is said of one that is changed", repr(changed))
        site.places.note("what a trial says", repr(await link.call(try_integration, integration_id=added.id)))
        for settings in WRONG_SETTINGS:
            with pytest.raises(NeurogateError) as raised:
                await link.call(
                    change_integration,
                    integration_id=added.id,
                    settings=json.loads(json.dumps(settings).replace("PLANTED", wrong)),
                )
            site.places.note(f"what is said to {settings}", str(raised.value))
        await manage_a_broker(site, link)
        site.places.note("the list", repr(await link.call(list_integrations)))


async def manage_a_broker(site: Planted, link: Link) -> None:
    """Let an organisation listen at a broker that is not there, and look at what is said of that."""
    settings: dict[str, JsonValue] = {
        "brokerUrl": "127.0.0.1",
        "port": 9,
        "topics": "plant/+",
        "username": "neurogate",
        "password": site.plants.new("broker's password"),
        "proxy": "http://127.0.0.1:9",
        "proxy_credentials": "user:" + site.plants.new("broker's proxy password"),
    }
    about = {"organization_id": "default", "integration_type": "mqtt_external", "name": "plant"}
    added = await link.call(add_integration, **about, settings=settings)  # type: ignore[arg-type]
    site.places.note("what is said of a broker", repr(added))
    site.places.note("what a trial of a broker says", repr(await link.call(try_integration, integration_id=added.id)))
    wrong = site.plants.new("broker's wrong password")
    for change in ({"brokerUrl": f"mqtt://us:{wrong}@127.0.0.1"}, {"clientKey": wrong}, {"client_key": wrong}):
        with pytest.raises(NeurogateError) as raised:
            await link.call(change_integration, integration_id=added.id, settings={**change, "password": wrong})
        site.places.note(f"what is said to a wrong {[*change]}", str(raised.value))


def fail_to_log_in(site: Planted) -> None:
    for username, password in (("default/kitchen", site.wrong), (site.wrong, site.wrong)):
        with pytest.raises(ConnectionRefusedError):
            site.mqtt(username, password)
    assert connect_packet("a", "b")


def try_wrong_configurations(site: Planted) -> None:
    """Let `run` refuse each: before it starts anything, so it needs no process."""
    for what, text in WRONG.items():
        planted = site.plants.new(f"wrong configuration's secret: {what}")
        short = site.plants.add(f"wrong configuration's short secret: {what}", f"short-{planted[-12:]}")
        path = site.out / "wrong.toml"
        path.write_text(text.replace("SHORT", short).replace("PLANTED", planted))
        done = neurogate("run", "--config", str(path), folder=site.folder, environ=site.environ)
        site.places.note(f"what `run` says to {what}", done.stdout + done.stderr)
        assert done.returncode == 78, what


def run_every_command(site: Planted) -> None:
    for command, words in COMMANDS.items():
        arguments = [*command.split(), *(word.replace("OUT", str(site.out)) for word in words)]
        shown = f"made by {command}"
        typed = site.in_vault["UNUSED"] if command == "secrets set" else ""
        _, out = site.command(*arguments, typed=typed, shows=[shown] if command in SHOWS else [])
        if command in SHOWS:
            answer = json.loads(out)
            site.plants.add(shown, answer["token"] if "token" in answer else answer["password"])
        elif command == "init":
            (token,) = re.findall(r"ngt_\S+", out)
            place, content, _ = site.places.seen.pop()
            site.plants.add("made by init", token)
            site.places.note(place, content, shows=["made by init"])


def test_every_command_is_looked_at() -> None:
    known = {f"neurogate {command}" for command in (*COMMANDS, *NOT_RUN)}
    assert set(EVERY_COMMAND) == known, "say in COMMANDS how it is called"


def test_what_is_planted_would_be_found() -> None:
    plants, places = Plants(), Places()
    secret = plants.new("a")
    for number, text in enumerate((secret, secret.encode().hex(), f"x{secret}y")):
        places.note(str(number), text)
    places.note("basic", base64.b64encode(f"user:{secret}".encode()))
    places.note("shown", secret, shows=["a"])
    places.note("clean", "nothing")
    assert {one.partition(":")[0].rpartition(" in ")[2] for one in places.found(plants)} == {"0", "1", "2", "basic"}


async def test_p7_planted_secrets_are_found_nowhere(tmp_path: Path) -> None:
    routes = await every_route(tmp_path / "routes")
    site = Planted(tmp_path)
    async with receiver() as urls:
        site.configure(urls)
        for name, value in site.in_vault.items():
            await asyncio.to_thread(site.command, "secrets", "set", name, typed=value)
        password = await asyncio.to_thread(site.made, "device's password", "password", "device", "add", "kitchen")
        hub = await asyncio.to_thread(site.made, "hub's password", "password", "credential", "add", "hub")
        callers = {"nobody": {}, "nobody with a wrong token": {"Authorization": f"Bearer {site.wrong}"}}
        callers["nobody with a wrong key"] = {"x-api-key": site.wrong}
        callers["the device"] = {"x-api-key": password}
        callers["the hub"] = {"x-api-key": hub}
        for role, organization in (
            ("owner", "default"),
            ("member", "default"),
            ("device", "default"),
            ("owner", "other"),
        ):
            name = f"{role}-{organization}"
            words = ("token", "create", name, "--role", role, "--organization", organization)
            token = await asyncio.to_thread(site.made, f"token of {name}", "token", *words)
            callers[name] = {"Authorization": f"Bearer {token}"}
        await asyncio.to_thread(site.start)
        try:
            owner = callers["owner-default"]["Authorization"].removeprefix("Bearer ")
            await subscribe_with_a_token_in_the_address(site, owner, urls["told400"])
            await manage_integrations(site, urls)
            await asyncio.to_thread(fail_to_log_in, site)
            await asyncio.to_thread(site.post, password, *(reading("kitchen", seq) for seq in range(5)))
            await ask_everything(site, routes, callers)
            await said(site, "part crashed: forwarder crashes")
            await said(site, "lost is not started")
            await ask_everything(site, [("GET", "/ready"), ("GET", "/metrics")], callers)
            site.look_around()
            await asyncio.to_thread(run_every_command, site)
            await asyncio.to_thread(try_wrong_configurations, site)
        finally:
            await asyncio.to_thread(site.stop)
        site.look_around()
        for key in site.data_dir.glob("vault-*.key"):  # and now the same with the key lost
            key.unlink()
        await asyncio.to_thread(site.start)
        await ask_everything(site, [("GET", "/ready")], callers)
        await asyncio.to_thread(site.stop)
        site.look_around()
    log = site.log.read_text()
    assert all(name in log for name in urls), "each has failed or was told"
    print(f"{len(site.plants.by_name)} secrets, {len(site.places.seen)} places, {len(routes)} routes")
    found = site.places.found(site.plants)
    assert not found, "\n".join(found)


async def said(site: Planted, words: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while words not in site.log.read_text():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.05)
