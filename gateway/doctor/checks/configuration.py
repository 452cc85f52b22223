"""What is allowed and yet hardly meant: destinations given twice, or that can get nothing."""

from collections import defaultdict
from collections.abc import Iterator
from fnmatch import fnmatchcase

from cloud_sync.contract import IntegrationConfig
from cloud_sync.registry import check_config
from gateway.doctor.evidence import Evidence
from gateway.model.errors import ConfigError
from gateway.model.finding import Finding, fine, warning

_ADDRESSES = ("url", "webhook_url", "broker_url", "brokerUrl", "client_id", "clientId")


async def configuration(evidence: Evidence) -> list[Finding]:
    """Look at the integrations, and at the devices they want."""
    configs = []
    for table in evidence.settings.integrations:
        try:
            configs.append(check_config(table, evidence.loaded.origins))
        except ConfigError:  # the check destinations says it
            continue
    active = [config for config in configs if config.status == "active"]
    found = [*_twice(active), *_wants_nobody(active, evidence)]
    if evidence.settings.log.level == "debug":
        found.append(warning("log.level is debug: much is written.", 'Set it to "info" when the fault is found.'))
    source = evidence.loaded.path or "no file, only defaults"
    return found or [fine(f"Nothing in it is against itself ({source}).")]


def _twice(configs: list[IntegrationConfig]) -> Iterator[Finding]:
    """What goes to one address twice arrives twice, and two clients of one id throw each other out of a broker."""
    same: defaultdict[tuple[object, ...], list[str]] = defaultdict(list)
    for config in configs:
        address = tuple(str(value) for name in _ADDRESSES if (value := getattr(config, name, None)))
        what = (config.type, address, config.selection, config.events)
        if address:
            same[what].append(config.name)
    for names in same.values():
        if len(names) > 1:
            words = f"{' and '.join(names)} go to the same address with the same readings."
            yield warning(words, "Set one of them to inactive, or take it out.")


def _wants_nobody(configs: list[IntegrationConfig], evidence: Evidence) -> Iterator[Finding]:
    if evidence.troubles is None or not evidence.troubles.devices:
        return
    known = [(one.organization_id, one.device_id) for one in evidence.troubles.devices]
    for config in configs:
        if any(config.selection.wants_device(*one) for one in known):
            continue
        lost = [one for one in config.organizations if one not in {organization for organization, _ in known}]
        lost += [one for one in config.devices if not any(fnmatchcase(device, one) for _, device in known)]
        hint = "Correct devices or organizations: did they move to another organisation? neurogate device list."
        yield warning(f"{config.name} gets nothing: no device is what it wants ({', '.join(lost) or 'both'}).", hint)
