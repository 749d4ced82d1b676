# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects are told as the store has them, and removed if they are the ones that were meant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations import remove_object as remove_object_module
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import StoreSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.storage_requests import (
    LookRequest,
    ObjectSpec,
    RemoveRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.look_at_objects import look_at_objects
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.remove_object import remove_object
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.sidecar import sidecar_key, write_sidecar

from .objects_rig import Places, each_kind, opened

KEY = "isos/ä b+c%41.iso"
SUM = "ab" * 32


def put(spec: StoreSpec, key: str, data: bytes, metadata: dict[str, str] | None = None) -> None:
    with opened(spec) as store:
        info = store.put(key, data, metadata=metadata and {**metadata, "vmferry-sha256": SUM})
        if metadata and spec.url.startswith("file:"):
            write_sidecar(store, key, {**metadata, "vmferry-sha256": SUM}, info.etag)


def look(spec: StoreSpec, **options: Any) -> dict[str, Any]:
    return look_at_objects(LookRequest(spec, **options))


def remove(spec: StoreSpec, key: str, *, check_mode: bool = False, **options: Any) -> dict[str, Any]:
    return remove_object(RemoveRequest(ObjectSpec(spec, key), **options), check_mode)


@each_kind
def test_an_object_is_told_with_what_was_noted_of_it(kind: str, places: Places) -> None:
    spec = places(kind)
    put(spec, KEY, b"0123456789", {"os": "debian ä"})
    result = look(spec, key=KEY)
    (one,) = result["objects"]
    assert (result["exists"], result["changed"], result["truncated"]) == (True, False, False)
    assert (one["key"], one["size"], one["checksum"], one["metadata"]) == (KEY, 10, SUM, {"os": "debian ä"})
    assert one["url"].startswith(spec.url)
    assert one["etag"]
    assert one["modified"].startswith("20")
    assert bool(one["type"]) == (kind == "s3")


def test_a_checksum_of_a_file_that_was_replaced_is_not_told(places: Places) -> None:
    spec = places("file")
    put(spec, KEY, b"0123456789", {"os": "debian"})
    (Path(spec.url.removeprefix("file://")) / KEY).write_bytes(b"9876543210")
    (one,) = look(spec, key=KEY)["objects"]
    assert (one["checksum"], one["metadata"]) == ("", {"os": "debian"})


@each_kind
def test_what_is_not_there_is_told_and_a_store_that_is_not_there_fails(
    kind: str,
    places: Places,
) -> None:
    spec = places(kind)
    assert (look(spec, key="nothing")["objects"], look(spec, key="nothing")["exists"]) == ([], False)
    nowhere = StoreSpec(spec.url + "/no/where") if kind == "file" else StoreSpec("s3://nobucket/x", spec.settings)
    for what in ({"key": "nothing"}, {"prefix": "no"}):
        with pytest.raises(VmferryError) as refused:
            look(nowhere, **what)
        assert refused.value.kind == "not_found"


@each_kind
def test_a_list_is_in_order_and_as_long_as_asked_for(kind: str, places: Places) -> None:
    spec = places(kind)
    for key in ("b/2", "a", "b/1", "b0"):
        put(spec, key, key.encode())
    listed = look(spec, prefix="b", limit=2)
    assert [one["key"] for one in listed["objects"]] == ["b/1", "b/2"]
    assert listed["truncated"]
    assert [one["key"] for one in look(spec)["objects"]] == ["a", "b/1", "b/2", "b0"]
    assert not look(spec, prefix="b/", limit=2)["truncated"]


@each_kind
def test_an_object_is_removed_once_with_what_was_noted_beside_it(kind: str, places: Places) -> None:
    spec = places(kind)
    put(spec, KEY, b"0123456789", {"os": "debian"})
    put(spec, "other", b"stays")
    planned = remove(spec, KEY, check_mode=True)
    assert look(spec, key=KEY)["exists"]
    done = remove(spec, KEY)
    assert planned == done
    assert (done["changed"], done["object"]["size"]) == (True, 10)
    assert (done["diff"]["before"]["state"], done["diff"]["after"]) == ("present", {"state": "absent"})
    assert [one["key"] for one in look(spec)["objects"]] == ["other"]
    again = remove(spec, KEY)
    assert (again["changed"], again["object"], again["diff"]["before"]) == (False, {}, {"state": "absent"})


def test_what_a_killed_removal_left_beside_the_object_is_removed_by_the_next(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = places("file")
    put(spec, KEY, b"0123456789", {"os": "debian"})
    with monkeypatch.context() as killed:

        def dies(*_what: Any) -> None:
            raise KeyboardInterrupt

        killed.setattr(remove_object_module, "forget_metadata", dies)
        with pytest.raises(KeyboardInterrupt):
            remove(spec, KEY)
    assert [one["key"] for one in look(spec)["objects"]] == [sidecar_key(KEY)]
    assert remove(spec, KEY, check_mode=True)["changed"]
    assert remove(spec, KEY)["changed"]
    assert look(spec)["objects"] == []
    assert not remove(spec, KEY)["changed"]


@each_kind
def test_an_object_that_was_replaced_is_not_removed(kind: str, places: Places) -> None:
    spec = places(kind)
    put(spec, KEY, b"first")
    seen = look(spec, key=KEY)["objects"][0]["etag"]
    put(spec, KEY, b"second")
    for check_mode in (True, False):
        with pytest.raises(VmferryError) as refused:
            remove(spec, KEY, if_match=seen, check_mode=check_mode)
        assert refused.value.kind == "conflict"
    with opened(spec) as store:
        assert store.get(KEY) == b"second"
    assert remove(spec, KEY, if_match=look(spec, key=KEY)["objects"][0]["etag"])["changed"]


def test_what_is_noted_of_a_file_is_told_with_it_and_is_no_object_of_its_own(places: Places) -> None:
    spec = places("file")
    put(spec, "isos/a", b"0123456789", {"os": "debian"})
    put(spec, "isos/a-b", b"sorts between the two")
    put(spec, "isos/b", b"1")
    put(spec, sidecar_key("isos/b"), b"a user's own")
    put(spec, sidecar_key("isos/c"), b"{}")
    found = look(spec, limit=4)
    assert [one["key"] for one in found["objects"]] == ["isos/a", "isos/a-b", "isos/b", "isos/b.meta.json"]
    assert (found["objects"][0]["metadata"], found["truncated"]) == ({"os": "debian"}, True)
    assert not look(spec, limit=5)["truncated"]
    assert look(spec, key=sidecar_key("isos/a"))["exists"], "whoever names it, means it"


@each_kind
def test_a_folder_or_a_pattern_is_not_silently_taken_for_what_it_is_not(kind: str, places: Places) -> None:
    spec = places(kind)
    for key in ("isos/a.iso", "isos/old/b.iso", "c[1].iso"):
        put(spec, key, b"1")
    before = look(spec)["objects"]
    for key, words in (
        ("isos", "/isos is a folder, of .*/isos/a.iso for example: nothing was removed"),
        ("isos/old", "is a folder"),
        ("isos/*.iso", "no pattern: nothing was removed. .*isos/a.iso is still there"),
        ("*", "no pattern"),
    ):
        done = remove(spec, key)
        (warning,) = done["warnings"]
        assert re.search(words, warning), warning
        assert remove(spec, key, check_mode=True)["warnings"] == [warning]
        assert not done["changed"]
    assert look(spec)["objects"] == before
    assert (remove(spec, "c[1].iso")["changed"], remove(spec, "c[1].iso")["warnings"]) == (True, [])
    assert remove(spec, "nothing")["warnings"] == remove(spec, "*.img")["warnings"] == []
