# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An object becomes a file that is whole, proved and there at once; or nothing does, and the next run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from threading import Thread
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind, VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.download_object import download_object
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.storage_requests import (
    DownloadRequest,
    ObjectSpec,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer import move_bytes
from rigs.fault_proxy import Fault, FaultProxy

from .objects_rig import Places, each_kind, opened

MIB = 1024 * 1024
KEY = "isos/ä b+c%41.iso"
DATA = Random(5).randbytes(5 * MIB + 12345)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(move_bytes, "PART", MIB)


def put(spec: StoreSpec, data: bytes = DATA, checksum: str = "") -> None:
    metadata = {"vmferry-sha256": checksum} if checksum else None
    with opened(spec) as store:
        if len(data) <= 64 * MIB:
            store.put(KEY, data, metadata=metadata)


def request(spec: StoreSpec, dest: Path | str, **options: Any) -> DownloadRequest:
    state = Path(dest).parent / "state"
    options.setdefault("transfer", TransferOptions(state_dir=str(state), max_retries=0, parallel=2))
    return DownloadRequest(ObjectSpec(spec, KEY), str(dest), **options)


def download(spec: StoreSpec, dest: Path | str, *, check_mode: bool = False, **options: Any) -> dict[str, Any]:
    return download_object(request(spec, dest, **options), check_mode)


def refused(kind: Kind, words: str, spec: StoreSpec, dest: Path, **options: Any) -> VmferryError:
    with pytest.raises(VmferryError, match=words) as raised:
        download(spec, dest, **options)
    assert raised.value.kind == kind, raised.value
    return raised.value


def files(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir() if one.is_file())


@each_kind
def test_a_file_is_what_the_object_was(kind: str, places: Places, tmp_path: Path) -> None:
    spec = places(kind)
    put(spec)
    dest = tmp_path / "here.iso"
    done = download(spec, dest, access={"mode": 0o640})
    assert dest.read_bytes() == DATA
    assert dest.stat().st_mode & 0o777 == 0o640
    assert (done["changed"], done["size"], done["bytes_sent"], done["bytes_kept"]) == (True, len(DATA), len(DATA), 0)
    assert (done["checksum"], done["dest"], done["verified"]) == (sha256(DATA).hexdigest(), str(dest), False)
    assert done["url"].startswith(spec.url)
    assert done["rate"] > 0
    assert done["job"]["kind"] == "download"
    assert (done["diff"]["before"], done["diff"]["after"]["size"]) == ({"state": "absent"}, len(DATA))
    assert files(tmp_path) == ["here.iso"]
    assert not list((tmp_path / "state" / "transfers").iterdir()), "nothing is left to go on with"


@pytest.mark.parametrize("size", [0, 1, 65536, MIB, MIB + 1])
def test_every_length_comes_whole(size: int, places: Places, tmp_path: Path) -> None:
    spec = places("s3")
    put(spec, DATA[:size])
    download(spec, f"{tmp_path}/")
    assert (tmp_path / "ä b+c%41.iso").read_bytes() == DATA[:size]


def test_zeros_take_no_room(places: Places, tmp_path: Path) -> None:
    spec = places("file")
    data = bytes(3 * MIB) + DATA[:MIB] + bytes(MIB)
    put(spec, data)
    dest = tmp_path / "disk.img"
    download(spec, dest)
    assert dest.read_bytes() == data
    assert dest.stat().st_blocks * 512 <= MIB + 65536


@each_kind
@pytest.mark.parametrize("noted", [True, False])
def test_what_is_there_already_stays(kind: str, noted: bool, places: Places, tmp_path: Path) -> None:
    spec = places(kind)
    put(spec, checksum=sha256(DATA).hexdigest() if noted else "")
    dest = tmp_path / "here.iso"
    download(spec, dest)
    before = dest.stat()
    again = download(spec, dest)
    assert (again["changed"], again["bytes_sent"], again["diff"]["before"]) == (False, 0, again["diff"]["after"])
    assert dest.stat().st_ino == before.st_ino
    assert json.loads(Path(again["job"]["record"]).read_text())["outcome"] == "unchanged"
    assert download(spec, dest, overwrite="always")["changed"]
    assert dest.stat().st_ino != before.st_ino
    assert files(tmp_path) == ["here.iso"]


@each_kind
def test_another_file_is_replaced_unless_it_shall_stay(kind: str, places: Places, tmp_path: Path) -> None:
    spec = places(kind)
    put(spec)
    dest = tmp_path / "here.iso"
    dest.write_bytes(DATA[::-1])
    assert not download(spec, dest, overwrite="never")["changed"]
    assert dest.read_bytes() == DATA[::-1]
    assert download(spec, dest)["changed"]
    assert dest.read_bytes() == DATA


@each_kind
def test_a_wrong_checksum_leaves_what_was_there(kind: str, places: Places, tmp_path: Path) -> None:
    spec = places(kind)
    put(spec)
    dest = tmp_path / "here.iso"
    dest.write_bytes(b"precious")
    refused("checksum_mismatch", "the task|SHA-256", spec, dest, checksum="0" * 64)
    assert (dest.read_bytes(), files(tmp_path)) == (b"precious", ["here.iso"])
    done = download(spec, dest, checksum=sha256(DATA).hexdigest())
    assert done["verified"]


def test_an_object_that_is_not_what_was_noted_with_it_is_refused(places: Places, tmp_path: Path) -> None:
    spec = places("s3")
    put(spec, checksum=sha256(b"other").hexdigest())
    refused("checksum_mismatch", "SHA-256", spec, tmp_path / "here.iso")
    assert files(tmp_path) == []


@each_kind
def test_check_mode_tells_what_would_be_done_and_does_nothing(kind: str, places: Places, tmp_path: Path) -> None:
    spec = places(kind)
    put(spec)
    dest = tmp_path / "here.iso"
    planned = download(spec, dest, check_mode=True)
    assert (planned["changed"], planned["findings"]) == (True, [])
    assert planned["plan"]["bytes_to_receive"] == len(DATA)
    assert (files(tmp_path), (tmp_path / "state").exists()) == ([], False)
    download(spec, dest)
    assert not download(spec, dest, check_mode=True, checksum=sha256(DATA).hexdigest())["changed"]


def test_a_check_finds_a_folder_that_is_not_there(places: Places, tmp_path: Path) -> None:
    spec = places("file")
    put(spec)
    planned = download(
        spec, tmp_path / "not" / "there" / "x", check_mode=True, transfer=TransferOptions(state_dir=str(tmp_path))
    )
    assert not planned["changed"]
    assert planned["findings"][0]["kind"] == "not_found"


def test_an_object_that_is_not_there_is_told(places: Places, tmp_path: Path) -> None:
    refused("not_found", "does not exist", places("s3"), tmp_path / "here.iso")
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "fifo")
    spec = places("file")
    put(spec)
    refused("invalid_config", "is no file", spec, tmp_path / "fifo")


@pytest.fixture
def failing_s3(places: Places, s3_proxy: FaultProxy) -> Iterator[StoreSpec]:
    spec = places("s3")
    put(spec)
    yield StoreSpec(spec.url, {**spec.settings, "endpoint_url": s3_proxy.endpoint_url})
    s3_proxy.reset()


class Cut(Exception):
    """A test's own."""


def cut_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The network fails once so many ranges were read."""
    from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3.store import S3Store

    read, done = S3Store.read_into, []

    def failing(self: Store, key: str, offset: int, buffer: memoryview) -> None:
        done.append(offset)
        if len(done) > count:
            raise VmferryError("network", "The network is gone.")
        read(self, key, offset, buffer)  # type: ignore[arg-type]

    monkeypatch.setattr(S3Store, "read_into", failing)


def test_what_came_before_a_failure_is_kept_for_the_next_run(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, dest = places("s3"), tmp_path / "here.iso"
    put(spec)
    with monkeypatch.context() as patched:
        cut_after(patched, 3)
        error = refused("network", "gone", spec, dest)
    assert error.done["kept"]["export"].endswith("here.iso")
    assert "goes on where this one stopped" in error.hint
    (left,) = files(tmp_path)
    assert left.endswith(".part")
    done = download(spec, dest)
    assert dest.read_bytes() == DATA
    assert done["bytes_kept"] >= MIB
    assert done["bytes_sent"] + done["bytes_kept"] == len(DATA)
    assert files(tmp_path) == ["here.iso"]


@pytest.mark.parametrize("what", ["object", "window", "part", "journal"])
def test_what_was_kept_is_not_used_where_it_would_not_fit(
    what: str, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, dest, data, options = places("s3"), tmp_path / "here.iso", DATA, {}
    put(spec)
    with monkeypatch.context() as patched:
        cut_after(patched, 3)
        refused("network", "gone", spec, dest)
    (partial,) = tmp_path.glob("*.part")
    (journal,) = (tmp_path / "state" / "transfers").iterdir()
    if what == "object":
        data = DATA[::-1]
        put(spec, data)
    elif what == "window":
        os.utime(journal, (1, 1))
        options["resume_window"] = 60.0
    elif what == "part":
        partial.write_bytes(bytes(partial.stat().st_size))
    else:
        journal.write_bytes(b"\xff" + journal.read_bytes())
    done = download(spec, dest, **options)
    assert dest.read_bytes() == data
    assert done["bytes_kept"] == 0
    assert (files(tmp_path) == ["here.iso"]) or what == "journal"


def test_nothing_is_kept_where_that_is_not_wanted(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, dest = places("s3"), tmp_path / "here.iso"
    put(spec)
    cut_after(monkeypatch, 3)
    error = refused("network", "gone", spec, dest, resume_window=0.0)
    assert "kept" not in error.done
    assert files(tmp_path) == []
    assert not list((tmp_path / "state" / "transfers").iterdir())


def test_an_object_that_is_replaced_meanwhile_is_no_mixture(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3.store import S3Store

    spec, dest = places("s3"), tmp_path / "here.iso"
    put(spec)
    read, done = S3Store.read_into, []

    def replaced(self: Store, key: str, offset: int, buffer: memoryview) -> None:
        read(self, key, offset, buffer)  # type: ignore[arg-type]
        if not done:
            done.append(True)
            put(spec, DATA[::-1])

    monkeypatch.setattr(S3Store, "read_into", replaced)
    refused("conflict", "was replaced", spec, dest)
    assert files(tmp_path) == []


def test_two_downloads_of_one_file_do_not_mix(places: Places, tmp_path: Path) -> None:
    from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.object_journal import ObjectJournal

    spec, dest = places("file"), tmp_path / "here.iso"
    put(spec)
    journal = ObjectJournal.open(tmp_path / "state", dest.as_uri())
    try:
        refused("busy", "Another job", spec, dest)
    finally:
        journal.close()
    assert download(spec, dest)["changed"]


def test_bytes_that_stand_still_end_the_download(failing_s3: StoreSpec, s3_proxy: FaultProxy, tmp_path: Path) -> None:
    transfer = TransferOptions(state_dir=str(tmp_path / "state"), max_retries=0, idle_timeout=1.0)
    s3_proxy.fail_always(Fault(delay=30, method="GET"))
    refused("timeout", "No byte|took|answer|timed", failing_s3, tmp_path / "here.iso", transfer=transfer)


def test_the_file_that_is_there_is_not_taken_for_what_an_earlier_run_wrote(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever removed the unfinished file left the old one, which others may have open."""
    spec, dest = places("s3"), tmp_path / "here.iso"
    put(spec)
    dest.write_bytes(b"old")
    inode = dest.stat().st_ino

    with monkeypatch.context() as patched:
        cut_after(patched, 3)
        refused("network", "gone", spec, dest)
    (partial,) = tmp_path.glob("*.part")
    partial.unlink()
    with monkeypatch.context() as patched:
        cut_after(patched, 0)
        refused("network", "gone", spec, dest)
    assert (dest.read_bytes(), dest.stat().st_ino) == (b"old", inode)
    download(spec, dest)
    assert dest.read_bytes() == DATA


class Bare(BaseHTTPRequestHandler):
    """Gives ranges of what it has, and says nothing of its version."""

    protocol_version = "HTTP/1.1"
    data = DATA
    left = 1000  # ranges that it gives before it fails

    def do_HEAD(self) -> None:
        is_there = not self.path.endswith(".meta.json")
        self._give(200 if is_there else 404, b"", len(self.data) if is_there else 0)

    def do_PROPFIND(self) -> None:
        self.close_connection = True
        self._give(501, b"", 0)

    def do_GET(self) -> None:
        if "Range" not in self.headers:
            self._give(404, b"", 0)
            return
        first, last = (int(one) for one in self.headers["Range"].removeprefix("bytes=").split("-"))
        type(self).left -= 1
        body = self.data[first : last + 1]
        if self.left < 0:
            self._give(503, b"", 0)
        else:
            self._give(206, body, len(body), f"bytes {first}-{last}/{len(self.data)}")

    def _give(self, status: int, body: bytes, length: int, content_range: str = "") -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", str(length))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_what: Any) -> None:
        """Nothing."""


def test_versions_that_a_server_does_not_tell_apart_are_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "here.iso"
    with ThreadingHTTPServer(("127.0.0.1", 0), Bare) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        spec = StoreSpec(f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(Bare, "left", 3)
        error = refused("rate_limited", "asks to slow down", spec, dest)
        assert "kept" not in error.done
        assert files(tmp_path) == []
        monkeypatch.setattr(Bare, "left", 1000)
        monkeypatch.setattr(Bare, "data", DATA[::-1])
        done = download(spec, dest)
        server.shutdown()
    assert dest.read_bytes() == DATA[::-1]
    assert done["bytes_kept"] == 0
    assert any("begun anew" in warning for warning in done["warnings"])
