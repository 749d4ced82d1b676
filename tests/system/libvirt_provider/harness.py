# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What these tests share: jobs, whole copies of a disk, and judges that are not ours."""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ContextManager

import libvirt

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import BlockSink, BlockSource
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import (
    Consistency,
    ExportSession,
    Tracking,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.finding import Finding
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.provider import LibvirtProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import VmSpec
from rigs.domain import Guest

STEP = 1 << 20


def new_job() -> Job:
    return Job(secrets.token_hex(16), secrets.token_hex(4), secrets.token_hex(4))


def read_all(source: BlockSource, target: Path) -> Path:
    """A raw copy, by the extents that the source announces."""
    with target.open("wb") as file:
        at = 0
        for extent in source.extents():
            assert extent.offset == at, "extents must have no gaps"
            at = extent.end
            if extent.kind == "zero":
                continue
            for start in range(extent.offset, extent.end, STEP):
                buffer = bytearray(min(STEP, extent.end - start))
                source.read_into([(start, memoryview(buffer))])
                file.seek(start)
                file.write(buffer)
        assert at == source.size, "extents must cover the disk"
        file.truncate(source.size)
    return target


def copy_into(sink: BlockSink, image: Path) -> None:
    """A raw image into a sink, zeros left out where the sink reads as zeros."""
    with image.open("rb") as file:
        at = 0
        while data := file.read(STEP):
            if any(data):
                sink.write([(at, memoryview(data))])
            elif not sink.reads_zero:
                sink.zero(at, len(data))
            at += len(data)
    sink.flush()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def nbdcopy(socket: str, export: str, target: Path) -> Path:
    """What another client reads from the same frozen view."""
    subprocess.run(["nbdcopy", f"nbd+unix:///{export}?socket={socket}", str(target)], check=True)
    return target


def target_socket(scratch: Path) -> str:
    """The socket of the only backup job under way."""
    (socket,) = scratch.glob("vmferry-*/qemu/nbd")
    return str(socket)


def open_session(
    provider: LibvirtProvider,
    name: str,
    consistency: Consistency = "auto",
    disks: tuple[str, ...] = (),
    tracking: Tracking = Tracking(),  # noqa: B008 - it never changes
    job: Job | None = None,
) -> ContextManager[ExportSession]:
    vm = provider.describe(name)
    chosen = [disk for disk in vm.disks if not disks or disk.name in disks]
    return provider.open_export(vm, chosen, consistency, job or new_job(), tracking)


def problems(provider: LibvirtProvider, vm: VmSpec, consistency: Consistency) -> list[Finding]:
    """What a preflight of all disks finds, without what is only good to know."""
    found = provider.check_export(vm, vm.disks, consistency)
    return [finding for finding in found if finding.severity != "info"]


def source_of(session: ExportSession, name: str) -> BlockSource:
    return next(disk.source for disk in session.disks if disk.spec.name == name)


def eventually(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def no_job(guest: Guest) -> bool:
    return bool(guest.domain.jobStats()["type"] == libvirt.VIR_DOMAIN_JOB_NONE)


def watchdog_of(scratch: Path) -> int:
    """The process that watches over the only export under way."""
    (said,) = scratch.glob("vmferry-*/watchdog")
    return int(said.read_text())


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def exporter(
    uri: str, scratch: Path, vm: str, consistency: str = "auto", failpoint: str = "", token: str = ""
) -> subprocess.Popen[str]:
    """A process of its own that opens an export, says so, and waits; to be killed.

    `token`: "made" for one that makes a token, "kept" for one that was about to commit.
    """
    program = (
        "import sys, time\n"
        "from system.libvirt_provider.harness import open_session\n"
        "from ansible_collections.vmferry.migrate.plugins.module_utils._providers.open import open_provider\n"
        "from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Tracking\n"
        "uri, scratch, vm, consistency, token = sys.argv[1:]\n"
        "provider = open_provider('libvirt', {'uri': uri, 'scratch_dir': scratch})\n"
        "with open_session(provider, vm, consistency, tracking=Tracking(keep=bool(token))) as session:\n"
        "    if token == 'kept':\n"
        "        session.keep_token()\n"
        "    print('OPEN', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if failpoint:
        environment["VMFERRY_FAILPOINT"] = failpoint
    return subprocess.Popen(
        [sys.executable, "-c", program, uri, str(scratch), vm, consistency, token],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def machine_of(spec: VmSpec) -> dict[str, object]:
    """What must survive a way to a store and back."""
    return {
        "cpu": spec.cpu,
        "memory": spec.memory_mb,
        "firmware": spec.firmware,
        "machine": spec.machine,
        "disks": [(disk.size, disk.bus, disk.serial) for disk in spec.disks],
    }
