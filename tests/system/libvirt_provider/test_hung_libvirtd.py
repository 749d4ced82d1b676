# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A libvirtd that hangs: it takes requests and answers nobody. libvirt itself would wait for ever."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt import backup_job
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt import connection as limits
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.connection import Connection
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.provider import LibvirtProvider
from rigs.domain import Guest
from rigs.libvirt import LibvirtRig

from .harness import eventually, is_running, no_job, open_session, read_all, source_of, watchdog_of


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("CALL_LIMIT", 1.0), ("LONG_CALL_LIMIT", 1.0), ("CLOSE_LIMIT", 0.5)):
        monkeypatch.setattr(limits, name, seconds)


@pytest.mark.parametrize("connected", [False, True])
def test_it_is_a_timeout_and_no_hang(rig: LibvirtRig, scratch: Path, busy_guest: Guest, connected: bool) -> None:
    provider = LibvirtProvider({"uri": rig.uri, "scratch_dir": str(scratch)})
    if connected:
        provider.describe("busy")
    with rig.hang():
        started = time.monotonic()
        with pytest.raises(VmferryError, match="did not answer") as caught:
            provider.describe("busy")
        provider.close()
        assert time.monotonic() - started < 5
    assert caught.value.kind == "timeout"
    assert "Restarting" in caught.value.hint
    eventually(lambda: describes(provider))
    provider.close()


def describes(provider: LibvirtProvider) -> bool:
    try:
        return provider.describe("busy").name == "busy"
    except VmferryError:
        return False


def test_an_export_ends_well_and_its_watchdog_ends_the_job(
    provider: LibvirtProvider, rig: LibvirtRig, busy_guest: Guest, scratch: Path, tmp_path: Path
) -> None:
    with ExitStack() as hanging:
        with open_session(provider, "busy", "crash_consistent") as session:
            read_all(source_of(session, "vdb"), tmp_path / "copy")
            hanging.enter_context(rig.hang())
        assert is_running(watchdog_of(scratch))
    eventually(lambda: no_job(busy_guest))
    eventually(lambda: not list(scratch.iterdir()))


def test_a_backup_job_that_it_begins_much_later_is_aborted(
    provider: LibvirtProvider,
    rig: LibvirtRig,
    busy_guest: Guest,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It answers that it is there, and then hangs with the request in its hands."""
    really_begin, really_ask = backup_job.begin, Connection.call

    with ExitStack() as hanging:

        def ask_and_hang(connection: Connection, doing: str, work: Any, **limits: Any) -> Any:
            found = really_ask(connection, doing, work, **limits)
            hanging.enter_context(rig.hang())
            return found

        def begin(*what: Any) -> None:
            with monkeypatch.context() as patched:
                patched.setattr(Connection, "call", ask_and_hang)
                really_begin(*what)

        monkeypatch.setattr(backup_job, "begin", begin)
        with pytest.raises(VmferryError, match="did not answer"), open_session(provider, "busy", "crash_consistent"):
            pass
        assert is_running(watchdog_of(scratch)), "nobody would look for the job"
    eventually(lambda: not list(scratch.iterdir()), 75)
    assert no_job(busy_guest)
