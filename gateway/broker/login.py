"""How a client comes in: who it is, whether it may, and that it is its only connection.

Nothing of a client reaches a session or a subscriber before it has authenticated (P8). It does not: decode CONNECT
(packets), or know passwords (access).
"""

import asyncio
from typing import TYPE_CHECKING

from gateway.access import Credential
from gateway.broker import packets
from gateway.broker.names import too_long
from gateway.broker.packets import Connect
from gateway.model.errors import StoreFailed

if TYPE_CHECKING:
    from gateway.broker.connection import Connection
    from gateway.broker.door import Door


async def log_in(door: "Door", connection: "Connection", connect: Connect) -> None:
    """Authenticate, end an older connection of the same client, and let it in."""
    credential = await _authenticated(door, connection, connect)
    if credential is None or connection.has_ended:
        return
    if connect.will is not None and door.publication(credential, connect.will.topic) is None:
        connection.refuse(packets.CONNACK_NOT_AUTHORIZED, "foreign_will", connect.will.topic[:200])
        return
    if connect.will is not None and (too := too_long(connect.will.topic, door.settings)):
        connection.refuse(packets.CONNACK_NOT_AUTHORIZED, "topic_too_long", f"{too}, of its will")
        return
    if door.ingest.is_full:
        connection.refuse(packets.CONNACK_UNAVAILABLE, "store_full")
        return
    connection.client_id = connect.client_id or door.new_client_id()
    connection.credential = credential
    await door.take_over(connection)
    try:
        await door.delivery.sessions.clear_way(connection.local_id, credential.namespace, clean=connect.clean_session)
    except StoreFailed as error:
        connection.refuse(packets.CONNACK_UNAVAILABLE, "store_failed", error.message)
    if not connection.is_open:
        door.leave(connection)
        connection.end("connection_lost")  # without a session nothing it has said may be looked at
        return
    door.came_in(credential)
    session, is_present = door.delivery.sessions.open(
        connection.local_id, credential.namespace, clean=connect.clean_session, link=connection
    )
    session.subscriptions_at_most = (
        door.settings.max_home_assistant_subscriptions
        if credential.is_home_assistant
        else door.settings.max_subscriptions
    )
    connection.accepted(connect, credential, session)
    connection.send(packets.CONNACK_SESSION_PRESENT if is_present else packets.CONNACK_ACCEPTED)
    door.delivery.resume(session, connection)


async def _authenticated(door: "Door", connection: "Connection", connect: Connect) -> Credential | None:
    """Return who it is, by its certificate if it shows one; None when it has been refused."""
    identity = connection.identity
    if identity is None:
        if connection.is_over_tls and door.asks_certificates:  # over HTTPS no handshake asks for it
            connection.refuse(packets.CONNACK_NOT_AUTHORIZED, "tls_certificate_required")
            return None
        credential = door.authenticate(connect.username, connect.password)
        if credential is None and not connection.has_ended:
            await _refuse_later(door, connection, connect.username)
        return credential
    credential = door.identify(identity)
    if credential is None:
        connection.refuse(packets.CONNACK_NOT_AUTHORIZED, "certificate_revoked", identity.username[:200])
    elif connect.username and connect.username != credential.username:
        told = f"{credential.username} says that it is another"
        connection.refuse(packets.CONNACK_NOT_AUTHORIZED, "certificate_of_another", told)
        return None
    return credential


async def _refuse_later(door: "Door", connection: "Connection", username: str | None) -> None:
    """Answer a login that is not right, the later the more often such a one has failed."""
    known = door.is_known(username)  # a name that is nobody's may be a password
    with door.login_delay.failed(connection.peer.rpartition(":")[0], known or None) as delay_s:
        door.delayed(delay_s)
        connection.stop_clock()
        await asyncio.wait([connection.lost], timeout=delay_s)
    if not connection.has_ended:
        told = f"{known or 'an unknown username'}, answered after {delay_s:g} s"
        connection.refuse(packets.CONNACK_NOT_AUTHORIZED, "not_authorized", told)
