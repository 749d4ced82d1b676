# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects go from any store to any other, once, with what is noted of them, and without a file in between."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Part
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind, VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.copy_objects import copy_objects
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.storage_requests import (
    CopyRequest,
    LookRequest,
    UploadRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.look_at_objects import look_at_objects
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.objects import move_object
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.upload_files import upload_files
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem import copy as filesystem_copy
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3 import copy as s3_copy
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3.parts import S3Parts
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3.store import S3Store
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer import move_bytes
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limiter import Limiter

from .objects_rig import KINDS, Places, opened

MIB = 1024 * 1024
DATA = Random(6).randbytes(6 * MIB)
SMALL = DATA[:10_000]
KEY = "isos/ä b.iso"
WAYS = [(one, other) for one in KINDS for other in KINDS]
each_way = pytest.mark.parametrize(("kind", "to"), WAYS)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(move_bytes, "PART", MIB)  # a bucket asks for 5 MiB all the same


def put(spec: StoreSpec, key: str, data: bytes) -> None:
    with opened(spec) as store:
        store.put(key, data)


def copy(source: StoreSpec, to: StoreSpec, state: Path, *, check_mode: bool = False, **options: Any) -> dict[str, Any]:
    options.setdefault("transfer", TransferOptions(state_dir=str(state / "state"), max_retries=0, parallel=2))
    if "prefix" not in options:
        options.setdefault("key", KEY)
    return copy_objects(CopyRequest(source, to, **options), check_mode)


def outcomes(*done: dict[str, Any]) -> list[str | None]:
    """As their records tell them to whoever watches."""
    return [json.loads(Path(one["job"]["record"]).read_text()).get("outcome") for one in done]


def refused(kind: Kind, words: str, *what: Any, **options: Any) -> VmferryError:
    with pytest.raises(VmferryError, match=words) as raised:
        copy(*what, **options)
    assert raised.value.kind == kind, raised.value
    return raised.value


def stored(spec: StoreSpec) -> dict[str, bytes]:
    with opened(spec) as store:
        return {info.key: store.get(info.key) for info in store.list("")}


@pytest.mark.parametrize(("kind", "to", "relay"), [*((*way, True) for way in WAYS), ("s3", "s3", False)])
def test_an_object_is_copied_once(kind: str, to: str, relay: bool, places: Places, tmp_path: Path) -> None:
    source, target = places(kind), places(to)
    put(source, KEY, DATA)
    done = copy(source, target, tmp_path, relay=relay)
    (row,) = done["objects"]
    by_server = kind == to == "s3" and not relay
    assert stored(target) == {KEY: DATA}
    assert (done["changed"], row["outcome"], row["by_server"]) == (True, "sent", by_server)
    assert row["bytes_sent"] == (0 if by_server else len(DATA))
    assert row["checksum"] == ("" if by_server else sha256(DATA).hexdigest())
    assert (row["source"].split(":")[0], row["url"].split(":")[0]) == (kind, to)
    assert done["job"]["kind"] == "copy"
    again = copy(source, target, tmp_path, relay=relay)
    assert (again["changed"], again["bytes_sent"]) == (False, 0)
    assert outcomes(done, again) == [None, "unchanged"]
    assert again["diff"]["before"] == again["diff"]["after"]
    put(source, KEY, DATA[::-1])
    assert not copy(source, target, tmp_path, relay=relay, overwrite="never")["changed"]
    assert copy(source, target, tmp_path, relay=relay)["changed"]
    assert stored(target) == {KEY: DATA[::-1]}


@each_way
def test_what_is_noted_of_an_object_goes_with_it(kind: str, to: str, places: Places, tmp_path: Path) -> None:
    source, target = places(kind), places(to)
    src = tmp_path / "a.iso"
    src.write_bytes(SMALL)
    transfer = TransferOptions(state_dir=str(tmp_path / "state"))
    upload_files(UploadRequest(source, (str(src),), metadata={"os": "debian ä"}, transfer=transfer), False)
    done = copy(source, target, tmp_path, prefix="")
    assert [row["key"] for row in done["objects"]] == ["a.iso"]
    (found,) = look_at_objects(LookRequest(target, key="a.iso"))["objects"]
    assert (found["metadata"], found["checksum"]) == ({"os": "debian ä"}, sha256(SMALL).hexdigest())
    assert not copy(source, target, tmp_path, prefix="")["changed"]


def test_a_file_that_is_only_named_as_notes_are_is_copied(places: Places, tmp_path: Path) -> None:
    source, target = places("file"), places("s3")
    for key in ("a", "a.meta.json"):
        put(source, key, key.encode())
    copy(source, target, tmp_path, prefix="")
    assert stored(target) == {"a": b"a", "a.meta.json": b"a.meta.json"}


def test_a_file_that_would_be_where_notes_of_another_go_is_refused(places: Places, tmp_path: Path) -> None:
    source, target = places("s3"), places("file")
    for key in ("a", "a.meta.json"):
        put(source, key, key.encode())
    refused("invalid_config", "a.meta.json is where the metadata of a would be", source, target, tmp_path, prefix="")
    assert stored(target) == {}


@pytest.mark.parametrize("asked", [False, True])
def test_a_checksum_that_is_given_is_that_of_a_files_bytes_and_not_of_what_was_noted(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    """A file system that shares blocks copies what a disk has damaged as it is."""
    monkeypatch.setattr(filesystem_copy, "shares_blocks", shares_by_copying)
    source, target = places("file"), places("file")
    (tmp_path / "a.img").write_bytes(DATA)
    transfer = TransferOptions(state_dir=str(tmp_path / "state"), max_retries=0)
    upload_files(UploadRequest(source, (str(tmp_path / "a.img"),), metadata={"os": "debian"}, transfer=transfer), False)
    file = Path(source.url.removeprefix("file://")) / "a.img"
    before = file.stat()
    file.write_bytes(bytes([DATA[0] ^ 1]) + DATA[1:])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    if asked:
        checksum = sha256(DATA).hexdigest()
        refused("checksum_mismatch", "SHA-256", source, target, tmp_path, key="a.img", checksum=checksum)
        assert stored(target) == {}
    else:
        (row,) = copy(source, target, tmp_path, key="a.img")["objects"]
        assert row["by_server"]


def shares_by_copying(source: int, target: int) -> bool:
    os.sendfile(target, source, 0, os.fstat(source).st_size)
    return True


def test_objects_of_a_prefix_keep_their_keys(places: Places, tmp_path: Path) -> None:
    source, target = places("file"), places("s3")
    for key in ("a/1", "a/b/2", "c"):
        put(source, key, key.encode())
    done = copy(source, target, tmp_path, prefix="a/")
    assert stored(target) == {"a/1": b"a/1", "a/b/2": b"a/b/2"}
    assert [row["key"] for row in done["objects"]] == ["a/1", "a/b/2"]


@each_way
def test_an_object_gets_another_key(kind: str, to: str, places: Places, tmp_path: Path) -> None:
    source, target = places(kind), places(to)
    put(source, KEY, b"data")
    assert copy(source, target, tmp_path, new_key="other/name")["objects"][0]["key"] == "other/name"
    assert stored(target) == {"other/name": b"data"}
    copy(source, source, tmp_path, new_key="beside")
    assert stored(source) == {"beside": b"data", KEY: b"data"}
    refused("invalid_config", "is source and destination", source, source, tmp_path)


@each_way
def test_an_object_that_is_not_the_one_meant_is_not_copied(kind: str, to: str, places: Places, tmp_path: Path) -> None:
    source, target = places(kind), places(to)
    put(source, KEY, SMALL)
    refused("checksum_mismatch", "SHA-256", source, target, tmp_path, checksum="0" * 64)
    assert stored(target) == {}
    (row,) = copy(source, target, tmp_path, checksum=sha256(SMALL).hexdigest())["objects"]
    assert (row["verified"], row["by_server"]) == (True, False)


def test_check_mode_tells_what_would_be_copied(places: Places, tmp_path: Path) -> None:
    source, target = places("s3"), places("file")
    put(source, KEY, DATA)
    planned = copy(source, target, tmp_path, check_mode=True)
    assert (planned["changed"], planned["plan"]["bytes_to_send"]) == (True, len(DATA))
    assert (stored(target), (tmp_path / "state").exists()) == ({}, False)
    refused("not_found", "There is no object", source, target, tmp_path, key="other")
    refused("not_found", "There is no object", source, target, tmp_path, prefix="other/")


def test_a_large_object_is_copied_by_the_server_in_parts(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_copy, "AT_ONCE", 5 * MIB)
    source, target = places("s3"), places("s3")
    put(source, KEY, DATA)
    (row,) = copy(source, target, tmp_path)["objects"]
    assert (row["by_server"], stored(target)) == (True, {KEY: DATA})


def fails_at(monkeypatch: pytest.MonkeyPatch, number: int, kind: Kind) -> None:
    """The server copies the parts before that one."""
    copy_part = S3Parts.copy_part

    def failing(self: S3Parts, part: Part, origin: Any) -> str:
        if part.number >= number:
            raise VmferryError(kind, "It went wrong.")
        return copy_part(self, part, origin)

    monkeypatch.setattr(S3Parts, "copy_part", failing)


def test_what_a_server_had_copied_when_it_failed_is_not_copied_again(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_copy, "AT_ONCE", 5 * MIB)
    source, target = places("s3"), places("s3")
    put(source, KEY, DATA)
    with monkeypatch.context() as patched:
        fails_at(patched, 2, "network")
        error = refused("network", "went wrong", source, target, tmp_path)
    assert (error.done["kept"]["export"], stored(target)) == (f"{target.url}/{KEY}", {})
    with monkeypatch.context() as patched:
        fails_at(patched, 1, "no_space")
        refused("no_space", "went wrong", source, target, tmp_path, new_key="another", resume_window=0)
    (row,) = copy(source, target, tmp_path)["objects"]
    assert (row["by_server"], row["bytes_kept"], stored(target)) == (True, 5 * MIB, {KEY: DATA})
    assert nothing_is_unfinished(target, tmp_path)


@pytest.mark.parametrize("how", ["no window", "another source", "relayed", "not to go on with"])
def test_what_a_server_had_copied_goes_where_it_is_not_gone_on_with(
    how: str, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_copy, "AT_ONCE", 5 * MIB)
    source, target = places("s3"), places("s3")
    put(source, KEY, DATA)
    options: dict[str, Any] = {"resume_window": 0} if how == "no window" else {}
    kind: Kind = "internal" if how == "not to go on with" else "network"
    with monkeypatch.context() as patched:
        fails_at(patched, 2, kind)
        error = refused(kind, "went wrong", source, target, tmp_path, **options)
    assert ("kept" in error.done) is (how in ("another source", "relayed"))
    if how == "another source":
        put(source, KEY, DATA[::-1])
    (row,) = copy(source, target, tmp_path, relay=how == "relayed")["objects"]
    assert (row["bytes_kept"], stored(target)) == (0, stored(source))
    assert nothing_is_unfinished(target, tmp_path)


def test_what_could_not_be_undone_is_undone_by_the_next_run(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_copy, "AT_ONCE", 5 * MIB)
    source, target = places("s3"), places("s3")
    put(source, KEY, DATA)

    def fails(*_what: Any) -> None:
        raise VmferryError("network", "The network is gone.")

    with monkeypatch.context() as patched:
        fails_at(patched, 2, "internal")
        patched.setattr(S3Parts, "abort", fails)
        refused("internal", "went wrong", source, target, tmp_path)
    assert not nothing_is_unfinished(target, tmp_path, removes=False)
    copy(source, target, tmp_path, relay=True)
    assert nothing_is_unfinished(target, tmp_path)


def test_what_a_relayed_copy_had_sent_goes_once_the_server_has_copied(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from .test_storage_uploads import cut_after

    source, target = places("s3"), places("s3")
    put(source, KEY, DATA)
    with monkeypatch.context() as patched:
        cut_after(patched, "s3", 1)
        refused("network", "gone", source, target, tmp_path, relay=True)
    assert copy(source, target, tmp_path, resume_window=0)["objects"][0]["by_server"]
    assert stored(target) == {KEY: DATA}
    assert nothing_is_unfinished(target, tmp_path)


def nothing_is_unfinished(target: StoreSpec, state: Path, removes: bool = True) -> bool:
    seen: list[str] = []
    with opened(target) as store:
        store.abort_uploads("", lambda info: bool(seen.append(info.key)) or removes)
    return not seen and list((state / "state" / "transfers").iterdir()) == []


@pytest.mark.parametrize(("kind", "to", "relay"), [("s3", "s3", False), ("s3", "s3", True), ("s3", "file", True)])
def test_what_comes_there_while_an_object_is_copied_stays_where_nothing_shall_be_replaced(
    kind: str, to: str, relay: bool, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = places(kind), places(to)
    put(source, KEY, DATA)
    owner, name = (move_object.ObjectMove, "_is_taken") if relay else (S3Parts, "copy_part")
    original = getattr(owner, name)

    def meanwhile(*what: Any) -> Any:
        found = original(*what)
        put(target, KEY, b"another's")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, meanwhile)
        done = copy(source, target, tmp_path, overwrite="never", relay=relay)
    (row,) = done["objects"]
    assert (done["changed"], row["outcome"], stored(target)) == (False, "left", {KEY: b"another's"})
    with opened(target) as store:
        store.delete(KEY)
        assert store.abort_uploads("", lambda info: True) == 0
    assert copy(source, target, tmp_path, overwrite="never", relay=relay)["objects"][0]["outcome"] == "sent"
    assert stored(target) == {KEY: DATA}


def test_what_a_server_does_not_copy_goes_through_this_host(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = places("s3"), places("s3")
    put(source, KEY, DATA)

    def cannot(*_what: Any) -> None:
        raise VmferryError("unsupported", "The server does not copy.")

    monkeypatch.setattr(s3_copy, "_copied", cannot)
    (row,) = copy(source, target, tmp_path)["objects"]
    assert (row["by_server"], row["bytes_sent"]) == (False, len(DATA))
    assert stored(target) == {KEY: DATA}
    other = replace(source, settings={**source.settings, "parallel": 3})  # of a client of its own
    with opened(other) as one, opened(target) as two:
        monkeypatch.setattr(one.__dict__["_bucket"].client.meta, "_endpoint_url", "http://elsewhere")
        assert not s3_copy.same_server(one.__dict__["_bucket"], two.__dict__["_bucket"])


@pytest.mark.parametrize(("kind", "to"), [("s3", "file"), ("file", "s3")])
def test_a_copy_that_failed_is_gone_on_with(
    kind: str, to: str, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from .test_storage_uploads import cut_after

    source, target = places(kind), places(to)
    put(source, KEY, DATA)
    with monkeypatch.context() as patched:
        cut_after(patched, to, 1 if to == "s3" else 2)
        error = refused("network", "gone", source, target, tmp_path)
    assert error.done["kept"]["export"].startswith(target.url)
    assert [row["outcome"] for row in error.done["objects"]] == ["failed"]
    assert stored(target) == {}
    (row,) = copy(source, target, tmp_path)["objects"]
    assert row["bytes_kept"] >= MIB
    assert stored(target) == {KEY: DATA}


def test_an_object_that_is_replaced_meanwhile_is_not_copied(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = places("s3"), places("file")
    put(source, KEY, DATA)
    read, done = S3Store.read_into, []

    def replaced(self: Any, key: str, offset: int, buffer: memoryview) -> None:
        read(self, key, offset, buffer)
        if not done:
            done.append(True)
            put(source, KEY, DATA[::-1])

    monkeypatch.setattr(S3Store, "read_into", replaced)
    refused("conflict", "was replaced", source, target, tmp_path)
    assert stored(target) == {}


def test_a_bandwidth_limit_counts_each_byte_of_a_copy_once(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    take = Limiter.take

    def counted(self: Limiter, nbytes: int) -> None:
        taken.append(nbytes)
        take(self, nbytes)

    monkeypatch.setattr(Limiter, "take", counted)
    source, target = places("file"), places("file")
    put(source, KEY, DATA[: 2 * MIB])
    transfer = TransferOptions(state_dir=str(tmp_path / "state"), bandwidth_limit="2MiB/s", bandwidth_burst=1)
    started = time.monotonic()
    copy(source, target, tmp_path, transfer=transfer)
    assert time.monotonic() - started >= 0.8
    assert 2 * MIB <= sum(taken) < 2.1 * MIB
