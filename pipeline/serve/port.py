"""The port of a server on loopback: a free one, and whether it is ours when somebody answers there.

Between the choice of a port and vLLM's own binding lie ten seconds and more, in which another user of the machine may
take it; our key must not be sent to them.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Final

from pipeline.errors import UserError

HOST: Final = "127.0.0.1"
_LISTENS: Final = "0A"  # TCP_LISTEN in /proc/net/tcp (proc(5))


def free_port(wanted: int | None) -> int:
    """Return `wanted` if it can be bound on loopback, or a free port.

    Raises:
        UserError: the wanted port is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted or 0))
        except OSError as error:
            raise UserError(
                f"serve.port: {wanted} cannot be had on {HOST}: {error.strerror}",
                "end what uses it, or leave serve.port=null for a free one",
            ) from None
        return int(probe.getsockname()[1])


def listener(port: int, net: Path = Path("/proc/net")) -> int | None:
    """Return the user (uid) whose program is reached at a port of loopback; None where none is, or nothing tells."""
    found: dict[str, int] = {}
    for table in ("tcp", "tcp6"):
        try:
            rows = [line.split() for line in (net / table).read_text().splitlines()[1:]]
        except OSError:  # no Linux, or no IPv6
            continue
        for row in rows:
            address, _, number = row[1].rpartition(":")
            if row[3] == _LISTENS and int(number, 16) == port:
                found[address] = int(row[7])
    return next((found[address] for address in _reached() if address in found), None)


def _reached() -> list[str]:
    """Return the addresses at which a listener is reached from loopback, the closest first, as /proc/net writes them.

    IPv4's come before IPv6's, whose sockets may take IPv4's connections too. Four bytes at a time are written as a
    number of this machine's byte order.
    """
    none, ours, mapped = bytes(4), socket.inet_aton(HOST), b"\0\0\xff\xff"
    addresses = ((ours,), (none,), (none, none, mapped, ours), (none,) * 4)
    return ["".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words) for words in addresses]


def require_own(port: int, net: Path = Path("/proc/net")) -> None:
    """Make sure that nobody else listens where our server should; call it before a key is sent there.

    Raises:
        UserError: another user does, who took the port before our server could.
    """
    uid = listener(port, net)
    if uid not in (None, os.geteuid()):
        raise UserError(
            f"serve.port: {port} on {HOST} was taken by another user of this machine (uid {uid}) while the server "
            "started; no key and no prompt was sent there",
            "run the same command again: it chooses another port, unless serve.port names one",
        )
