"""`devices`: those of an organisation; under `/api/v1` and `/functions/v1`. Readers look, owners and admins change.

- `GET devices` `?status&limit&cursor`, `GET devices/{id}`
- `POST devices` `{id, name?, serial_number?, hardware_ids?, metadata?}`: 201 with its credential, this once
- `PATCH devices/{id}` with what is to change; `DELETE devices/{id}` takes its access away (204), its readings stay.
  Both also without the id in the path, and with `id` in the body or the query
- `GET`, `POST` `{overlap_h?}` and `DELETE devices/{id}/credentials`: POST makes a new password, shown this once, and
  the one before stays good for a while; a device without access gets some
- `POST devices/{id}/transfer` `{target_organization_id}` moves it, with a token of the site
- `POST devices/metadata` `{device_id, metadata}` changes the keys that it names; `null` takes one away. It goes out
  with the readings that come in from then on. A device that is unknown is registered: whoever manages devices elsewhere
  tells of one before it is heard
"""

from collections.abc import Iterable

from gateway.callers import Caller
from gateway.model.reading import rfc3339_or_null
from gateway.operations.credentials import list_credentials
from gateway.operations.devices import (
    add_device,
    issue_credential,
    page_devices,
    revoke_device,
    set_metadata,
    show_device,
    transfer_device,
    update_device,
)
from gateway.operations.site import SharedSite
from gateway.storage.device_rows import check_name
from gateway.web import device_answers as answers
from gateway.web.authorization import Authorization, whose
from gateway.web.device_requests import (
    CredentialRequest,
    DeviceChanges,
    DeviceRequest,
    DevicesQuery,
    MetadataRequest,
    NamedQuery,
    NewDevice,
    TransferRequest,
)
from gateway.web.requests import one_of
from gateway.web.routes import Created, Route

_AT_MOST = 1_000


class Devices:
    """The routes and their handlers."""

    def __init__(self, authorization: Authorization, site: SharedSite) -> None:
        self._authorization = authorization
        self._site = site

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        reads, changes, missing, taken = self._authorization.reads, self._authorization.changes, (404,), (404, 409)
        yield Route("POST", "devices/metadata", self.change_metadata, changes)
        yield Route("GET", "devices", self.list, reads)
        yield Route("POST", "devices", self.add, changes, (409,))
        yield Route("PATCH", "devices", self.change_named, changes, taken)
        yield Route("DELETE", "devices", self.revoke_named, changes, missing)
        yield Route("GET", "devices/{id}", self.show, reads, missing)
        yield Route("PATCH", "devices/{id}", self.change, changes, taken)
        yield Route("DELETE", "devices/{id}", self.revoke, changes, missing)
        yield Route("GET", "devices/{id}/credentials", self.show_credentials, reads, missing)
        yield Route("POST", "devices/{id}/credentials", self.issue_credential, changes, taken)
        yield Route("DELETE", "devices/{id}/credentials", self.revoke, changes, missing)
        yield Route("POST", "devices/{id}/transfer", self.transfer, self._authorization.manages, taken)

    async def list(self, who: Caller, query: DevicesQuery) -> answers.Devices:
        """Return one page of devices.

        With a token of the site, of all organisations unless one is named.
        """
        limit = min(query.limit, _AT_MOST)
        organization_id, _, device_id = (query.cursor or "").partition("/")
        rows = await page_devices(
            self._site,
            organization_id=whose(who, query),
            status=query.status,
            after=(organization_id, device_id),
            limit=limit + 1,
        )
        page = rows[:limit]
        next_cursor = f"{page[-1].organization_id}/{page[-1].device_id}" if len(rows) > limit else None
        return {"devices": [answers.shown(one) for one in page], "next_cursor": next_cursor}

    async def show(self, who: Caller, id: str) -> answers.DeviceDetails:  # noqa: A002 - its name in the path
        """Return all that is known of one device."""
        details = await show_device(self._site, organization_id=who.organization_id, device_id=id)
        last, activity = details.last_reading_ms, details.activity
        return {
            **answers.shown(details.device),
            "topics": details.topics,
            "last_seen_at": rfc3339_or_null(last),
            "connected": activity is not None and activity.connections > 0,
            "readings_since_start": 0 if activity is None else activity.readings,
        }

    async def add(self, who: Caller, body: NewDevice) -> Created[answers.NewDeviceShown]:
        """Register a device; its password is shown this once."""
        credential = await add_device(
            self._site.acting(who.actor),
            organization_id=who.organization_id,
            device_id=_id(body),
            metadata=body.metadata,
            hardware_ids=tuple(body.hardware_ids),
            serial_number=body.serial_number,
            name=body.name,
        )
        details = await show_device(
            self._site, organization_id=credential.organization_id, device_id=credential.device_id
        )
        answer: answers.NewDeviceShown = {
            **answers.shown(details.device),
            "credential": answers.password_of(credential),
        }
        return Created(answer)

    async def change(self, who: Caller, id: str, body: DeviceChanges) -> answers.Device:  # noqa: A002
        """Change a device: what is named, the rest stays."""
        device = await update_device(
            self._site.acting(who.actor),
            organization_id=who.organization_id,
            device_id=_id(body, id),
            changes=body.changes(),
        )
        return answers.shown(device)

    async def change_named(self, who: Caller, query: NamedQuery, body: DeviceChanges) -> answers.Device:
        """Change the device that the body or the query names."""
        return await self.change(who, _id(body, query.id), body)

    async def revoke(self, who: Caller, id: str, body: DeviceRequest) -> None:  # noqa: A002
        """Take a device's access away and close its sessions; its readings stay."""
        await revoke_device(self._site.acting(who.actor), organization_id=who.organization_id, device_id=_id(body, id))

    async def revoke_named(self, who: Caller, query: NamedQuery, body: DeviceRequest) -> None:
        """Take away the access of the device that the body or the query names."""
        await self.revoke(who, _id(body, query.id), body)

    async def show_credentials(self, who: Caller, id: str) -> answers.DeviceCredentials:  # noqa: A002
        """Return how a device's credential is used; there is none of one that has no access."""
        await show_device(self._site, organization_id=who.organization_id, device_id=id)
        key = (who.organization_id, id)
        own = [one for one in await list_credentials(self._site) if (one.organization_id, one.device_id) == key]
        return {"credentials": [answers.usage_of(one) for one in own]}

    async def issue_credential(
        self,
        who: Caller,
        id: str,  # noqa: A002
        body: CredentialRequest,
    ) -> Created[answers.DevicePassword]:
        """Make a new password for a device, and give it access if it has none."""
        credential = await issue_credential(
            self._site.acting(who.actor),
            organization_id=who.organization_id,
            device_id=_id(body, id),
            overlap_ms=round(body.overlap_h * 3_600_000),
        )
        return Created(answers.password_of(credential))

    async def transfer(self, who: Caller, id: str, body: TransferRequest) -> answers.NewDeviceShown:  # noqa: A002
        """Move a device to another organisation; its readings stay, and it gets a new password."""
        device, credential = await transfer_device(
            self._site.acting(who.actor),
            organization_id=who.organization_id,
            device_id=_id(body, id),
            to=body.target_organization_id,
        )
        return {
            **answers.shown(device),
            "credential": None if credential is None else answers.password_of(credential),
        }

    async def change_metadata(self, who: Caller, body: MetadataRequest) -> answers.DeviceMetadata:
        """Change a device's metadata and return all of it."""
        device = await set_metadata(
            self._site.acting(who.actor),
            organization_id=who.organization_id,
            device_id=body.device_id,
            metadata=body.metadata,
        )
        return {
            "organization_id": device.organization_id,
            "device_id": device.device_id,
            "status": device.status,
            "metadata": device.metadata,
        }


def _id(body: DeviceRequest, told: str | None = None) -> str:
    """Return which device a request is about. Raises BadInput."""
    device_id = one_of("device", told, body.id, body.device_id)
    check_name("device", device_id)
    return device_id
