# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told before the first byte, in one sentence, with nothing left behind."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec, StoreSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_exports import list_exports
from rigs.domain import Guest
from rigs.ports import free_port

from .exports import Bench, refused


@pytest.mark.parametrize(("setting", "kind"), [("secret_key", "unauthenticated"), ("access_key", "unauthenticated")])
def test_wrong_credentials(s3_bench: Bench, small: Guest, setting: str, kind: str) -> None:
    wrong = StoreSpec(s3_bench.store.url, {**s3_bench.store.settings, setting: "wrong-on-purpose"})
    error = s3_bench.refused_export("small", kind, "exports", store=wrong)
    assert not error.retryable
    assert "wrong-on-purpose" not in f"{error} {error.hint}" or setting == "access_key"
    s3_bench.assert_nothing_left("small")


def test_bucket_that_does_not_exist(s3_bench: Bench, small: Guest) -> None:
    missing = StoreSpec("s3://no-such-bucket/x", s3_bench.store.settings)
    s3_bench.refused_export("small", "not_found", "no-such-bucket", store=missing)
    s3_bench.assert_nothing_left("small")


def places_without_exports(bench: Bench, s3_bench: Bench) -> list[tuple[StoreSpec, str]]:
    """And what is said of each."""
    (bench.folder / "file").touch()
    settings = s3_bench.store.settings
    return [
        (StoreSpec(f"file://{bench.folder}/file"), "file is not a folder"),
        (StoreSpec(f"file://{bench.folder}/missing"), "missing does not exist"),
        (StoreSpec("s3://no-such-bucket", settings), "no-such-bucket does not exist"),
        (StoreSpec("s3://no-such-bucket/x", settings), "no-such-bucket does not exist"),
    ]


def test_a_place_that_does_not_exist_is_not_listed_as_one_without_exports(bench: Bench, s3_bench: Bench) -> None:
    for store, words in places_without_exports(bench, s3_bench):
        asked = partial(list_exports, store, "", "", [], "", statistics=False)
        assert refused(asked, "not_found", words).hint
    for store in (bench.store, s3_bench.store):
        assert list_exports(store, "", "", [], "", statistics=False)["exports"] == []


def test_an_import_from_a_place_that_does_not_exist_says_so(bench: Bench, s3_bench: Bench) -> None:
    for store, words in places_without_exports(bench, s3_bench):
        assert bench.refused_import("restored", "not_found", words, store=store).hint


def test_an_export_makes_the_last_folder_of_its_path(bench: Bench, off: str) -> None:
    new = StoreSpec(f"file://{bench.folder}/new", {})
    assert bench.export(off, store=new, verify="none", max_age=60.0)["changed"]
    assert not bench.export(off, store=new, max_age=60.0)["changed"]


def test_a_pool_or_a_disk_that_does_not_exist_is_told_with_those_that_do(bench: Bench, off: str) -> None:
    bench.export(off, verify="none")
    pool = bench.rig.connect().storagePoolCreateXML(
        f"<pool type='dir'><name>ours</name><target><path>{bench.images}</path></target></pool>"
    )
    try:
        error = bench.refused_import("restored", "not_found", "pool theirs", placement={"storage": "theirs"})
        assert "ours" in error.hint
    finally:
        pool.destroy()
    error = bench.refused_import("restored", "invalid_config", "sda", placement={"storage_map": {"sda": "ours"}})
    assert "disk-0 (vda)" in error.hint


def test_path_below_a_file(bench: Bench, small: Guest) -> None:
    (bench.folder / "file").touch()
    wrong = StoreSpec(f"file://{bench.folder}/file/exports", {})
    error = bench.refused_export("small", "permission_denied", "file/exports", store=wrong)
    assert not error.retryable
    bench.assert_nothing_left("small")


@pytest.fixture
def mounted(folder: Path) -> Iterator[Path]:
    """A file system of 8 MiB, less than the machine's data."""
    place = folder / "mounted"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_path_on_a_file_system_that_is_read_only(bench: Bench, small: Guest, mounted: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    bench.refused_export("small", "permission_denied", "mounted", store=StoreSpec(f"file://{mounted}", {}))
    bench.assert_nothing_left("small")


def test_path_that_gets_full(bench: Bench, small: Guest, mounted: Path) -> None:
    store = StoreSpec(f"file://{mounted}/exports", {})
    error = bench.refused_export("small", "no_space", "mounted", store=store, on_failure="undo")
    assert not error.retryable
    assert error.phase == "exporting"
    bench.assert_nothing_left("small")
    assert not [path for path in mounted.rglob("*") if path.is_file()]


def test_store_that_nobody_listens_at(s3_bench: Bench, small: Guest) -> None:
    settings = {**s3_bench.store.settings, "endpoint_url": f"http://127.0.0.1:{free_port()}"}
    error = s3_bench.refused_export(
        "small", "network", "127.0.0.1", store=StoreSpec(s3_bench.store.url, settings), transfer={"max_retries": 1}
    )
    assert error.retryable
    s3_bench.assert_nothing_left("small")


def test_scratch_folder_that_does_not_exist(bench: Bench, small: Guest) -> None:
    missing = ProviderSpec("libvirt", {"uri": bench.rig.uri, "scratch_dir": str(bench.folder / "missing")})
    error = bench.refused_export("small", "not_found", "missing", provider=missing)
    assert "scratch_dir" in error.hint
    bench.assert_nothing_left("small")


def test_check_mode_tells_all_findings_at_once_and_writes_nothing(bench: Bench, small: Guest) -> None:
    (bench.folder / "file").touch()
    before = sorted(path for path in bench.folder.rglob("*"))
    broken = replace(bench, store=StoreSpec(f"file://{bench.folder}/file/exports", {}))
    result = broken.export("small", check_mode=True, consistency="quiesced")
    errors = {finding["kind"] for finding in result["findings"] if finding["severity"] == "error"}
    assert errors == {"unsupported", "permission_denied"}
    assert sorted(path for path in bench.folder.rglob("*")) == before


def test_check_mode_says_of_a_run_that_would_fail_that_it_changes_nothing_and_warns_why(
    bench: Bench, small: Guest
) -> None:
    doomed = bench.export("small", check_mode=True, disks=("vda", "vdz"))
    (error,) = (finding for finding in doomed["findings"] if finding["severity"] == "error")
    assert not doomed["changed"]
    assert doomed["diff"]["after"] == doomed["diff"]["before"]
    assert doomed["warnings"] == [f"{error['message']} {error['hint']}"]
    sound = bench.export("small", check_mode=True)
    assert sound["changed"]
    assert sound["diff"]["after"] != sound["diff"]["before"]
    assert sound["warnings"] == []


def test_check_mode_tells_of_a_taken_name_and_of_unknown_disks_beside_all_else(bench: Bench, small: Guest) -> None:
    bench.export("small", name="nightly", verify="none")
    keys = bench.keys()
    asked = {"name": "nightly", "format": "raw", "disks": ("vda", "vdz"), "consistency": "quiesced"}
    result = bench.export("small", check_mode=True, **asked)
    errors = {finding["kind"]: finding for finding in result["findings"] if finding["severity"] == "error"}
    assert set(errors) == {"conflict", "not_found", "unsupported"}
    assert "nightly" in errors["conflict"]["message"]
    assert "vdz" in errors["not_found"]["message"]
    assert [disk["name"] for disk in result["plan"]["disks"]] == ["vda"]
    assert bench.keys() == keys


def test_one_machine_is_exported_once_at_a_time(bench: Bench, small: Guest) -> None:
    arguments = bench.module_arguments(vm="small", bandwidth_limit="1MiB/s", on_failure="undo")
    with bench.running_module("vm_export", arguments) as first:
        first.wait_for_bytes()
        error = bench.refused_export("small", "busy", "small", transfer={"max_retries": 0})
        assert error.retryable
        first.process.terminate()
        assert first.result()["error"]["kind"] == "cancelled"
    bench.assert_nothing_left("small")
