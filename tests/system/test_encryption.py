# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Encrypted exports of real VMs: killed, gone on with, imported; the passphrase is on no command line, in no file."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.encryption import Keyring
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.seals import Seals
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import BootMarkers
from rigs import guests
from rigs.domain import Disk as MachineDisk
from rigs.domain import Guest, Machine, define_and_start
from rigs.libvirt import LibvirtRig
from rigs.mounting import mounted_tmpfs

from .conftest import small_disk
from .exports import MIB, PATIENCE, Bench, ModuleProcess, compare, refused

WORD = "correct horse battery staple"
STEP = 4 << 20


@pytest.fixture(scope="module")
def secretive(rig: LibvirtRig) -> Iterator[Guest]:
    disk = small_disk(rig.directory / "secretive.qcow2", "secretive", "qcow2")
    guest = define_and_start(rig, Machine("secretive", disks=(MachineDisk(disk, "qcow2"),), memory_mib=32))
    guest.console.wait_for(guests.boot_marker("secretive"))
    yield guest
    guest.destroy()
    disk.unlink()


def command_lines() -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return "\n".join(found)


def watched(module: ModuleProcess) -> None:
    """To its end, with a look at what every process was started with."""
    deadline = time.monotonic() + PATIENCE * 2
    while module.process.poll() is None:
        assert time.monotonic() < deadline
        assert WORD not in command_lines()
        time.sleep(0.02)


def assert_nowhere(bench: Bench) -> None:
    for path in bench.folder.rglob("*"):
        if path.is_file():
            assert WORD.encode() not in path.read_bytes(), path
    stored = bench.keys()
    assert not [key for key in stored if WORD.encode() in bench.read(key)]


def seals(word: str = WORD) -> Seals:
    ring = Keyring(word.encode())
    return Seals(signers=(ring,), keyring=ring)


@pytest.mark.parametrize(("kind", "failpoint"), [("bench", "journal-written:1"), ("s3_bench", "journal-closed")])
def test_a_killed_export_is_gone_on_with_and_imported(
    kind: str,
    failpoint: str,
    secretive: Guest,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench: Bench = request.getfixturevalue(kind)
    # By one reader: of several, the first might be the last to have its window stored.
    asked: dict[str, Any] = bench.module_arguments(vm="secretive", parallel=1, encryption={"passphrase": WORD})
    monkeypatch.setenv("VMFERRY_FAILPOINT", failpoint)
    with bench.running_module("vm_export", asked) as killed:
        watched(killed)
        assert killed.process.returncode == -signal.SIGKILL
    monkeypatch.delenv("VMFERRY_FAILPOINT")
    assert_nowhere(bench)
    with bench.running_module("vm_export", asked) as again:
        watched(again)
        told = again.result()
    assert WORD not in again.output + again.errors
    assert told["resumed"]["reason"] == ""
    assert told["resumed"]["bytes_kept"] >= STEP
    refused(lambda: bench.import_("plain", vm="secretive"), "invalid_config", "no passphrase")
    refused(lambda: bench.import_("other", vm="secretive", seals=seals("another word")), "unauthenticated", "not open")
    bench.assert_no_machine("plain")
    made = bench.import_("restored", vm="secretive", seals=seals())
    (disk,) = made["vm"]["disks"]
    compare(disk["source"], disk["format"], bench.rig.directory / "secretive.qcow2", "qcow2")
    bench.rig.connect().lookupByName(made["vm"]["name"]).undefine()
    assert_nowhere(bench)
    bench.assert_nothing_left("secretive")


def test_an_increment_of_what_changed_stands_on_an_encrypted_export(bench: Bench, linux: Guest, tmp_path: Path) -> None:
    linux.console.run("dd if=/dev/urandom of=/dev/vdc bs=1M count=8 conv=notrunc,fsync 2> /dev/null")
    assert bench.export("linux", disks=("vdc",), seals=seals())["export"]["mode"] == "full"
    linux.console.run("dd if=/dev/urandom of=/dev/vdc bs=64k seek=3 count=2 conv=notrunc,fsync 2> /dev/null")
    before = linux.console.run("sync; sha256sum /dev/vdc").split()[0]
    made = bench.export("linux", disks=("vdc",), seals=seals(), mode="incremental")["export"]
    (disk,) = made["disks"]
    assert (disk["bytes_changed"], made["encryption"]) == (2 * 65536, "luks")
    assert disk["bytes_read"] < MIB
    assert bench.verify(level="content", export=made["id"], seals=seals())["problems"] == []
    (tmp_path / "passphrase").write_text(WORD)
    opened = "driver=qcow2,encrypt.key-secret=key,backing.encrypt.key-secret=key"
    opened += f",file.filename={bench.stored({'export': made})}"
    asked = ["--object", f"secret,id=key,file={tmp_path / 'passphrase'}", "-O", "raw", "--image-opts", opened]
    subprocess.run(["qemu-img", "convert", *asked, str(tmp_path / "raw")], check=True)
    with (tmp_path / "raw").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == before


def test_it_boots_and_its_disks_are_plain_in_the_storage_of_the_trial_alone(
    bench: Bench, off: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may be memory: nothing of the guest is on a disk then, at any time."""
    bench.export(off, seals=seals())
    plain = random.Random(off).randbytes(MIB)[4096:4160]  # as its disk begins, see small_disk
    told: dict[str, set[str]] = {"while it boots": set(), "afterwards": set()}

    def look(when: str) -> None:
        files = [path for path in bench.folder.rglob("*") if path.is_file()]
        told[when] |= {path.parent.name for path in files if plain in path.read_bytes()}

    note = RunningJob.note
    monkeypatch.setattr(RunningJob, "note", lambda job, text: (look("while it boots"), note(job, text))[-1])
    (bench.folder / "trial").mkdir()
    with mounted_tmpfs(bench.folder / "trial"):
        refused(lambda: bench.verify(level="boot", markers=BootMarkers("x")), "invalid_config", "no passphrase")
        made = bench.verify(
            level="boot",
            storage=str(bench.folder / "trial"),
            markers=BootMarkers(f"^BOOT-OK {off} +END", timeout=PATIENCE),
            seals=seals(),
        )
        look("afterwards")
        assert list((bench.folder / "trial").iterdir()) == []
    assert made["export"]["last_verified"]["passed"]
    assert told == {"while it boots": {"trial"}, "afterwards": set()}
    assert_nowhere(bench)
    bench.assert_nothing_left(off, runs=False)
