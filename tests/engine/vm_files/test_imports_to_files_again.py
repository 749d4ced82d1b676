# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An import of files that is run again, that finds its name taken, that is looked at first, that fails or is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import Intent
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.end_job import end_job
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import JobRequest
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files import write_images
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files.import_session import FileImport
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.parts import etag_of
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import FilesystemStore
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer import pipeline
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import Progress
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.workers import run_workers

from .shelf import GUEST, refused
from .written import WritingShelf

Options = dict[str, Any]


@pytest.fixture
def shelf(writing: WritingShelf) -> WritingShelf:
    """With an image to be imported."""
    writing.raw("web.raw")
    return writing


def errors(found: Options) -> list[Options]:
    return [one for one in found["findings"] if one["severity"] == "error"]


def bring(shelf: WritingShelf, *, check_mode: bool = False, **asked: Any) -> Options:
    return shelf.bring(shelf.at("web.raw"), asked.pop("name", "web"), check_mode=check_mode, **asked)


@pytest.mark.parametrize("disk_format", ["ova", "ova_gz", "ovf", "qcow2"])
def test_what_was_imported_from_the_same_is_left_as_it_is(shelf: WritingShelf, disk_format: str) -> None:
    first = bring(shelf, disk_format=disk_format)
    times = {name: (shelf.written / name).stat().st_mtime_ns for name in shelf.files()}
    again = bring(shelf, disk_format=disk_format)
    assert (again["changed"], again["vm"]) == (False, first["vm"])
    assert not bring(shelf, disk_format=disk_format, check_mode=True)["changed"]
    assert times == {name: (shelf.written / name).stat().st_mtime_ns for name in shelf.files()}


@pytest.mark.parametrize(("made", "asked"), [("qcow2", "raw"), ("ova", "qcow2"), ("vhd", "vhd_dynamic")])
def test_the_same_in_another_format_is_a_conflict(shelf: WritingShelf, made: str, asked: str) -> None:
    bring(shelf, disk_format=made)
    refused(lambda: bring(shelf, disk_format=asked), "conflict", f"with the format {made}, and not {asked}")


def test_a_vm_that_was_made_of_another_is_a_conflict(shelf: WritingShelf) -> None:
    bring(shelf)
    shelf.raw("web.raw", GUEST[::-1])
    refused(lambda: bring(shelf), "conflict", "web/web-disk1.qcow2 exists already")


@pytest.mark.parametrize("name", ["web.ova", "web.vmdk", "web/anything.txt"])
def test_a_name_that_others_have_is_not_taken(shelf: WritingShelf, name: str) -> None:
    path = shelf.written / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"theirs")
    refused(lambda: bring(shelf, disk_format="ova"), "conflict", f"{name} exists already")
    found = bring(shelf, disk_format="ova", check_mode=True)
    assert ([one["kind"] for one in errors(found)], found["changed"]) == (["conflict"], False)
    assert (shelf.files(), path.read_bytes()) == ([name], b"theirs")


REFUSED: tuple[tuple[Options, str, str], ...] = (
    ({"power_on": True}, "unsupported", "cannot be started"),
    ({"storage": "fast"}, "invalid_config", "placement.storage"),
    ({"storage_map": {"disk-0": "fast"}}, "invalid_config", "storage_map"),
    ({"disk_bus": "carrier-pigeon"}, "invalid_config", "no disk bus"),
    ({"disk_format": "raw_tar_gz"}, "unsupported", "the format raw_tar_gz"),
    ({"network_map": {"nowhere": "lab"}}, "invalid_config", "network_map names nowhere"),
    ({"name": "../web"}, "invalid_config", "cannot be called ../web"),
    ({"name": "a b"}, "invalid_config", "cannot be called a b"),
)


@pytest.mark.parametrize(("asked", "kind", "words"), REFUSED, ids=[next(iter(one[0])) + one[2][-6:] for one in REFUSED])
def test_what_means_nothing_here_is_refused_and_not_passed_over(
    shelf: WritingShelf, asked: Options, kind: str, words: str
) -> None:
    found = bring(shelf, check_mode=True, **asked)
    assert [(one["kind"], words in one["message"]) for one in errors(found)] == [(kind, True)]
    refused(lambda: bring(shelf, **asked), kind, words)
    assert shelf.files() == []


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize(("asked", "kind", "words"), REFUSED[:4], ids=[next(iter(one[0])) for one in REFUSED[:4]])
def test_what_means_nothing_here_is_refused_of_a_vm_that_is_there_too(
    shelf: WritingShelf, asked: Options, kind: str, words: str, check_mode: bool
) -> None:
    bring(shelf)
    refused(lambda: bring(shelf, check_mode=check_mode, **asked), kind, words)


def test_check_mode_tells_all_findings_and_writes_nothing(shelf: WritingShelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FilesystemStore, "free_space", lambda store: 1 << 20)
    (shelf.written / "web.ova").write_bytes(b"theirs")
    found = bring(shelf, power_on=True, check_mode=True)
    assert {one["kind"] for one in errors(found)} == {"unsupported", "conflict", "no_space"}
    assert found["plan"]["disks"] == [{"id": "disk-0", "size": len(GUEST), "bytes_to_read": len(GUEST)}]
    assert shelf.files() == ["web.ova"]


def test_a_place_that_is_no_folder_is_refused(shelf: WritingShelf) -> None:
    shelf.written.rmdir()
    shelf.written.write_bytes(b"a file")
    for check_mode in (True, False):
        refused(lambda: bring(shelf, check_mode=check_mode), "not_found", "is not a folder")  # noqa: B023


def test_a_file_that_appears_meanwhile_stays_and_nothing_else_does(
    shelf: WritingShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = FileImport.commit

    def later(session: FileImport) -> Any:
        (shelf.written / "web" / "web.ovf").write_bytes(b"theirs")
        return commit(session)

    monkeypatch.setattr(FileImport, "commit", later)
    refused(lambda: bring(shelf), "conflict", "web.ovf")
    assert shelf.files() == ["web/web.ovf"]
    assert (shelf.written / "web" / "web.ovf").read_bytes() == b"theirs"


def test_what_a_store_did_not_keep_is_found_before_it_is_summed_up(
    shelf: WritingShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_back = write_images._read_back

    def damaged(how: Any, limits: Any, key: str, *others: Any) -> str:
        path = shelf.written / key
        data, modified = path.read_bytes(), path.stat().st_mtime_ns
        path.write_bytes(data[:-9] + b"?" + data[-8:])
        os.utime(path, ns=(modified, modified))  # a medium that fails tells nobody
        return read_back(how, limits, key, *others)

    monkeypatch.setattr(write_images, "_read_back", damaged)
    refused(lambda: bring(shelf), "checksum_mismatch", "differs from what was sent in the part at 0")
    assert shelf.files() == []


def test_a_source_that_changes_meanwhile_leaves_nothing(shelf: WritingShelf, monkeypatch: pytest.MonkeyPatch) -> None:
    take = FileImport.take

    def changed(session: FileImport, *given: Any) -> None:
        take(session, *given)
        shelf.raw("web.raw", GUEST[::-1])

    monkeypatch.setattr(FileImport, "take", changed)
    for disk_format in ("ova", "raw"):
        refused(lambda: bring(shelf, disk_format=disk_format), "conflict", "web.raw")  # noqa: B023
        assert shelf.files() == []
        shelf.raw("web.raw")


@pytest.mark.parametrize("disk_format", ["ova", "qcow2"])
def test_an_import_that_is_cancelled_leaves_nothing(
    shelf: WritingShelf, monkeypatch: pytest.MonkeyPatch, disk_format: str
) -> None:
    take = FileImport.take

    def cancelled(session: FileImport, *given: Any) -> None:
        take(session, *given)
        os.kill(os.getpid(), signal.SIGTERM)
        session._flow.sleep(60)

    monkeypatch.setattr(FileImport, "take", cancelled)
    refused(lambda: bring(shelf, disk_format=disk_format), "cancelled", "SIGTERM")
    assert shelf.files() == []


@pytest.mark.parametrize(("disk_format", "count"), [("ova", 6), ("raw", 3)])
def test_as_many_threads_write_as_the_task_says(
    shelf: WritingShelf, monkeypatch: pytest.MonkeyPatch, disk_format: str, count: int
) -> None:
    seen: list[int] = []

    def counted(flow: Any, workers: int, work: Any) -> None:
        seen.append(workers)
        run_workers(flow, workers, work)

    monkeypatch.setattr(pipeline, "run_workers", counted)
    bring(shelf, disk_format=disk_format, transfer={"parallel": 3})
    assert seen == [count]  # what compresses has twice as many


@pytest.mark.parametrize("disk_format", ["ova", "qcow2"])
def test_the_disk_that_is_written_now_is_told(
    shelf: WritingShelf, monkeypatch: pytest.MonkeyPatch, disk_format: str
) -> None:
    shelf.ova("two.ova")
    told: list[int] = []
    disk = Progress.disk
    export_disk = pipeline.export_disk

    def begun(progress: Progress, number: int) -> Any:
        told.append(number)
        return disk(progress, number)

    def written(*given: Any, **options: Any) -> Any:
        told.append(-1)
        return export_disk(*given, **options)

    monkeypatch.setattr(Progress, "disk", begun)
    monkeypatch.setattr(pipeline, "export_disk", written)
    shelf.bring(shelf.at("two.ova"), disk_format=disk_format)
    assert told[-4:] == [0, -1, 1, -1]


PROGRAM = """
import sys
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.import_vm import import_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs import requests
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
url, target, state, disk_format = sys.argv[1:]
provider = requests.ProviderSpec("image", {"url": target, "storage": {}})
placement = Placement("web", disk_format=disk_format)
transfer = requests.TransferOptions(state_dir=state)
import_vm(requests.ImportRequest(provider, requests.StoreSpec(url), placement, transfer=transfer), False)
"""


def kill(shelf: WritingShelf, failpoint: str, disk_format: str) -> None:
    environment = {**os.environ, "VMFERRY_FAILPOINT": failpoint, "PYTHONPATH": os.pathsep.join(sys.path)}
    where = (shelf.at("web.raw"), shelf.written.as_uri(), str(shelf.folder / "state"), disk_format)
    done = subprocess.run([sys.executable, "-c", PROGRAM, *where], env=environment, check=False)
    assert done.returncode == -9


@pytest.mark.parametrize(
    ("failpoint", "disk_format"),
    [("noted", "qcow2"), ("window-delivered", "ova"), ("files_sent", "ova"), ("text_written", "qcow2")],
)
def test_what_a_killed_import_left_is_no_vm_and_the_next_run_removes_it(
    shelf: WritingShelf, failpoint: str, disk_format: str
) -> None:
    kill(shelf, failpoint, disk_format)
    assert "vmferry-import-web.json" in shelf.files()
    assert shelf.told() == []
    other = {"ova": "qcow2", "qcow2": "ova"}[disk_format]
    bring(shelf, disk_format=other)
    assert [vm["name"] for vm in shelf.told()] == ["web"]
    assert [name for name in shelf.files() if name.endswith((".part", ".json"))] == []
    assert (shelf.written / "web.ova").exists() == (other == "ova")
    assert (shelf.written / "web").exists() == (other != "ova")


@pytest.mark.parametrize("disk_format", ["ova", "qcow2"])
def test_a_vm_that_was_whole_when_its_import_was_killed_is_found(shelf: WritingShelf, disk_format: str) -> None:
    kill(shelf, "files_whole", disk_format)
    assert [vm["name"] for vm in shelf.told()] == ["web"]
    assert not bring(shelf, disk_format=disk_format)["changed"]
    assert "vmferry-import-web.json" not in shelf.files()


def test_what_a_killed_import_left_is_removed_by_cancelling_its_job(shelf: WritingShelf) -> None:
    kill(shelf, "text_written", "qcow2")
    (record,) = (shelf.folder / "state" / "jobs").iterdir()
    state = str(shelf.folder / "state")
    asked = JobRequest(record.name, "cancelled", timeout=30.0, state_dir=state, provider=shelf.target)
    refused(lambda: shelf.told("web"), "busy", "is being written by an import, or by one that died")
    assert end_job(asked, False)["changed"]
    assert shelf.files() == []


def note_of(shelf: WritingShelf, **fields: Any) -> None:
    """As an import that wrote its checksums leaves it, by another owner."""
    (shelf.written / "web").mkdir()
    for name in ("web-disk1.qcow2", "web.mf"):
        (shelf.written / "web" / name).write_bytes(b"begun")
    now = time.time()
    made = {"attempt": "1a2b3c4d", "keys": ["web/web.ovf", "web/web.mf", "web/web-disk1.qcow2"]}
    intent = Intent(
        f"20261122T110000Z-{made['attempt']}", "j" * 32, "made-of", "web", now, now + 300, {}, written_at=now
    )
    etags = {key: etag_of((shelf.written / key).stat()) for key in made["keys"][1:]}
    told = {**json.loads(intent.to_json()), **made, "made": etags, **fields}
    (shelf.written / "vmferry-import-web.json").write_text(json.dumps(told))


def test_an_import_that_lives_on_another_host_is_busy(shelf: WritingShelf) -> None:
    note_of(shelf, owner={"hostname": "elsewhere", "boot_id": "other", "pid": 4711})
    before = shelf.files()
    refused(lambda: bring(shelf), "busy", "is being written to")
    found = errors(bring(shelf, check_mode=True))
    assert [(one["kind"], "process 4711 on elsewhere" in one["message"]) for one in found] == [("busy", True)]
    assert shelf.files() == before


def test_an_import_that_was_silent_for_too_long_on_another_host_is_dead(shelf: WritingShelf) -> None:
    note_of(shelf, lease_until=time.time() - 10)
    assert errors(bring(shelf, check_mode=True)) == []
    assert bring(shelf)["changed"]
    assert shelf.files() == ["web/web-disk1.qcow2", "web/web.mf", "web/web.ovf"]


def test_an_import_that_was_taken_for_dead_commits_nothing(
    shelf: WritingShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, commit = shelf.written / "vmferry-import-web.json", FileImport.commit

    def taken_over(session: FileImport) -> Any:
        note.write_bytes(note.read_bytes().replace(session._note.attempt.encode(), b"00000000"))
        return commit(session)

    monkeypatch.setattr(FileImport, "commit", taken_over)
    refused(lambda: bring(shelf, disk_format="ova"), "conflict", "took this import of web for dead")
    assert shelf.files() == [note.name]


@pytest.mark.parametrize("text", [b"no json", b'{"export_id": "20260101T000000Z-00000000"}'])
def test_a_note_that_nobody_of_ours_wrote_is_left_and_told(shelf: WritingShelf, text: bytes) -> None:
    note = shelf.written / "vmferry-import-web.json"
    note.write_bytes(text)
    with pytest.raises(VmferryError) as raised:
        bring(shelf)
    assert (raised.value.kind, note.name in raised.value.message) == ("invalid_config", True)
    assert note.read_bytes() == text
    assert bring(shelf, name="other")["changed"]
