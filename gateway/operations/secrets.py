"""The vault: the owner's secrets, which the configuration names. Nothing here returns one.

The gateway looks at them when it starts, as at the rest of its configuration.
"""

from gateway.model.secret import Secret
from gateway.operations.activity import note_change
from gateway.operations.site import Site
from gateway.storage.secrets import SecretRow, Secrets
from gateway.storage.vault import Rotated, Vault


async def list_secrets(site: Site) -> list[SecretRow]:
    """Return every secret, but not what it is."""
    return await Secrets(await site.state()).all()


async def set_secret(site: Site, *, name: str, value: str) -> None:
    """Keep a secret. Raises BadInput, or ConfigError when the vault's key cannot be used."""
    await Secrets(await site.state()).put(name, Secret(value))
    await note_change(site, None, "secret.set", name)


async def remove_secret(site: Site, *, name: str) -> None:
    """Forget a secret. Raises NotFound."""
    await Secrets(await site.state()).remove(name)
    await note_change(site, None, "secret.remove", name)


async def rotate_vault(site: Site) -> Rotated:
    """Encrypt everything in the vault with a new key. Raises ConfigError, BadInput or StoreFailed."""
    rotated = await Vault(await site.state()).rotate()
    await note_change(site, None, "vault.rotate", "vault")
    return rotated
