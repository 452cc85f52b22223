"""Every operation there is. Whoever asks for one imports its own module: for a command all of them take too long."""

from collections.abc import Callable
from typing import Any

from gateway.operations.alerts import acknowledge_alert, list_alerts, resolve_alert, show_alert
from gateway.operations.backup import take_snapshot
from gateway.operations.buffer import buffer_status
from gateway.operations.call import Operation
from gateway.operations.certificates import (
    init_certificates,
    issue_certificate,
    renew_certificates,
    show_certificates,
)
from gateway.operations.commands import follow_command, list_commands, send_command, show_command
from gateway.operations.credentials import (
    add_credential,
    list_credentials,
    revoke_credential,
    rotate_credential,
    show_credential,
)
from gateway.operations.dead_letters import drop_dead_letters, list_dead_letters, replay_dead_letters
from gateway.operations.devices import (
    add_device,
    issue_credential,
    list_devices,
    page_devices,
    revoke_device,
    rotate_device,
    set_metadata,
    show_device,
    transfer_device,
    update_device,
)
from gateway.operations.erase import erase_device
from gateway.operations.export import export_readings
from gateway.operations.integration_trials import try_settings
from gateway.operations.integrations import (
    add_integration,
    change_integration,
    integration_schemas,
    list_integrations,
    remove_integration,
    show_integration,
    try_integration,
)
from gateway.operations.notifications import (
    follow_notification,
    page_notifications,
    preview_notification,
    resend_failed_notifications,
    resend_notification,
    send_notification,
    show_notification,
)
from gateway.operations.organizations import (
    add_organization,
    list_organizations,
    remove_organization,
    rename_organization,
    show_organization,
)
from gateway.operations.quarantine import page_quarantine
from gateway.operations.readings import read_readings
from gateway.operations.secrets import list_secrets, remove_secret, rotate_vault, set_secret
from gateway.operations.status import gateway_status
from gateway.operations.tail import tail_readings
from gateway.operations.tokens import create_token, list_tokens, revoke_token, revoke_token_by_id
from gateway.operations.troubles import list_troubles
from gateway.operations.vitals import gateway_trace, gateway_vitals, try_broker

_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    list_devices,
    page_devices,
    update_device,
    issue_credential,
    transfer_device,
    show_device,
    add_device,
    set_metadata,
    rotate_device,
    revoke_device,
    list_alerts,
    show_alert,
    acknowledge_alert,
    resolve_alert,
    send_command,
    follow_command,
    show_command,
    list_commands,
    list_credentials,
    show_credential,
    add_credential,
    rotate_credential,
    revoke_credential,
    list_tokens,
    create_token,
    revoke_token,
    revoke_token_by_id,
    list_organizations,
    show_organization,
    add_organization,
    rename_organization,
    remove_organization,
    list_integrations,
    show_integration,
    add_integration,
    change_integration,
    remove_integration,
    try_integration,
    try_settings,
    integration_schemas,
    list_secrets,
    set_secret,
    remove_secret,
    rotate_vault,
    show_certificates,
    init_certificates,
    renew_certificates,
    issue_certificate,
    page_notifications,
    show_notification,
    send_notification,
    follow_notification,
    resend_notification,
    resend_failed_notifications,
    preview_notification,
    buffer_status,
    list_dead_letters,
    replay_dead_letters,
    drop_dead_letters,
    page_quarantine,
    erase_device,
    export_readings,
    take_snapshot,
    gateway_status,
    gateway_vitals,
    gateway_trace,
    try_broker,
    list_troubles,
    tail_readings,
    read_readings,
)

OPERATIONS = {function.__name__: Operation(function) for function in _FUNCTIONS}
"""Every operation by its name."""
