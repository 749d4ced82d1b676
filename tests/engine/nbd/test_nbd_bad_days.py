# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that fail, stall, crawl or die: the kind of error, and what is retried."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.source import NbdSource
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.transport import Address
from rigs import nbd
from rigs.nbd_images import MIB, read_all


def test_reads_that_fail_now_and_then_are_made_again(pattern: bytes) -> None:
    pauses: list[float] = []
    with nbd.nbdkit("--filter=error", "pattern", "4M", "error-pread-rate=30%", "error=EIO") as path:
        source = NbdSource(Address.unix(path), retries=50, sleep=pauses.append)
        for _unused in range(4):
            assert read_all(source, step=256 * 1024) == pattern
        source.close()
    assert pauses, "the server was told to fail"


def test_a_lasting_failure_is_reported_after_the_retries(tmp_path: Path) -> None:
    pauses: list[float] = []
    with nbd.nbdkit("--filter=error", "pattern", "4M", "error-pread-rate=100%", "error=EIO") as path:
        source = NbdSource(Address.unix(path), retries=2, sleep=pauses.append)
        with pytest.raises(VmferryError, match="input/output error"):
            source.read_into([(0, memoryview(bytearray(512)))])
        source.close()
    assert len(pauses) == 2
    assert pauses[1] > pauses[0]


def test_a_refused_read_is_not_retried() -> None:
    pauses: list[float] = []
    with nbd.nbdkit("--filter=error", "pattern", "4M", "error-pread-rate=100%", "error=EPERM") as path:
        source = NbdSource(Address.unix(path), sleep=pauses.append)
        with pytest.raises(VmferryError) as caught:
            source.read_into([(0, memoryview(bytearray(512)))])
        source.close()
    assert (caught.value.kind, pauses) == ("permission_denied", [])


def test_a_silent_server_is_a_timeout() -> None:
    with nbd.nbdkit("--filter=delay", "pattern", "4M", "rdelay=5") as path:
        source = NbdSource(Address.unix(path), idle_timeout=0.3, retries=0)
        started = time.monotonic()
        with pytest.raises(VmferryError) as caught:
            source.read_into([(0, memoryview(bytearray(512)))])
        assert caught.value.kind == "timeout"
        assert time.monotonic() - started < 4  # of the server's five
        source.close()


def test_a_slow_server_is_no_timeout(pattern: bytes) -> None:
    """8 Mbit/s, after a first burst of 2 MiB: longer than the idle timeout, but bytes keep coming."""
    words = ("--filter=rate", "--filter=blocksize-policy", "pattern", "4M", "rate=8M", "blocksize-maximum=16K")
    with nbd.nbdkit_tcp(*words) as port:
        source = NbdSource(Address.tcp("127.0.0.1", port), idle_timeout=0.7, retries=0)
        started = time.monotonic()
        assert read_all(source)[: 3 * MIB] == pattern[: 3 * MIB]
        assert time.monotonic() - started > 0.7
        source.close()


def test_a_server_that_dies_is_network(tmp_path: Path) -> None:
    with nbd.socket_path() as path:
        command = nbd.nbdkit_command(f"--unix={path}", ("--filter=delay", "pattern", "4M", "rdelay=5"))
        with nbd.listening(command, str(path)) as server:
            source = NbdSource(Address.unix(path), retries=1, sleep=lambda seconds: None)
            threading.Timer(0.2, os.kill, (server.pid, signal.SIGKILL)).start()
            with pytest.raises(VmferryError) as caught:
                source.read_into([(0, memoryview(bytearray(512)))])
            source.close()
    assert caught.value.kind == "network"


def test_a_server_that_comes_back_is_read_on(pattern: bytes) -> None:
    with nbd.socket_path() as path:
        command = nbd.nbdkit_command(f"--unix={path}", ("pattern", "4M"))
        with nbd.listening(command, str(path)) as server:
            source = NbdSource(Address.unix(path))
            source.read_into([(0, memoryview(bytearray(512)))])
            server.kill()
        path.unlink(missing_ok=True)
        with nbd.listening(command, str(path)):
            assert read_all(source) == pattern
            source.close()


def test_a_disk_that_changed_its_size_meanwhile_is_a_conflict() -> None:
    with nbd.socket_path() as path:
        with nbd.listening(nbd.nbdkit_command(f"--unix={path}", ("pattern", "4M")), str(path)) as server:
            source = NbdSource(Address.unix(path))
            server.kill()
        path.unlink(missing_ok=True)
        with nbd.listening(nbd.nbdkit_command(f"--unix={path}", ("pattern", "5M")), str(path)):
            with pytest.raises(VmferryError) as caught:
                source.read_into([(0, memoryview(bytearray(512)))])
            source.close()
    assert caught.value.kind == "conflict"


def test_nobody_listens(tmp_path: Path) -> None:
    for address in (Address.unix("/nonexistent/socket"), Address.tcp("127.0.0.1", nbd.free_port())):
        with pytest.raises(VmferryError, match=r"Connecting to NBD server .* failed") as caught:
            NbdSource(address, retries=0)
        assert caught.value.kind == "network"


def test_closing_wakes_whoever_reads() -> None:
    with nbd.nbdkit("--filter=delay", "pattern", "4M", "rdelay=5") as path:
        source = NbdSource(Address.unix(path), idle_timeout=30)
        started = time.monotonic()
        threading.Timer(0.2, source.close).start()
        with pytest.raises(VmferryError) as caught:
            source.read_into([(0, memoryview(bytearray(512)))])
        assert caught.value.kind == "cancelled"
        assert time.monotonic() - started < 4  # of the server's five
