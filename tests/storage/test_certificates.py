"""When certificates are made, and made anew."""

import stat
from pathlib import Path

import pytest

from gateway.certificates.authority import ClientIdentity, days, names_of
from gateway.clock import ManualClock
from gateway.model.errors import AlreadyExists, ConfigError, NotFound
from gateway.storage.certificates import SERVER_LIFE, SiteCertificates
from gateway.storage.data_dir import DataDir

DAY_MS = 86_400_000
START_MS = 1_800_000_000_000
"""January 2027."""


class Machine:
    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(START_MS)
        self.names = ["pi.local", "192.0.2.7"]
        self.data_dir = DataDir(folder / "data").ensure()
        self.certificates = SiteCertificates(self.data_dir, self.clock, "site-1", lambda: self.names)

    @property
    def shown(self) -> bytes:
        return self.data_dir.server_certificate.read_bytes()

    @property
    def days_left(self) -> float:
        server = self.certificates.server()
        assert server is not None
        return server.issued.ends.timestamp() / 86_400 - self.clock.now / DAY_MS


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_all_is_made_once_and_its_owners_alone(machine: Machine) -> None:
    with pytest.raises(NotFound, match="neurogate certs init"):
        machine.certificates.site_ca()
    assert machine.certificates.ensure()
    assert not machine.certificates.ensure()
    for file in (machine.data_dir.site_ca, machine.data_dir.server_certificate):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {file.name for file in machine.data_dir.path.iterdir()} == {"site-ca.key", "server.key"}


def test_a_server_certificate_is_made_anew_when_a_third_of_its_life_is_left(machine: Machine) -> None:
    machine.certificates.ensure()
    before = machine.shown
    machine.clock.advance(243 * DAY_MS)
    assert not machine.certificates.ensure()
    machine.clock.advance(DAY_MS)
    assert machine.certificates.ensure()
    assert machine.shown != before
    assert machine.days_left == pytest.approx(SERVER_LIFE.days, abs=1)


def test_a_new_name_is_taken_in_and_one_that_is_gone_changes_nothing(machine: Machine) -> None:
    machine.certificates.ensure()
    machine.names = ["pi.local"]
    assert not machine.certificates.ensure()
    machine.names = ["PI.local.", "10.0.0.9"]
    assert machine.certificates.ensure()
    server = machine.certificates.server()
    assert server is not None
    assert names_of(server.certificate) == ("pi.local", "10.0.0.9")
    assert not machine.certificates.ensure()


def test_after_20_years_the_next_authority_signs_by_itself(machine: Machine) -> None:
    machine.certificates.ensure()
    before = machine.certificates.site_ca()
    machine.clock.advance(20 * 365 * DAY_MS + DAY_MS)
    assert machine.certificates.ensure()
    after, server = machine.certificates.site_ca(), machine.certificates.server()
    assert after.current.certificate == before.next.certificate
    assert server is not None
    assert server.certificate.issuer == after.current.certificate.subject
    assert server.chain == after.vouching
    assert not machine.certificates.ensure()


def test_a_power_cut_between_the_two_files_is_mended(machine: Machine) -> None:
    machine.certificates.ensure()
    old = machine.shown
    machine.certificates.renew(authority=True)
    machine.data_dir.server_certificate.write_bytes(old)  # as if only the first had been written
    assert machine.certificates.ensure()
    assert machine.shown != old
    machine.data_dir.server_certificate.write_bytes(old[:500])
    assert machine.certificates.ensure()


def test_a_clock_in_1970_makes_certificates_that_are_good_today(machine: Machine) -> None:
    machine.clock.now, machine.clock.synced = 5_000, False
    machine.certificates.ensure()
    before = machine.shown
    assert not machine.certificates.ensure()  # by that clock it lasts for ever, and that is no reason
    machine.clock.now, machine.clock.synced = START_MS, True
    assert machine.days_left > 200
    assert not machine.certificates.ensure()
    assert machine.shown == before


def test_what_a_clock_in_the_future_made_is_made_anew_when_it_is_right(machine: Machine) -> None:
    machine.clock.now, machine.clock.synced = START_MS + 5_000 * DAY_MS, False
    machine.certificates.ensure()
    machine.clock.now = START_MS
    assert not machine.certificates.ensure()  # it may be this clock that is wrong
    machine.clock.synced = True
    assert machine.certificates.ensure()
    assert machine.days_left == pytest.approx(SERVER_LIFE.days, abs=1)


def test_a_damaged_authority_is_never_replaced_by_itself(machine: Machine) -> None:
    machine.certificates.ensure()
    content = machine.data_dir.site_ca.read_bytes()
    machine.data_dir.site_ca.write_bytes(content[:700])
    for attempt in (machine.certificates.ensure, machine.certificates.renew, machine.certificates.site_ca):
        with pytest.raises(ConfigError, match="Restore it from a backup"):
            attempt()
    with pytest.raises(AlreadyExists, match="certs init --replace"):
        machine.certificates.init()
    machine.certificates.init(replace=True)
    assert machine.certificates.site_ca().to_pem() != content


def test_keys_that_others_may_read_are_refused(machine: Machine) -> None:
    machine.certificates.ensure()
    machine.data_dir.site_ca.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        machine.certificates.ensure()


def test_a_full_disk_leaves_what_was_there(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.certificates.ensure()
    before = machine.shown

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gateway.storage.disk.os.fsync", full)
    with pytest.raises(Exception, match="No space left on device"):
        machine.certificates.renew()
    assert machine.shown == before
    assert {file.name for file in machine.data_dir.path.iterdir()} == {"site-ca.key", "server.key"}


def test_a_client_certificate_ends_with_its_authority_at_the_latest(machine: Machine) -> None:
    machine.certificates.ensure()
    identity = ClientIdentity("default/kitchen", 1)
    issued = machine.certificates.issue_client(identity, days(100_000))
    assert issued.ends == machine.certificates.site_ca().current.ends
