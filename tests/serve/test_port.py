"""Whose port it is: told by the kernel's own tables, before a key is sent there."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.serve.port import HOST, free_port, listener, require_own

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
LOOPBACK, ANY, LAN, ANY6 = "0100007F", "00000000", "0909090A", "0" * 32
MAPPED = "0000000000000000FFFF00000100007F"
little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="the tables are written as on this byte order")


def tables(folder: Path, *rows: tuple[str, int, str, int]) -> Path:
    """Write /proc/net/tcp and tcp6 with rows of address, port, state and uid."""
    lines: dict[str, list[str]] = {"tcp": [], "tcp6": []}
    for address, port, state, uid in rows:
        row = f"   0: {address}:{port:04X} {ANY}:0000 {state} 00000000:00000000 00:00000000 00000000 {uid:5d} 0 77 1\n"
        lines["tcp6" if len(address) > 8 else "tcp"].append(row)
    for name, found in lines.items():
        (folder / name).write_text(HEAD + "".join(found))
    return folder


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the kernel's tables are Linux'")
def test_a_listener_of_ours_is_known_and_nobody_is_where_nobody_listens() -> None:
    with socket.socket() as mine:
        mine.bind((HOST, 0))
        port = mine.getsockname()[1]
        assert listener(port) is None, "bound, and not listening yet"
        mine.listen()
        assert listener(port) == os.geteuid()
        require_own(port)
    assert listener(free_port(None)) is None


@little_endian
def test_another_users_listener_is_told_and_nothing_is_sent_there(tmp_path: Path) -> None:
    other = os.geteuid() + 1
    for address in (LOOPBACK, ANY, MAPPED, ANY6):
        net = tables(tmp_path, (address, 8000, "0A", other))
        with pytest.raises(UserError, match=rf"8000 on 127.0.0.1 was taken by another user .*uid {other}") as error:
            require_own(8000, net)
        assert "another port" in error.value.remedy


@little_endian
def test_connections_other_ports_and_other_addresses_are_nobodys_listener(tmp_path: Path) -> None:
    other = os.geteuid() + 1
    rows = [(LOOPBACK, 8000, "01", other), (LOOPBACK, 8001, "0A", other), (LAN, 8000, "0A", other)]
    assert listener(8000, tables(tmp_path, *rows)) is None
    require_own(8000, tmp_path)


@little_endian
def test_the_closest_address_is_the_one_that_is_reached(tmp_path: Path) -> None:
    mine, other = os.geteuid(), os.geteuid() + 1
    rows = [(ANY6, 8000, "0A", other), (ANY, 8000, "0A", other), (LOOPBACK, 8000, "0A", mine)]
    assert listener(8000, tables(tmp_path, *rows)) == mine


def test_where_there_are_no_tables_nothing_is_told(tmp_path: Path) -> None:
    assert listener(8000, tmp_path / "nowhere") is None
    require_own(8000, tmp_path / "nowhere")


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        with pytest.raises(UserError, match="cannot be had"):
            free_port(taken.getsockname()[1])
