"""`neurogate device flash` beside a running gateway: the board gets TLS where the gateway has it, and that is said."""

import asyncio
import ssl
from pathlib import Path

import pytest

from gateway.cli.device_flash import _own_gateway
from gateway.model.errors import NeurogateError
from gateway.provisioning.reachable import Address
from gateway.provisioning.wishes import parser
from tests.ports import free_port
from tests.site import Site, running_site


async def address(site: Site, folder: Path, *words: str, tls: str = "") -> Address:
    file = folder / "neurogate.toml"
    file.write_text(f'[gateway]\ndata_dir = "{site.settings.gateway.data_dir}"\n[tls]\n{tls}')
    asked = parser("flash", has_gateway=True).parse_args(["--config", str(file), *words])
    return (await asyncio.to_thread(_own_gateway, asked))[0]


async def test_the_board_gets_the_gateways_tls_unless_that_is_not_wanted(tmp_path: Path) -> None:
    tls_port = free_port()
    async with running_site(tmp_path / "data", mqtt={"tls_port": tls_port}) as site:
        found = await address(site, tmp_path, "--host", "127.0.0.1")
        assert found.port == tls_port
        assert "over TLS" in str(found)
        assert found.ca_der is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=found.ca_der)
        assert context.cert_store_stats()["x509_ca"] == 2, "the CA, and the next"
        plain = await address(site, tmp_path, "--plain")
        assert (plain.port, plain.ca_der) == (site.mqtt_port, None)
        assert "without TLS" in str(plain)
        for setting in ('client_certificates = "required"', 'certificate_file = "c.pem"\nkey_file = "k.pem"'):
            with pytest.raises(NeurogateError, match="--plain"):
                await address(site, tmp_path, tls=setting)


async def test_without_a_port_for_tls_the_board_does_without(tmp_path: Path) -> None:
    async with running_site(tmp_path / "data") as site:
        found = await address(site, tmp_path)
        assert (found.port, found.ca_der) == (site.mqtt_port, None)
