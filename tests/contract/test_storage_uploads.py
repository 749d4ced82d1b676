# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files become objects that are whole and proved, once; what is there already is not sent again."""

from __future__ import annotations

import json
import os
import re
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Part, PartReceipt
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind, VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations import upload_files
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.storage_requests import UploadRequest
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.objects import move_object
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.objects.byte_sources import LocalFile
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.parts import FilesystemParts
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.retrying import RetryingStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3.parts import S3Parts
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3.store import S3Store
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer import move_bytes

from .objects_rig import Places, each_kind, opened
from .store_rigs import S3Rig

MIB = 1024 * 1024
DATA = Random(5).randbytes(10 * MIB + 12345)
SMALL = DATA[:100_000]
SMALL_WRITE = 1000  # bytes; a probe's


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(move_bytes, "PART", MIB)  # a bucket asks for 5 MiB all the same


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "from"
    found.mkdir()
    return found


def write(path: Path, data: bytes) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return str(path)


def upload(spec: StoreSpec, *src: str | Path, check_mode: bool = False, **options: Any) -> dict[str, Any]:
    state = Path(str(src[0]).partition("/from")[0], "state")
    options.setdefault("transfer", TransferOptions(state_dir=str(state), max_retries=0, parallel=2))
    request = UploadRequest(spec, tuple(str(one) for one in src), **options)
    return upload_files.upload_files(request, check_mode)


def refused(kind: Kind, words: str, spec: StoreSpec, *src: str | Path, **options: Any) -> VmferryError:
    with pytest.raises(VmferryError, match=words) as raised:
        upload(spec, *src, **options)
    assert raised.value.kind == kind, raised.value
    return raised.value


def stored(spec: StoreSpec) -> dict[str, bytes]:
    with opened(spec) as store:
        return {info.key: store.get(info.key) for info in store.list("")}


def nothing_unfinished(spec: StoreSpec) -> bool:
    with opened(spec) as store:
        seen: list[object] = []
        store.abort_uploads("", lambda info: bool(seen.append(info)))
        return not seen


@each_kind
@pytest.mark.parametrize("data", [DATA, SMALL, b""], ids=["large", "small", "empty"])
def test_a_file_is_sent_once(kind: str, data: bytes, places: Places, folder: Path) -> None:
    spec, src = places(kind), write(folder / "debian.iso", data)
    done = upload(spec, src)
    (row,) = done["files"]
    assert stored(spec) == {"debian.iso": data}
    assert (done["changed"], row["outcome"], row["src"], row["key"]) == (True, "sent", src, "debian.iso")
    assert (row["size"], row["bytes_sent"], row["checksum"]) == (len(data), len(data), sha256(data).hexdigest())
    assert row["url"] == f"{spec.url}/debian.iso"
    assert row["etag"]
    assert (done["bytes_sent"], done["job"]["kind"]) == (len(data), "upload")
    again = upload(spec, src)
    assert (again["changed"], again["files"][0]["outcome"], again["bytes_sent"]) == (False, "unchanged", 0)
    assert json.loads(Path(again["job"]["record"]).read_text())["outcome"] == "unchanged"
    assert again["files"][0]["checksum"] == sha256(data).hexdigest()
    assert again["diff"]["before"] == again["diff"]["after"]
    assert upload(spec, src, overwrite="always")["files"][0]["bytes_sent"] == len(data)
    assert nothing_unfinished(spec)
    assert not list((folder.parent / "state" / "transfers").glob("*"))


@each_kind
@pytest.mark.parametrize("data", [DATA, SMALL], ids=["large", "small"])
def test_a_file_of_the_same_size_and_another_content_is_sent(
    kind: str, data: bytes, places: Places, folder: Path
) -> None:
    spec, src = places(kind), write(folder / "debian.iso", data)
    upload(spec, src)
    write(folder / "debian.iso", data[::-1])
    left = upload(spec, src, overwrite="never")
    assert (left["changed"], left["files"][0]["outcome"]) == (False, "left")
    assert stored(spec) == {"debian.iso": data}
    assert upload(spec, src)["changed"]
    assert stored(spec) == {"debian.iso": data[::-1]}


def put_by_another(patched: pytest.MonkeyPatch, spec: StoreSpec, key: str, where: str) -> None:
    """An object appears before the last look at what is there, or between that and the end."""
    owner, name = (LocalFile, "insist_on_version") if where == "before" else (move_object.ObjectMove, "_is_taken")
    original = getattr(owner, name)

    def meanwhile(self: Any) -> Any:
        found = original(self)
        with opened(spec) as store:
            store.put(key, b"another's")
        patched.setattr(owner, name, original)
        return found

    patched.setattr(owner, name, meanwhile)


@each_kind
@pytest.mark.parametrize("data", [DATA, SMALL, b""], ids=["large", "small", "empty"])
@pytest.mark.parametrize("where", ["before", "behind"])
def test_what_comes_there_while_a_file_is_sent_stays_where_nothing_shall_be_replaced(
    kind: str, data: bytes, where: str, places: Places, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, src = places(kind), write(folder / "a.iso", data)
    put_by_another(monkeypatch, spec, "a.iso", where)
    done = upload(spec, src, overwrite="never", keep_source=False)
    (row,) = done["files"]
    assert (done["changed"], row["outcome"], row["bytes_sent"]) == (False, "left", 0)
    assert stored(spec) == {"a.iso": b"another's"}
    assert nothing_unfinished(spec)
    assert Path(src).read_bytes() == data, "it is nowhere else"
    assert done["diff"]["before"] == done["diff"]["after"]
    assert not list((folder.parent / "state" / "transfers").glob("*"))


@each_kind
def test_folders_lists_and_globs_keep_their_names(kind: str, places: Places, folder: Path) -> None:
    spec = places(kind)
    write(folder / "a.iso", b"a")
    write(folder / "below" / "ä b.iso", b"b")
    write(folder / "below" / "c.img", SMALL)
    (folder / "link").symlink_to("a.iso")
    (folder / "below" / "elsewhere").symlink_to("/etc")
    done = upload(spec, folder)
    assert stored(spec) == {"a.iso": b"a", "below/c.img": SMALL, "below/ä b.iso": b"b"}
    assert [row["key"] for row in done["files"]] == ["a.iso", "below/c.img", "below/ä b.iso"]
    assert sum("is left out" in warning for warning in done["warnings"]) == 2
    spec = places(kind)
    upload(spec, f"{folder}/**/*.iso", folder / "below" / "c.img", key="all/{file}")
    assert stored(spec) == {"all/a.iso": b"a", "all/below/ä b.iso": b"b", "all/c.img": SMALL}


def test_a_key_is_filled_in(places: Places, folder: Path) -> None:
    spec, src = places("file"), write(folder / "a.iso", b"a")
    (row,) = upload(spec, src, key="{vm}/{date}/{file}", vm="web01")["files"]
    vm, date, name = row["key"].split("/")
    assert (vm, len(date), date.isdigit(), name) == ("web01", 8, True, "a.iso")
    assert upload(spec, src, key="other/")["files"][0]["key"] == "other/a.iso"
    assert upload(spec, src, key="other/name.iso")["files"][0]["key"] == "other/name.iso"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"key": "../{file}"}, "segment"),
        ({"key": "/{file}"}, "absolute"),
        ({"key": "{vm}/{file}"}, "for which there is no value"),
        ({"key": "{host}/{file}"}, "for which there is no value"),
        ({"key": "{vm}/{file}", "vm": ".."}, "segment"),
        ({"key": "{vm}/{file}", "vm": "a/../.."}, "has a '/'"),
        ({"key": "{file}.0123456789abcdef.part"}, "unfinished"),
    ],
)
def test_no_key_leaves_the_store(options: dict[str, Any], words: str, places: Places, folder: Path) -> None:
    spec = places("file")
    refused("invalid_config", words, spec, write(folder / "a.iso", b"a"), **options)
    assert stored(spec) == {}


def test_a_field_that_is_not_known_is_answered_with_all_that_are(places: Places, folder: Path) -> None:
    spec, src = places("file"), write(folder / "a.iso", b"a")
    error = refused("invalid_config", "for which there is no value", spec, src, key="{host}/{file}")
    assert set(re.findall(r"{\w+}", error.hint)) == {"{file}", "{date}", "{time}", "{vm}"}
    assert refused("invalid_config", "no value", spec, src, key="{vm}/{file}").hint == "Set vm."


def test_what_cannot_be_meant_is_refused_before_anything_is_sent(places: Places, folder: Path) -> None:
    spec, src = places("file"), write(folder / "a.iso", b"a")
    other = write(folder / "b" / "a.iso", b"b")
    refused("invalid_config", "would both be", spec, src, other)
    refused("invalid_config", "would both be", spec, src, folder / "b", key="one.iso")
    refused("invalid_config", "checksum is of one file", spec, folder, checksum="0" * 64)
    refused("not_found", "does not exist", spec, folder / "nothing.iso")
    refused("not_found", "No file fits", spec, folder / "*.nothing")
    os.mkfifo(folder / "pipe")
    refused("invalid_config", "not a regular file", spec, folder / "pipe")
    with pytest.raises(VmferryError, match="must be an absolute path"):
        upload_files.upload_files(UploadRequest(spec, ("a.iso",)), check_mode=True)
    assert stored(spec) == {}


@each_kind
@pytest.mark.parametrize("data", [DATA, SMALL], ids=["large", "small"])
def test_a_file_that_is_not_the_one_meant_is_not_stored(kind: str, data: bytes, places: Places, folder: Path) -> None:
    spec, src = places(kind), write(folder / "a.iso", data)
    refused("checksum_mismatch", "Nothing was stored|SHA-256", spec, src, checksum="0" * 64)
    assert stored(spec) == {}
    assert nothing_unfinished(spec)
    assert upload(spec, src, checksum=sha256(data).hexdigest())["files"][0]["verified"]


@each_kind
def test_metadata_is_kept_with_the_object(kind: str, places: Places, folder: Path) -> None:
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.storage_requests import LookRequest
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.look_at_objects import look_at_objects

    def look() -> dict[str, Any]:
        (found,) = look_at_objects(LookRequest(spec, key="a.iso"))["objects"]
        return dict(found)

    spec, src = places(kind), write(folder / "a.iso", SMALL)
    upload(spec, src, metadata={"os": "debian ä", "by": "me"})
    assert (look()["metadata"], look()["checksum"]) == ({"os": "debian ä", "by": "me"}, sha256(SMALL).hexdigest())
    assert not upload(spec, src, metadata={"os": "debian ä", "by": "me"})["changed"]
    assert not upload(spec, src)["changed"], "what was noted stays"
    noted = upload(spec, src, metadata={"os": "suse"})
    assert (noted["changed"], noted["files"][0]["outcome"], noted["bytes_sent"]) == (True, "noted", 0)
    assert look()["metadata"] == {"os": "suse"}
    write(folder / "a.iso", b"other")
    upload(spec, src)
    assert (look()["metadata"], look()["checksum"]) == ({"os": "suse"}, sha256(b"other").hexdigest())
    upload(spec, src, metadata={})
    assert look()["metadata"] == {}
    assert list(stored(spec)) == ["a.iso"]


def test_a_file_beside_it_that_is_no_metadata_stays(places: Places, folder: Path) -> None:
    spec, src = places("file"), write(folder / "a.iso", b"a")
    with opened(spec) as store:
        store.put("a.iso.meta.json", b'{"mine": true}')
    upload(spec, src, overwrite="always")
    refused("invalid_config", "does not hold metadata", spec, src, metadata={"os": "x"}, overwrite="always")
    assert json.loads(stored(spec)["a.iso.meta.json"]) == {"mine": True}
    refused("invalid_config", "would be", spec, src, write(folder / "a.iso.meta.json", b"x"), metadata={"os": "x"})


@each_kind
def test_a_source_goes_when_its_object_is_proved(kind: str, places: Places, folder: Path) -> None:
    spec, src = places(kind), write(folder / "a.iso", SMALL)
    upload(spec, src)
    assert upload(spec, src, keep_source=False)["changed"]
    assert list(folder.iterdir()) == []
    write(folder / "a.iso", b"other")
    left = upload(spec, src, keep_source=False, overwrite="never")
    assert not left["changed"]
    assert any("is kept" in warning for warning in left["warnings"])
    assert upload(spec, src, keep_source=False)["files"][0]["outcome"] == "sent"
    assert (stored(spec), list(folder.iterdir())) == ({"a.iso": b"other"}, [])
    again = upload(spec, f"{folder}/*.iso", folder, keep_source=False)
    assert (again["changed"], again["files"]) == (False, []), "all of it was moved before"


@each_kind
def test_a_link_is_sent_as_the_file_and_stays_with_it(kind: str, places: Places, folder: Path) -> None:
    spec, real = places(kind), Path(write(folder / "real.iso", SMALL))
    link = folder / "link.iso"
    link.symlink_to(real)
    done = upload(spec, link, keep_source=False)
    assert stored(spec) == {"link.iso": SMALL}
    assert (link.is_symlink(), real.read_bytes()) == (True, SMALL)
    assert any("is a link" in warning for warning in done["warnings"])
    again = upload(spec, link, keep_source=False)
    planned = upload(spec, link, keep_source=False, check_mode=True)
    assert (again["changed"], planned["changed"]) == (False, False)


@each_kind
def test_all_names_of_a_file_go_that_were_sent_and_no_other(kind: str, places: Places, folder: Path) -> None:
    spec = places(kind)
    first, outside = Path(write(folder / "a.iso", SMALL)), folder.parent / "outside.iso"
    (folder / "b.iso").hardlink_to(first)
    outside.hardlink_to(first)
    assert upload(spec, folder, keep_source=False)["changed"]
    assert stored(spec) == {"a.iso": SMALL, "b.iso": SMALL}
    assert (list(folder.iterdir()), outside.read_bytes()) == ([], SMALL)


def test_no_source_goes_where_one_of_them_failed(places: Places, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = places("s3")
    write(folder / "a.iso", SMALL)
    write(folder / "b.iso", DATA)
    with monkeypatch.context() as patched:
        cut_after(patched, "s3", 1)
        refused("network", "gone", spec, folder, keep_source=False)
    assert sorted(one.name for one in folder.iterdir()) == ["a.iso", "b.iso"]
    assert upload(spec, folder, keep_source=False)["changed"]
    assert (list(folder.iterdir()), stored(spec)) == ([], {"a.iso": SMALL, "b.iso": DATA})


@each_kind
@pytest.mark.parametrize("how", ["written", "replaced"])
def test_a_source_that_is_another_by_the_time_it_should_go_stays(
    kind: str, how: str, places: Places, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, src = places(kind), Path(write(folder / "a.iso", SMALL))

    def changes(*_what: Any) -> None:
        if how == "written":
            src.write_bytes(b"newer")
        else:
            Path(write(folder / "new", b"newer")).rename(src)

    with monkeypatch.context() as patched:
        patched.setattr(RetryingStore, "lock", changes)  # once it is there
        error = refused("conflict", "was changed", spec, src, keep_source=False)
    assert (src.read_bytes(), stored(spec)) == (b"newer", {"a.iso": SMALL})
    assert error.done["files"][0]["outcome"] == "sent"
    assert upload(spec, src, keep_source=False)["changed"]
    assert (src.exists(), stored(spec)) == (False, {"a.iso": b"newer"})


@each_kind
def test_check_mode_tells_what_would_be_sent_and_sends_nothing(kind: str, places: Places, folder: Path) -> None:
    spec = places(kind)
    write(folder / "a.iso", SMALL)
    upload(spec, folder)
    write(folder / "b.iso", b"b")
    planned = upload(spec, folder, check_mode=True)
    assert (planned["changed"], planned["plan"]["bytes_to_send"], planned["findings"]) == (True, 1, [])
    assert [one["outcome"] for one in planned["plan"]["files"]] == ["unchanged", "sent"]
    assert list(stored(spec)) == ["a.iso"]
    (folder / "b.iso").unlink()
    assert not upload(spec, folder, check_mode=True)["changed"]
    assert upload(spec, folder, check_mode=True, keep_source=False)["changed"]


def cut_after(patched: pytest.MonkeyPatch, kind: str, count: int) -> None:
    """The network fails once so many parts were sent."""
    owner, name = (S3Parts, "write_part") if kind == "s3" else (FilesystemParts, "write_at")
    send, done = getattr(owner, name), []

    def failing(self: Any, *what: Any) -> Any:
        if len(what[-1]) >= SMALL_WRITE:
            done.append(what)
        if len(done) > count:
            raise VmferryError("network", "The network is gone.")
        return send(self, *what)

    patched.setattr(owner, name, failing)


@each_kind
def test_what_was_sent_before_a_failure_is_not_sent_again(
    kind: str, places: Places, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, src = places(kind), write(folder / "a.iso", DATA)
    with monkeypatch.context() as patched:
        cut_after(patched, kind, 2)
        error = refused("network", "gone", spec, src)
    assert error.done["kept"]["export"] == f"{spec.url}/a.iso"
    assert [row["outcome"] for row in error.done["files"]] == ["failed"]
    assert stored(spec) == {}
    assert not nothing_unfinished(spec)
    (row,) = upload(spec, src)["files"]
    assert row["bytes_kept"] >= (5 if kind == "s3" else 1) * MIB
    assert row["bytes_sent"] + row["bytes_kept"] == len(DATA)
    assert stored(spec) == {"a.iso": DATA}
    assert nothing_unfinished(spec)


@each_kind
@pytest.mark.parametrize("changed", ["first", "last"])
def test_a_file_that_was_changed_since_is_sent_as_it_is_now(
    kind: str, changed: str, places: Places, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, src = places(kind), write(folder / "a.iso", DATA)
    with monkeypatch.context() as patched:
        cut_after(patched, kind, 2)
        refused("network", "gone", spec, src)
    now = DATA[::-1] if changed == "first" else DATA[:-10] + bytes(10)
    write(folder / "a.iso", now)
    upload(spec, src)
    assert stored(spec) == {"a.iso": now}
    assert nothing_unfinished(spec), "what was sent of the other is gone"


@each_kind
def test_nothing_is_left_where_nothing_shall_be_kept(
    kind: str, places: Places, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, src = places(kind), write(folder / "a.iso", DATA)
    cut_after(monkeypatch, kind, 2)
    refused("network", "gone", spec, src, resume_window=0.0)
    assert stored(spec) == {}
    assert nothing_unfinished(spec)


@each_kind
def test_a_file_that_changes_while_it_is_sent_is_no_object(
    kind: str, places: Places, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, src = places(kind), write(folder / "a.iso", DATA)
    with monkeypatch.context() as patched:
        owner, name = (S3Parts, "write_part") if kind == "s3" else (FilesystemParts, "write_at")
        send = getattr(owner, name)

        def change(self: Any, *what: Any) -> Any:
            with Path(src).open("r+b") as file:
                file.write(b"now")
            return send(self, *what)

        patched.setattr(owner, name, change)
        refused("conflict", "was changed while it was read", spec, src)
    assert stored(spec) == {}
    assert nothing_unfinished(spec)


def test_what_was_sent_before_another_file_failed_is_told(
    places: Places, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = places("s3")
    write(folder / "a.iso", SMALL)
    write(folder / "b.iso", DATA)
    cut_after(monkeypatch, "s3", 1)
    error = refused("network", "gone", spec, folder)
    assert error.done["changed"]
    assert [row["outcome"] for row in error.done["files"]] == ["sent", "failed"]
    assert stored(spec) == {"a.iso": SMALL}


@pytest.mark.parametrize("data", [DATA, SMALL], ids=["large", "small"])
def test_a_store_that_does_not_vouch_for_what_it_took_is_read_back(
    data: bytes, sloppy_s3_rig: S3Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = StoreSpec(f"s3://{sloppy_s3_rig.bucket}/{folder.parent.name}", sloppy_s3_rig.server.settings)
    src, read = write(folder / "a.iso", data), S3Store.read_into

    def damaged(self: Any, key: str, offset: int, buffer: memoryview) -> None:
        read(self, key, offset, buffer)
        buffer[-1] ^= 1

    assert upload(spec, src)["changed"]
    monkeypatch.setattr(S3Store, "read_into", damaged)
    refused("checksum_mismatch", "It was removed", spec, src, overwrite="always")
    assert stored(spec) == {}
    assert not upload(spec, src, overwrite="always", read_back=False)["files"][0]["verified"]


def test_a_part_that_a_store_has_lost_is_sent_again(
    places: Places, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, src = places("s3"), write(folder / "a.iso", DATA)
    with monkeypatch.context() as patched:
        cut_after(patched, "s3", 2)
        refused("network", "gone", spec, src)
    confirms = S3Parts.confirms
    asked: list[Part] = []

    def lost(self: S3Parts, receipt: PartReceipt) -> bool:
        asked.append(receipt.part)
        return receipt.part.number != asked[0].number and confirms(self, receipt)

    monkeypatch.setattr(S3Parts, "confirms", lost)
    (row,) = upload(spec, src)["files"]
    assert asked
    assert row["bytes_kept"] == sum(part.size for part in asked[1:])
    assert stored(spec) == {"a.iso": DATA}


def test_memory_does_not_grow_with_what_is_sent() -> None:
    rules = type("Rules", (), {"max_parts": 10_000, "min_part": 5 * MIB, "max_part": 5 << 30, "max_object": 5 << 40})()
    for size in (1, 1 << 30, 80 << 30):
        for parallel in (None, 1, 4, 64):
            for any_offset in (True, False):
                cut = move_bytes.Cut.of(size, rules, any_offset, parallel)
                assert cut.workers * cut.sizes.other <= max(move_bytes.BUDGET, 9 * MIB)
    assert move_object.SMALL <= 5 * MIB


def test_a_part_that_fails_once_is_sent_again_as_often_as_allowed(
    places: Places, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, src, failed = places("s3"), write(folder / "a.iso", DATA), []
    send = S3Parts.write_part

    def once(self: Any, part: Part, data: memoryview) -> str:
        if part.number not in failed:
            failed.append(part.number)
            raise VmferryError("network", "The network is gone.", retry_after=0.0)
        return send(self, part, data)

    monkeypatch.setattr(S3Parts, "write_part", once)
    transfer = TransferOptions(state_dir=str(folder.parent / "state"), max_retries=0)
    refused("network", "gone", spec, src, transfer=transfer)
    failed.clear()
    upload(spec, src, transfer=TransferOptions(state_dir=str(folder.parent / "state"), max_retries=1))
    assert stored(spec) == {"a.iso": DATA}
    assert len(failed) == 3


def test_uploads_to_one_bucket_wait_for_a_slot(places: Places, folder: Path) -> None:
    import threading
    import time

    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.objects.object_results import StoreAccount
    from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.slots import Slots

    spec, src, state = places("file"), write(folder / "a.iso", SMALL), folder.parent / "state"
    ended = threading.Event()
    with Slots(state, StoreAccount.of(spec).account, 1).taken(time.sleep, lambda: None):
        transfer = TransferOptions(state_dir=str(state), max_jobs=1)
        waiting = threading.Thread(target=lambda: (upload(spec, src, transfer=transfer), ended.set()))
        waiting.start()
        assert not ended.wait(1.0)
        assert stored(spec) == {}
    assert ended.wait(10.0)
    waiting.join()
    assert stored(spec) == {"a.iso": SMALL}


@pytest.mark.parametrize("keep_source", [True, False])
def test_a_file_of_the_store_is_not_sent_onto_itself(folder: Path, keep_source: bool) -> None:
    path = Path(write(folder / "a.img", SMALL))
    (folder.parent / "link").symlink_to(folder)
    for url in (folder.as_uri(), (folder.parent / "link").as_uri()):
        with pytest.raises(VmferryError, match="of the store itself") as raised:
            upload(StoreSpec(url), path, keep_source=keep_source)
        assert raised.value.kind == "invalid_config"
    assert path.read_bytes() == SMALL


@each_kind
def test_a_checksum_that_is_not_the_files_is_told_although_the_object_is_the_same(
    kind: str, places: Places, folder: Path
) -> None:
    spec, path = places(kind), Path(write(folder / "a.img", SMALL))
    upload(spec, path)
    with pytest.raises(VmferryError) as raised:
        upload(spec, path, checksum="0" * 64, keep_source=False)
    assert raised.value.kind == "checksum_mismatch"
    assert path.read_bytes() == SMALL


def test_what_could_not_be_read_back_is_no_proof_for_the_next_run(
    sloppy_s3_rig: S3Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a file whose object nobody has proved is not removed."""
    spec = StoreSpec(f"s3://{sloppy_s3_rig.bucket}/{folder.parent.name}-unread", sloppy_s3_rig.server.settings)
    src = write(folder / "a.iso", SMALL)
    put, read = S3Store.put, S3Store.read_into

    def corrupt(self: S3Store, key: str, data: bytes, **options: Any) -> Any:
        return put(self, key, data[::-1] if len(data) > SMALL_WRITE else data, **options)

    def gone(self: S3Store, key: str, offset: int, buffer: memoryview) -> None:
        if key.endswith("a.iso"):
            raise VmferryError("network", "The network is gone.")
        read(self, key, offset, buffer)

    with monkeypatch.context() as patched:
        patched.setattr(S3Store, "put", corrupt)
        patched.setattr(S3Store, "read_into", gone)
        refused("network", "gone", spec, src, keep_source=False)
    assert Path(src).read_bytes() == SMALL
    upload(spec, src, keep_source=False)
    assert stored(spec) == {"a.iso": SMALL}
    assert not Path(src).exists()
