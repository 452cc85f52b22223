"""The systemd unit under which the gateway runs, and how it is told from one that somebody has edited.

What it takes away was tried against what the gateway does: `tests/cli/test_service_unit.py` has systemd judge it, and
runs a gateway with its system calls and its memory held against it.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from gateway import __version__

USER = "neurogate"
UNIT = "neurogate.service"
FOLDER = Path("/var/lib/neurogate")
CONFIG = Path("/etc/neurogate/neurogate.toml")
ENVIRONMENT = Path("/etc/neurogate/environment")

BACKOFF_SINCE = 254
"""The systemd that can wait longer after each failure; Debian 12 has 252."""

_BACKOFF = """\
RestartSteps=6
RestartMaxDelaySec=2min
"""

_SEAL = re.compile(r"# Unchanged since it was written: ([0-9a-f]{64})\n")

_TEMPLATE = """\
# Written by `neurogate service install`, neurogate {version}. Do not edit it: sudo systemctl edit neurogate

[Unit]
Description=neurogate: takes readings from sensors, and delivers them
# It needs no network to start: readings of serial lines are taken in, and listeners wait for whoever comes.
After=network.target
# The kernel must know USB's serial ports when the devices below are allowed, also while none is plugged in.
Wants=modprobe@usbserial.service modprobe@cdc_acm.service
After=modprobe@usbserial.service modprobe@cdc_acm.service
RequiresMountsFor={data_dir}
# It never gives up: what has failed may be mended without anybody coming by.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} run --config {config}
# For ${{env:NAME}} in the configuration: NAME=value, a line each; readable by root alone.
EnvironmentFile=-{environment}
User={user}
Group={user}
StateDirectory=neurogate
StateDirectoryMode=0700
ConfigurationDirectory=neurogate
ConfigurationDirectoryMode=0750
{read_write}UMask=0077

# Not after 78: the configuration is wrong, and starting again mends nothing.
Restart=on-failure
RestartPreventExitStatus=78
RestartSec=5s
{backoff}# The gateway asks for more while it repairs or migrates its store.
TimeoutStartSec=2min
TimeoutStopSec=2min
WatchdogSec=60s

LimitNOFILE=65536
# No dump of memory with keys in it.
LimitCORE=0
# Whatever else this machine does may be started again; a reading is taken once.
OOMScoreAdjust=-500
# A bound for a machine that does more: it should be well above what `systemctl status neurogate` shows.
#MemoryMax=512M

# Serial ports stay: so not PrivateDevices. Which ones the group dialout may open is the kernel's to say.
DevicePolicy=closed
DeviceAllow=char-ttyUSB rw
DeviceAllow=char-ttyACM rw
DeviceAllow=char-ttyAMA rw
DeviceAllow=char-ttyS rw

CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectProc=invisible
PrivateMounts=yes
ProtectHostname=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
# It asks whether the clock is synchronised, and cannot set it: so not ProtectClock, which forbids both.
SystemCallFilter=adjtimex clock_adjtime clock_adjtime64
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


@dataclass(slots=True, frozen=True)
class Unit:
    """What differs from one machine to another."""

    program: Path
    """The executable `neurogate`."""
    config: Path
    data_dir: Path
    systemd: int
    """Its version."""

    def text(self) -> str:
        """Return the unit file, with a line that tells whether it is as it was written."""
        body = _TEMPLATE.format(
            version=__version__,
            program=_escaped(self.program),
            config=_escaped(self.config),
            data_dir=_escaped(self.data_dir),
            environment=ENVIRONMENT,
            user=USER,
            read_write="" if self.data_dir == FOLDER else f"ReadWritePaths={_escaped(self.data_dir)}\n",
            backoff=_BACKOFF if self.systemd >= BACKOFF_SINCE else "",
        )
        return f"{body}\n# Unchanged since it was written: {_digest(body)}\n"


def is_ours(text: str) -> bool:
    """Whether a unit file is as some release of ours has written it."""
    body, _, seal = text.rpartition("\n# ")
    found = _SEAL.fullmatch(f"# {seal}")
    return found is not None and found[1] == _digest(body)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _escaped(path: Path) -> str:
    """Return a path as systemd reads it: % is a specifier there, and $ a variable."""
    text = str(path).replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if " " in text else text
