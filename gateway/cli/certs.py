"""`neurogate certs`: the site's own CA, and what it has signed."""

import json
import os
import ssl
import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.gateway_link import ask
from gateway.cli.options import ConfigFile, JsonOutput
from gateway.config import load
from gateway.model.errors import BadInput
from gateway.model.reading import rfc3339
from gateway.operations import certificates
from gateway.operations.certificates import CertificateDetails
from gateway.storage.certificates import CLIENT_LIFE_DAYS
from gateway.storage.disk import replace_private

app = typer.Typer(no_args_is_help=True, help="The site's own certificates, for MQTT and HTTP over TLS.")

_TITLES = {"authority": "CA", "next_authority": "next CA", "server": "server"}


@app.command()
def init(
    replace: Annotated[
        bool, typer.Option("--replace", help="Throw away the CA that is there: no board will know the new one.")
    ] = False,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Make the site's CA and a server certificate; a gateway that listens on TLS does so by itself."""
    settings = load(config, os.environ).settings
    _show(ask(settings, certificates.init_certificates, replace=replace), as_json=as_json)


@app.command()
def renew(
    ca: Annotated[
        bool,
        typer.Option("--ca", help="Let the next CA take over. Boards that know it or the one before stay."),
    ] = False,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Make a new server certificate; connections that are open live on."""
    settings = load(config, os.environ).settings
    _show(ask(settings, certificates.renew_certificates, authority=ca), as_json=as_json)


@app.command()
def show(
    ca: Annotated[bool, typer.Option("--ca", help="Print what clients must know: the CA and the next, PEM.")] = False,
    der: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write ca.der and ca-next.der there, for MicroPython."),
    ] = None,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Show fingerprints, names and when each ends."""
    known = ask(load(config, os.environ).settings, certificates.show_certificates)
    if der is not None:
        _write_authorities(der, [one.pem for one in known if one.role != "server"])
    elif ca:
        sys.stdout.write("".join(one.pem for one in known if one.role != "server"))
    else:
        _show(known, as_json=as_json)


@app.command()
def issue(
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="A registered device.")],
    organization: Annotated[
        str | None, typer.Option(help="Whose device it is.", show_default="gateway.organization_id")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=10_950, help="How long it lasts.")] = CLIENT_LIFE_DAYS,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write key and certificates there.")] = None,
    as_json: JsonOutput = False,
    config: ConfigFile = None,
) -> None:
    """Make a key and certificate by which a device comes in without a password (tls.client_certificates)."""
    if out is None and not as_json:
        raise BadInput("no_folder", "The key is shown nowhere.", hint="Say where it goes: --out FOLDER, or --json.")
    settings = load(config, os.environ).settings
    new = ask(
        settings,
        certificates.issue_certificate,
        organization_id=organization or settings.gateway.organization_id,
        device_id=device,
        life_days=days,
    )
    if out is not None:
        _write_authorities(out, new.authorities)
        _write(out / f"{device}.crt.pem", new.certificate.encode())
        _write(out / f"{device}.key.pem", new.key.encode())
        _write(out / f"{device}.crt.der", ssl.PEM_cert_to_DER_cert(new.certificate))
        _write(out / f"{device}.key.der", bytes.fromhex(new.key_der_hex))
    if as_json:
        fields = ("username", "certificate", "key", "authorities")
        print(json.dumps({name: getattr(new, name) for name in fields} | {"ends_at": rfc3339(new.ends_at_ms)}))
    else:
        print(
            f"{new.username} may come in by the key in {out} until {rfc3339(new.ends_at_ms)}, or until it is revoked."
        )


def _write_authorities(folder: Path, pems: list[str] | tuple[str, ...]) -> None:
    _write(folder / "ca.pem", "".join(pems).encode())
    for name, pem in zip(("ca.der", "ca-next.der"), pems, strict=True):
        _write(folder / name, ssl.PEM_cert_to_DER_cert(pem))


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_private(path, content)
    except OSError as error:
        raise BadInput("unusable_file", f"{path} cannot be written ({error.strerror}).") from None


def _show(known: list[CertificateDetails], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([_as_dict(one) for one in known]))
        return
    for one in known:
        print(f"{_TITLES[one.role]:<8}  {one.subject}, until {rfc3339(one.ends_at_ms)}")
        print(f"{'':<8}  SHA-256 {one.fingerprint}")
        if one.names:
            print(f"{'':<8}  for {', '.join(one.names)}")


def _as_dict(one: CertificateDetails) -> dict[str, object]:
    return {
        "role": one.role,
        "subject": one.subject,
        "fingerprint": one.fingerprint,
        "names": list(one.names),
        "ends_at": rfc3339(one.ends_at_ms),
        "pem": one.pem,
    }
