# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A dead exporter never leaves a job, a file, a frozen or a paused guest behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.image_lock import ImageLock
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt import backup_job, guest_freeze
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.connection import Connection
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.provider import LibvirtProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.watchdog_launcher import (
    WatchdogProcess,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.work_folder import WorkFolder
from rigs.domain import Guest
from rigs.libvirt import LibvirtRig

from .harness import (
    eventually,
    exporter,
    is_running,
    new_job,
    no_job,
    open_session,
    problems,
    read_all,
    source_of,
    watchdog_of,
)


@pytest.fixture
def tiny_scratch(rig: LibvirtRig) -> Iterator[Path]:
    """A file system of its own, so that it can run low."""
    folder = rig.directory / "tiny"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def test_a_killed_exporter_is_cleaned_up_after_within_seconds(
    rig: LibvirtRig, busy_guest: Guest, scratch: Path
) -> None:
    process = exporter(rig.uri, scratch, "busy", "crash_consistent")
    assert process.stdout is not None
    assert process.stdout.readline() == "OPEN\n"
    assert not no_job(busy_guest)
    watchdog = watchdog_of(scratch)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    eventually(lambda: no_job(busy_guest))
    eventually(lambda: not list(scratch.iterdir()))
    eventually(lambda: not is_running(watchdog))
    assert busy_guest.console.run("echo alive") == "alive"


def test_a_guest_that_an_exporter_froze_and_left_is_thawed(rig: LibvirtRig, busy_guest: Guest, scratch: Path) -> None:
    process = exporter(rig.uri, scratch, "busy", "quiesced", failpoint="frozen")
    assert process.wait() == -signal.SIGKILL
    busy_guest.console.run("echo thawed > /mnt/thawed; sync", 15)
    eventually(lambda: not list(scratch.iterdir()))


def test_a_killed_exporter_is_cleaned_up_after_as_soon_as_libvirt_is_back(
    rig: LibvirtRig, busy_guest: Guest, scratch: Path
) -> None:
    process = exporter(rig.uri, scratch, "busy", "crash_consistent")
    assert process.stdout is not None
    process.stdout.readline()
    rig.kill()
    process.kill()
    process.wait()
    rig.start()
    eventually(lambda: no_job(busy_guest))
    eventually(lambda: not list(scratch.iterdir()))


def test_the_watchdog_ends_with_the_export(provider: LibvirtProvider, busy_guest: Guest, scratch: Path) -> None:
    with open_session(provider, "busy", "crash_consistent"):
        watchdog = watchdog_of(scratch)
        assert is_running(watchdog)
    assert not is_running(watchdog)


def test_the_watchdog_keeps_nothing_of_the_exporter_open(
    provider: LibvirtProvider, busy_guest: Guest, scratch: Path
) -> None:
    with open_session(provider, "busy", "crash_consistent"):
        watchdog = watchdog_of(scratch)
        descriptors = {fd.name: str(fd.readlink()) for fd in Path(f"/proc/{watchdog}/fd").iterdir()}
        assert descriptors.pop("0").startswith("pipe:")
        assert set(descriptors.values()) == {"/dev/null"}
        assert os.getsid(watchdog) == watchdog


def test_a_scratch_that_runs_low_ends_the_export_and_not_the_guest(
    rig: LibvirtRig, busy_guest: Guest, tiny_scratch: Path, tmp_path: Path
) -> None:
    busy_guest.console.run("dd if=/dev/urandom of=/dev/vdb bs=1M count=60 conv=notrunc,fsync")
    provider = LibvirtProvider({"uri": rig.uri, "scratch_dir": str(tiny_scratch)})
    with pytest.raises(VmferryError, match="scratch folder") as caught:  # noqa: PT012, SIM117
        with open_session(provider, "busy", "crash_consistent", ("vdb",)) as session:
            busy_guest.console.run("dd if=/dev/zero of=/dev/vdb bs=1M count=40 conv=notrunc,fsync", 60)
            eventually(lambda: no_job(busy_guest))
            read_all(source_of(session, "vdb"), tmp_path / "image")
    assert caught.value.kind == "no_space"
    assert busy_guest.console.run("dd if=/dev/urandom of=/dev/vdb bs=1M count=1 conv=fsync 2>&1 && echo ok").endswith(
        "ok"
    )
    assert not list(tiny_scratch.iterdir())
    provider.close()


def test_a_scratch_on_which_not_even_a_name_fits_ends_the_export_and_not_the_guest(
    rig: LibvirtRig, busy_guest: Guest, tiny_scratch: Path, tmp_path: Path
) -> None:
    """Out of inodes: the watchdog cannot leave its word why the job ended, and ends it all the same."""
    provider = LibvirtProvider({"uri": rig.uri, "scratch_dir": str(tiny_scratch)})
    with pytest.raises(VmferryError) as caught:  # noqa: PT012, SIM117
        with open_session(provider, "busy", "crash_consistent") as session:
            (tiny_scratch / "filler").touch()
            room = os.statvfs(tiny_scratch)
            full = f"remount,nr_inodes={room.f_files - room.f_ffree}"
            subprocess.run(["mount", "-o", full, str(tiny_scratch)], check=True)
            (tiny_scratch / "filler").write_bytes(bytes(40 << 20))
            eventually(lambda: no_job(busy_guest))
            read_all(source_of(session, "vdb"), tmp_path / "lost")
    assert caught.value.kind in ("no_space", "conflict")
    assert busy_guest.domain.state()[0] == 1
    assert [path.name for path in tiny_scratch.iterdir()] == ["filler"]
    provider.close()


def test_the_watchdog_outlives_what_ends_its_exporter_politely(
    rig: LibvirtRig, busy_guest: Guest, scratch: Path
) -> None:
    """As systemd stops a service: TERM to every process, and later KILL to those that are left."""
    process = exporter(rig.uri, scratch, "busy", "crash_consistent")
    assert process.stdout is not None
    assert process.stdout.readline() == "OPEN\n"
    watchdog = watchdog_of(scratch)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(watchdog, number)
    process.kill()
    process.wait()
    eventually(lambda: no_job(busy_guest))
    eventually(lambda: not list(scratch.iterdir()))
    eventually(lambda: not is_running(watchdog))


def test_a_dead_watchdog_has_a_successor_that_knows_as_much(rig: LibvirtRig, busy_guest: Guest, scratch: Path) -> None:
    process = exporter(rig.uri, scratch, "busy", "crash_consistent")
    assert process.stdout is not None
    assert process.stdout.readline() == "OPEN\n"
    first = watchdog_of(scratch)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: watchdog_of(scratch) != first)
    process.kill()
    process.wait()
    eventually(lambda: no_job(busy_guest))
    eventually(lambda: not list(scratch.iterdir()))


def test_an_export_that_nobody_can_watch_over_ends(
    provider: LibvirtProvider, busy_guest: Guest, scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(VmferryError, match="watchdog"):  # noqa: PT012, SIM117
        with open_session(provider, "busy", "crash_consistent") as session:
            monkeypatch.setattr(sys, "executable", "/bin/false")
            os.kill(watchdog_of(scratch), signal.SIGKILL)
            time.sleep(3)
            read_all(source_of(session, "vdb"), tmp_path / "unwatched")
    assert no_job(busy_guest)


def test_a_scratch_with_no_room_is_found_before(rig: LibvirtRig, busy_guest: Guest, tiny_scratch: Path) -> None:
    with (tiny_scratch / "filler").open("wb") as file:
        file.write(bytes(30 << 20))
    provider = LibvirtProvider({"uri": rig.uri, "scratch_dir": str(tiny_scratch)})
    vm = provider.describe("busy")
    findings = problems(provider, vm, "auto")
    assert [(finding.severity, finding.kind) for finding in findings] == [("error", "no_space")]
    provider.close()


def test_an_agent_that_hangs_costs_consistency_and_leaves_nothing_frozen(
    provider: LibvirtProvider, busy_guest: Guest, scratch: Path
) -> None:
    busy_guest.console.run("kill -STOP $(pidof qemu-ga)")
    try:
        with open_session(provider, "busy") as session:
            assert session.consistency == "crash_consistent"
            assert "crash consistent" in session.warnings[0]
    finally:
        busy_guest.console.run("kill -CONT $(pidof qemu-ga)")
    busy_guest.wait_for_agent()
    busy_guest.console.run("echo thawed > /mnt/hung; sync", 15)
    eventually(lambda: not list(scratch.iterdir()))


def test_a_guest_that_freezes_after_nobody_waits_for_it_is_thawed_while_the_export_goes_on(
    provider: LibvirtProvider, busy_guest: Guest, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_freeze, "AGENT_TIMEOUT", 1)
    with slow_freeze(busy_guest, seconds=5), open_session(provider, "busy") as session:
        assert session.consistency == "crash_consistent"
        hooked = "while [ ! -e /run/froze ]; do sleep 0.1; done"
        busy_guest.console.run(f"{hooked}; echo thawed > /mnt/late; sync", 20)
        assert list(scratch.iterdir()), "the export is over: the test proves nothing"
    busy_guest.wait_for_agent()


@contextmanager
def slow_freeze(guest: Guest, seconds: int) -> Iterator[None]:
    """The agent's hook takes as long as, say, a database that flushes."""
    console = guest.console
    agent = console.run("tr '\\0' ' ' < /proc/$(pidof qemu-ga)/cmdline").strip()
    stop = "kill $(pidof qemu-ga); while pidof qemu-ga; do sleep 0.1; done"
    console.run(f"printf '#!/bin/sh\n[ \"$1\" = freeze ] && sleep {seconds} && touch /run/froze\ntrue\n' > /run/hook")
    console.run(f"chmod +x /run/hook; {stop}; {agent} -F/run/hook")
    guest.wait_for_agent()
    try:
        yield
    finally:
        console.run(f"rm -f /run/froze /run/hook; {stop}; {agent}")
        guest.wait_for_agent()


def test_an_exporter_out_of_a_zip_has_a_watchdog_too(
    rig: LibvirtRig, busy_guest: Guest, scratch: Path, tmp_path: Path
) -> None:
    """As Ansible ships modules: the package lies in a zip file, which may be gone before the watchdog has to act."""
    archive = tmp_path / "payload.zip"
    root = Path(__file__).resolve().parents[3]
    with zipfile.ZipFile(archive, "w") as payload:
        for package in ("ansible_collections", "ansible_collections/vmferry", "ansible_collections/vmferry/migrate"):
            payload.writestr(f"{package}/__init__.py", "")
        payload.writestr("ansible_collections/vmferry/migrate/plugins/__init__.py", "")
        for path in (root / "plugins" / "module_utils").rglob("*.py"):
            payload.write(path, f"ansible_collections/vmferry/migrate/{path.relative_to(root)}")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from ansible_collections.vmferry.migrate.plugins.module_utils._providers import open as opener\n"
        "from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Job\n"
        "assert '.zip' in opener.__file__\n"
        "provider = opener.open_provider('libvirt', {'uri': sys.argv[2], 'scratch_dir': sys.argv[3]})\n"
        "vm = provider.describe('busy')\n"
        "with provider.open_export(vm, vm.disks, 'crash_consistent', Job('zip', '00112233')):\n"
        "    print('OPEN', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(archive), rig.uri, str(scratch)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "OPEN\n"
    archive.unlink()
    process.kill()
    process.wait()
    eventually(lambda: no_job(busy_guest))
    eventually(lambda: not list(scratch.iterdir()))


def test_a_backup_job_that_begins_after_its_exporter_gave_up_is_aborted(
    provider: LibvirtProvider, busy_guest: Guest, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection broke before libvirt's answer came; libvirt itself lives, and carries the request out."""
    late = []

    def lost(connection: Connection, uuid: str, vm_name: str, xml: str, checkpoint: str | None) -> None:
        late.append((xml, checkpoint))
        raise VmferryError("network", "Beginning the backup job failed: client socket is closed.")

    monkeypatch.setattr(backup_job, "begin", lost)
    with pytest.raises(VmferryError, match="client socket"), open_session(provider, "busy", "crash_consistent"):
        pass
    busy_guest.domain.backupBegin(*late[0])
    assert not no_job(busy_guest)
    eventually(lambda: no_job(busy_guest))
    eventually(lambda: not list(scratch.iterdir()))


def test_a_backup_job_that_libvirt_refuses_leaves_nothing_to_wait_for(
    provider: LibvirtProvider, busy_guest: Guest, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_job, "backup_xml", lambda *_unused: "<domainbackup mode='pull'><nonsense")
    with pytest.raises(VmferryError, match="Beginning"), open_session(provider, "busy", "crash_consistent"):
        pass
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("heir", ["has a watchdog", "has none yet"])
def test_one_whose_time_is_over_leaves_what_somebody_went_on_with_while_it_could_not_be_undone(
    rig: LibvirtRig, scratch: Path, tmp_path: Path, heir: str
) -> None:
    """Whoever copies an image locks it, so that no bitmap can be removed from it."""
    image, token = tmp_path / "disk.qcow2", "vmferry-1a2b3c4d-5e6f7a8b"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "1M"], check=True)
    subprocess.run(["qemu-img", "bitmap", "--add", str(image), token], check=True)
    job, uuid = new_job(), "1f0c9a2b-7d1e-4c58-9a51-0c3a0d5b6e77"
    folder = WorkFolder.create(str(scratch), "export", uuid, "gone", job)
    folder.release()

    def watchdog() -> WatchdogProcess:
        return WatchdogProcess.start(uri=rig.uri, uuid=uuid, folder=folder.path, token=token, images=[str(image)])

    def bitmap_is_there() -> bool:
        told = subprocess.run(["qemu-img", "info", "-U", str(image)], check=True, capture_output=True, text=True)
        return token in told.stdout

    lock = ImageLock([str(image)])
    first = watchdog()
    process = watchdog_of(scratch)
    first.abandon()
    time.sleep(0.5)
    assert is_running(process)
    WorkFolder.take_over(str(scratch), uuid, job)
    second = watchdog() if heir == "has a watchdog" else None
    time.sleep(0.5)  # in which it sees that
    lock.close()
    time.sleep(1)
    assert bitmap_is_there()
    if second is not None:
        assert not is_running(process)
        second.finish()
        folder.remove()
    else:
        folder.release()  # it gave up: nobody goes on with it
        eventually(lambda: not bitmap_is_there() and not is_running(process))
