# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are written to, or replaced, while they are exported, and exports that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._appliances import checksums
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.end_job import end_job
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import JobRequest, StoreSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files import file_export, held_files
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files.held_files import has_writer
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files.provider import ImageProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.mounts import Mount
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

from .shelf import GUEST, Shelf, refused


@pytest.mark.parametrize("told", ["by the kernel", "by locks alone"])
def test_an_image_that_qemu_writes_to_is_refused(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    if told == "by locks alone":
        monkeypatch.setattr(held_files, "has_writer", lambda path: None)
    path = shelf.image("web.qcow2", "qcow2")
    command = ["qemu-io", "-f", "qcow2", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as qemu:
        assert qemu.stdin is not None
        assert qemu.stdout is not None
        qemu.stdin.write(b"length\n")
        qemu.stdin.flush()
        qemu.stdout.read(1)
        refused(lambda: shelf.export("web.qcow2"), "busy", "web.qcow2")
        qemu.stdin.close()
        qemu.wait(30)
    assert shelf.export("web.qcow2")["changed"]


@pytest.mark.parametrize(("name", "format"), [("web.raw", "raw"), ("web.qcow2", "qcow2")])
def test_no_qemu_opens_an_image_for_writing_while_it_is_exported(shelf: Shelf, name: str, format: str) -> None:
    write = ["qemu-io", "-f", format, "-c", "write 0 512", str(shelf.image(name, format))]
    with closing(open_store(shelf.images.as_uri(), {})) as store:
        provider = ImageProvider(store, is_path=True)
        vm = provider.describe(name)
        with provider.open_export(vm, vm.disks, "auto", Job("job", "aaaaaaaa")) as session:
            done = subprocess.run(write, capture_output=True, text=True, check=False)
            assert done.returncode == 1
            assert 'Failed to get "write" lock' in done.stderr
            session.confirm()
    assert subprocess.run(write, capture_output=True, check=False).returncode == 0


def test_a_writer_that_comes_later_is_seen_in_the_end(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has written nothing yet; what it may have in its cache is no file's time."""
    path = shelf.raw("web.raw")
    confirm = file_export.FileExport.confirm

    def opened(session: file_export.FileExport) -> None:
        with path.open("r+b"):
            confirm(session)

    monkeypatch.setattr(file_export.FileExport, "confirm", opened)
    refused(lambda: shelf.export("web.raw"), "busy", "web.raw is open for writing")
    assert "manifest.json" not in shelf.stored()


@pytest.mark.parametrize("name", ["web.raw", "app.ova"])
def test_a_file_that_any_program_has_open_for_writing_is_refused(shelf: Shelf, name: str) -> None:
    shelf.ova()
    shelf.raw("web.raw")
    with (shelf.images / name).open("r+b"):
        assert has_writer(str(shelf.images / name))
        told = shelf.export(name, check_mode=True)
        assert [one["kind"] for one in told["findings"]] == ["busy"]
        refused(lambda: shelf.export(name), "busy", "open for writing by another process")
    assert has_writer(str(shelf.images / name)) is False
    assert shelf.export(name)["changed"]


def test_only_the_files_of_an_ovf_have_to_hold_still(shelf: Shelf) -> None:
    for name, data in shelf.ova(checked=False).items():
        shelf.raw(f"packed/{name}", data)
    with (shelf.images / "packed/notes.log").open("wb"):
        assert shelf.export("packed/app.ovf")["changed"]
    with (shelf.images / "packed/d.vmdk").open("r+b"):
        refused(lambda: shelf.export("packed/app.ovf"), "busy", "d.vmdk is open for writing")


def test_whoever_waits_hears_that_an_appliance_is_read_for_its_checksum(shelf: Shelf) -> None:
    shelf.ova()
    heard: list[None] = []
    with closing(open_store(shelf.images.as_uri(), {})) as store:
        provider = ImageProvider(store, is_path=True, alive=lambda: heard.append(None))
        vm = provider.describe("app.ova")
        assert not heard
        with provider.open_export(vm, vm.disks, "auto", Job("job", "aaaaaaaa")):
            assert heard


def test_an_export_that_is_cancelled_while_an_appliance_is_read_for_its_checksum_ends_there(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.ova()
    go_on = RunningJob.going_on
    calls = []

    def cancelled(job: RunningJob) -> None:
        calls.append(job)
        job.flow.stop(VmferryError("cancelled", "Somebody cancelled it."))
        go_on(job)

    monkeypatch.setattr(RunningJob, "going_on", cancelled)
    monkeypatch.setattr(checksums, "_READ", checksums.PIECE)  # so that there are several
    refused(lambda: shelf.export("app.ova"), "cancelled", "Somebody cancelled it")
    assert len(calls) == 1
    assert shelf.stored() == []


def test_a_server_that_gives_no_lease_says_nothing_of_writers(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shelf.raw("web.raw")
    monkeypatch.setattr(held_files, "mount_of", lambda file: Mount("/mnt", "nfs4", "nas:/images", "/"))
    with path.open("r+b"):
        assert has_writer(str(path)) is None
        assert shelf.export("web.raw")["changed"]
    assert has_writer(str(path.with_name("gone"))) is None


@pytest.mark.parametrize("times", ["others", "put back"])
def test_a_file_that_changes_meanwhile_commits_nothing(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, times: str
) -> None:
    path = shelf.raw("web.raw")
    seen = path.stat()
    confirm = file_export.FileExport.confirm

    def changed(session: file_export.FileExport) -> None:
        with path.open("r+b") as file:
            file.write(b"later")
        os.utime(path, ns=(1, 1) if times == "others" else (seen.st_atime_ns, seen.st_mtime_ns))
        confirm(session)

    monkeypatch.setattr(file_export.FileExport, "confirm", changed)
    refused(lambda: shelf.export("web.raw"), "conflict", "was changed while it was exported")
    assert "manifest.json" not in shelf.stored()


PROGRAM = """
import sys
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import export_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs import requests
url, store, state = sys.argv[1:]
provider = requests.ProviderSpec("image", {"url": url, "storage": {}})
transfer = requests.TransferOptions(state_dir=state)
export_vm(requests.ExportRequest(provider, requests.StoreSpec(store), "web.raw", transfer=transfer), False)
"""


def killed_export(shelf: Shelf) -> None:
    environment = {**os.environ, "VMFERRY_FAILPOINT": "data-sent", "PYTHONPATH": os.pathsep.join(sys.path)}
    where = (shelf.images.as_uri(), (shelf.folder / "store").as_uri(), str(shelf.folder / "state"))
    done = subprocess.run([sys.executable, "-c", PROGRAM, *where], env=environment, check=False)
    assert done.returncode == -9


def test_an_export_that_was_killed_is_gone_on_with(shelf: Shelf) -> None:
    shelf.raw("web.raw")
    killed_export(shelf)
    (begun,) = (shelf.folder / "store").glob("*/*/intent.json")
    made = shelf.export("web.raw")
    assert (made["resumed"]["export"], made["resumed"]["reason"]) == (begun.parent.name, "")
    assert made["export"]["id"] == begun.parent.name
    assert shelf.content(made) == GUEST


def test_an_export_that_was_killed_begins_anew_where_the_file_is_another(shelf: Shelf) -> None:
    path = shelf.raw("web.raw")
    killed_export(shelf)
    path.write_bytes(GUEST[::-1])
    made = shelf.export("web.raw")
    assert "was changed since" in made["resumed"]["reason"]
    assert shelf.content(made) == GUEST[::-1]


def test_what_a_killed_export_left_is_removed_by_cancelling_its_job(shelf: Shelf) -> None:
    shelf.raw("web.raw")
    killed_export(shelf)
    assert "intent.json" in shelf.stored()
    (record,) = (shelf.folder / "state" / "jobs").iterdir()
    store, state = StoreSpec((shelf.folder / "store").as_uri()), str(shelf.folder / "state")
    asked = JobRequest(record.name, "cancelled", timeout=30.0, state_dir=state, store=store, provider=shelf.provider)
    assert end_job(asked, False)["changed"]
    assert shelf.stored() == []
    assert shelf.export("web.raw").get("resumed") is None
