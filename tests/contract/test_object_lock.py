# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Object lock as a server really does it: what an export asks for, and that a cleanup keeps what is locked.

To delete what is locked, or to write it again, is no error to S3: it hides the object and frees nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from engine.exports.shelves import FILES, clean_up, commit, folder_of, keys, rules

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.copy_objects import copy_objects
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.storage_requests import (
    CopyRequest,
    UploadRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.upload_files import upload_files
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.limited import LimitedStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.retrying import RetryingStore
from rigs.fault_proxy import Fault, FaultProxy

from .chains import Chain, Guest, export
from .patience import Meter, Patience
from .store_rigs import S3Rig
from .test_export_copies import Copied

HOUR = 3600.0
Load = Callable[[Store], Chain]
UNTIL = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(hours=2)
LOCKS: list[dict[str, Any]] = [
    {"object_lock_mode": "GOVERNANCE", "object_lock_retention": HOUR},
    {"object_lock_mode": "COMPLIANCE", "object_lock_retain_until": UNTIL.isoformat()},
    {"object_lock_legal_hold": True},
]


@pytest.fixture(scope="module")
def bucket(s3: S3Rig) -> str:
    name = f"locks-{token_hex(4)}"
    s3.client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


@pytest.fixture
def url(bucket: str) -> str:
    return f"s3://{bucket}/{token_hex(4)}"


def opened(s3: S3Rig, url: str, **settings: Any) -> Store:
    return open_store(url, {**s3.server.settings, **settings})


def versions(s3: S3Rig, url: str) -> dict[str, list[dict[str, Any]]]:
    """By key, what HEAD says of each version, the hidden ones included."""
    bucket, _unused, prefix = url.removeprefix("s3://").partition("/")
    found: dict[str, list[dict[str, Any]]] = {}
    for one in s3.client.list_object_versions(Bucket=bucket, Prefix=f"{prefix}/")["Versions"]:
        head = s3.client.head_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])
        found.setdefault(one["Key"].removeprefix(f"{prefix}/"), []).append(head)
    return found


def lock_of(head: dict[str, Any]) -> tuple[str, datetime | None, bool]:
    until = head.get("ObjectLockRetainUntilDate")
    return head.get("ObjectLockMode", ""), until, head.get("ObjectLockLegalHoldStatus") == "ON"


@pytest.mark.parametrize("lock", LOCKS)
def test_all_of_an_export_is_locked_and_nothing_but_what_stays(
    s3: S3Rig, url: str, tmp_path: Path, lock: dict[str, Any]
) -> None:
    begun = datetime.now(timezone.utc).replace(microsecond=0)
    export(StoreSpec(url, {**s3.server.settings, **lock}), Guest(), tmp_path)
    staying = set(keys(opened(s3, url)))
    found = {key: heads for key, heads in versions(s3, url).items() if not key.startswith(".vmferry-probe-")}
    assert {key.rpartition("/")[2] for key in staying} >= {"manifest.json", "disk-0.qcow2", "disk-1.digests", "vm.json"}
    assert set(found) > staying, "an export writes more than it leaves"
    for key, heads in found.items():
        for mode, until, held in map(lock_of, heads):
            assert (mode, held) == (
                (lock.get("object_lock_mode", ""), "object_lock_legal_hold" in lock) if key in staying else ("", False)
            )
            if mode == "COMPLIANCE":
                assert until == UNTIL
            elif mode:
                assert until is not None
                assert begun + timedelta(seconds=HOUR) <= until <= datetime.now(timezone.utc) + timedelta(seconds=HOUR)


def test_a_copy_is_locked_as_its_own_store_says(s3: S3Rig, url: str, tmp_path: Path, chain: Load) -> None:
    copied = Copied(tmp_path, chain)
    result = copied.copy(StoreSpec(url, {**s3.server.settings, **LOCKS[2]}), export=0)
    assert result["changed"]
    staying = set(keys(opened(s3, url)))
    held = {key: {lock_of(head)[2] for head in heads} for key, heads in versions(s3, url).items()}
    assert {key for key, seen in held.items() if seen == {True}} == staying
    assert len(staying) >= len(FILES)


def test_without_being_asked_nothing_is_locked(s3: S3Rig, url: str, tmp_path: Path) -> None:
    export(StoreSpec(url, s3.server.settings), Guest(), tmp_path)
    assert {lock_of(head) for heads in versions(s3, url).values() for head in heads} == {("", None, False)}


@pytest.mark.parametrize("file", ["manifest.json", "disk-0.qcow2", "disk-0.digests", "native/domain.xml"])
def test_a_cleanup_keeps_what_is_locked_and_says_so(s3: S3Rig, url: str, file: str) -> None:
    store = opened(s3, url, object_lock_legal_hold=True)
    old, base = commit(store, 40), commit(store, 39, number=1)
    child = commit(store, 38, number=2, parent=base)
    store.lock(f"{folder_of(child)}/{file}")
    before = keys(store)
    told = clean_up(store, check_mode=True, max_age=86400.0)
    assert rules(told) == {old: "max_age", base: "child", child: "locked"}
    done = clean_up(store, max_age=86400.0)
    assert done == told
    assert (done["deleted"], len(done["failures"])) == ([old], 0)
    assert [one["reason"] for one in done["exports"] if one["id"] == child] == [
        f"Its {file} is locked in the store, so that nobody can delete it yet."
    ]
    assert keys(store) == [key for key in before if old not in key]
    with pytest.raises(VmferryError, match="is locked") as raised:
        clean_up(store, exports=(child,))
    assert raised.value.kind == "conflict"


def test_what_is_locked_no_more_goes(s3: S3Rig, bucket: str, url: str) -> None:
    store = opened(s3, url, object_lock_legal_hold=True)
    old = commit(store, 40)
    key = f"{folder_of(old)}/manifest.json"
    store.lock(key)
    assert clean_up(store, max_age=86400.0)["deleted"] == []
    full = f"{url.rpartition('/')[2]}/{key}"
    s3.client.put_object_legal_hold(Bucket=bucket, Key=full, LegalHold={"Status": "OFF"})
    assert clean_up(store, max_age=86400.0)["deleted"] == [old]
    assert keys(store) == []


def test_what_is_locked_counts_as_used_and_not_as_freed(s3: S3Rig, url: str) -> None:
    store = opened(s3, url, object_lock_legal_hold=True)
    old, young = commit(store, 40), commit(store, 1, number=1)
    store.lock(f"{folder_of(old)}/disk-0.qcow2")
    done = clean_up(store, max_total_size=1)
    assert rules(done) == {old: "locked", young: "max_total_size"}
    assert (done["deleted"], done["freed"]) == (
        [young],
        next(one for one in done["exports"] if one["id"] == young)["size"],
    )
    assert "max_total_size is 1" in done["warnings"][0]


def test_a_bucket_without_object_lock_is_refused_before_the_first_byte(s3: S3Rig, tmp_path: Path) -> None:
    url = f"s3://{s3.bucket}/{token_hex(4)}"
    with pytest.raises(VmferryError, match="not enabled for the bucket") as raised:
        export(StoreSpec(url, {**s3.server.settings, **LOCKS[0]}), Guest(), tmp_path)
    assert raised.value.kind == "invalid_config"
    assert s3.leftovers(opened(s3, url)) == []


def test_a_time_that_is_over_is_refused_before_the_first_byte(s3: S3Rig, url: str) -> None:
    store = opened(s3, url, object_lock_mode="GOVERNANCE", object_lock_retain_until="2026-01-01T00:00:00Z")
    with pytest.raises(VmferryError, match="2026-01-01T00:00:00") as raised:
        store.open_parts("vm/disk-0.qcow2")
    assert raised.value.kind == "invalid_config"


def test_a_lock_that_the_store_does_not_show_is_none(s3: S3Rig, url: str, s3_proxy: FaultProxy) -> None:
    opened(s3, url).put("vm/a", b"x")
    s3_proxy.reset()
    s3_proxy.fail_always(Fault(answer=200, method="PUT"))  # as a server does that knows no locks, and takes anything
    try:
        with pytest.raises(VmferryError, match="does not say that it is") as raised:
            opened(s3, url, endpoint_url=s3_proxy.endpoint_url, object_lock_legal_hold=True).lock("vm/a")
    finally:
        s3_proxy.reset()
    assert raised.value.kind == "unsupported"


@pytest.mark.parametrize(("lock", "step"), [(LOCKS[0], "retention"), (LOCKS[1], "retention"), (LOCKS[2], "legal-hold")])
def test_who_may_not_lock_is_told_before_the_first_byte(
    s3: S3Rig, url: str, s3_proxy: FaultProxy, tmp_path: Path, lock: dict[str, Any], step: str
) -> None:
    s3_proxy.reset()
    refusal = Fault(answer=403, body=b"<Error><Code>AccessDenied</Code></Error>", method="PUT", path=step)
    s3_proxy.fail_next(*[refusal] * 2)
    settings = {**s3.server.settings, **lock, "endpoint_url": s3_proxy.endpoint_url}
    try:
        with pytest.raises(VmferryError, match="access was denied") as raised:
            export(StoreSpec(url, settings), Guest(), tmp_path)
    finally:
        s3_proxy.reset()
    assert raised.value.kind == "permission_denied"
    assert "s3:PutObjectRetention" in raised.value.hint
    assert keys(opened(s3, url)) == []


def test_whatever_a_store_is_wrapped_in_locks_too(s3: S3Rig, url: str) -> None:
    store = RetryingStore(LimitedStore(opened(s3, url, object_lock_legal_hold=True), Meter()), Patience())
    store.put("vm/a", b"x")
    store.lock("vm/a")
    info = store.stat("vm/a")
    assert info is not None
    assert info.locked


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"object_lock_mode": "GOVERNANCE"}, "object_lock_mode"),
        ({"object_lock_mode": "FOREVER", "object_lock_retention": HOUR}, "object_lock_mode"),
        ({**LOCKS[0], **LOCKS[1]}, "object_lock_mode"),
        ({"object_lock_retention": HOUR}, "object_lock_retention"),
        ({"object_lock_retain_until": "2127-01-01T00:00:00Z"}, "object_lock_retain_until"),
        ({"object_lock_mode": "GOVERNANCE", "object_lock_retain_until": "tomorrow"}, "object_lock_retain_until"),
        ({"object_lock_mode": "GOVERNANCE", "object_lock_retain_until": "2127-01-01"}, "object_lock_retain_until"),
    ],
)
def test_what_does_not_go_together_is_refused(s3: S3Rig, url: str, settings: dict[str, Any], option: str) -> None:
    with pytest.raises(VmferryError) as raised:
        opened(s3, url, **settings)
    assert raised.value.kind == "invalid_config"
    assert f"option {option} " in raised.value.message


@pytest.mark.parametrize("lock", LOCKS)
def test_files_and_copies_are_locked_as_asked(s3: S3Rig, url: str, tmp_path: Path, lock: dict[str, Any]) -> None:
    (tmp_path / "a.img").write_bytes(b"data")
    transfer = TransferOptions(state_dir=str(tmp_path / "state"))
    locking = StoreSpec(url, {**s3.server.settings, **lock})
    upload_files(UploadRequest(locking, (str(tmp_path / "a.img"),), transfer=transfer), False)
    elsewhere = StoreSpec(f"{url}-copy", locking.settings)
    for relay in (True, False):
        to = StoreSpec(f"{elsewhere.url}-{relay}", elsewhere.settings)
        copy_objects(CopyRequest(locking, to, prefix="", relay=relay, transfer=transfer), False)
        found = opened(s3, to.url).stat("a.img")
        assert found is not None
        assert found.locked
    found = opened(s3, url).stat("a.img")
    assert found is not None
    assert found.locked


@pytest.mark.parametrize("url_", ["/srv/exports", "gs://b/p", "azblob://c/p", "https://dav.example.org/p"])
@pytest.mark.parametrize("lock", LOCKS)
def test_what_keeps_no_lock_does_not_promise_one(url_: str, lock: dict[str, Any]) -> None:
    with pytest.raises(VmferryError, match="S3 alone") as raised:
        open_store(url_, lock)
    assert raised.value.kind == "invalid_config"
