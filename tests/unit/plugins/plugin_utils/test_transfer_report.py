# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports of transfers: what is read from a result, how a table, metrics and an audit log are written."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.errors import translate
from ansible_collections.vmferry.migrate.plugins.plugin_utils import transfer_report_metrics as metrics
from ansible_collections.vmferry.migrate.plugins.plugin_utils.transfer_report import Transfer, transfer_of
from ansible_collections.vmferry.migrate.plugins.plugin_utils.transfer_report_audit import (
    AuditLog,
    Circumstances,
    audit_entry,
)
from ansible_collections.vmferry.migrate.plugins.plugin_utils.transfer_report_fleet import FACT, left_out
from ansible_collections.vmferry.migrate.plugins.plugin_utils.transfer_report_metrics import Series
from ansible_collections.vmferry.migrate.plugins.plugin_utils.transfer_report_table import table_lines

FEW = settings(max_examples=30, deadline=None)  # of each ansible-core and each Python that these tests run on
DB01 = "db01-77ab01c2/20261121T020000Z-9c8d7e6f"
MASKED = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
JOB = {"id": "0123456789", "vm": "web01", "kind": "export", "url": "s3://b/vms", "bytes_read": 30, "duration": 2.0}
DISKS = [{"bytes_read": 10, "bytes_stored": 12}, {"bytes_read": 10, "bytes_stored": 13}]
EXPORT = {
    "id": "20261121T063000Z-1a2b3c4d",
    "url": "s3://b/vms/web01",
    "mode": "full",
    "vm": {"name": "web01"},
    "disks": DISKS,
    "taken_at": "2026-11-21T06:30:00Z",
    "duration": 9.0,
}
FAILURE = {
    "msg": "There is no room.",
    "error": {"kind": "no_space", "hint": "Make some.", "phase": "exporting"},
    "job": JOB,
    "failed": True,
}


def told(result: dict[str, Any], kind: str = "export", **how: Any) -> Transfer:
    return transfer_of(result, host="kvm1", kind=kind, time=1000.0, **how)


def made(vm: str = "web01", outcome: Any = "ready", time: float = 1000.0, **known: Any) -> Transfer:
    return Transfer("kvm1", "export", outcome, time, vm=vm, **known)


def test_an_export_is_told_by_its_job_and_its_disks() -> None:
    transfer = told({"changed": True, "job": JOB, "export": EXPORT})
    assert (transfer.outcome, transfer.vm, transfer.mode, transfer.url) == ("ready", "web01", "full", EXPORT["url"])
    assert (transfer.bytes_read, transfer.bytes_stored, transfer.duration, transfer.rate) == (20, 25, 2.0, 10.0)
    assert transfer.taken_at == 1795242600.0


def test_an_import_is_told_by_the_vm_it_made() -> None:
    result = {"changed": True, "export": EXPORT, "job": {"id": "0123456789"}, "vm": {"name": "copy"}}
    transfer = told(result, "import")
    assert (transfer.vm, transfer.bytes_read, transfer.bytes_stored) == ("copy", 25, None)


def test_a_migration_is_told_by_its_source_and_by_what_its_job_moved() -> None:
    job = {**JOB, "kind": "migrate", "url": "", "bytes_sent": 25}
    transfer = told({"changed": True, "job": job, "vm": {"name": "copy"}, "migration": {}}, "migrate")
    assert (transfer.vm, transfer.outcome, transfer.bytes_read, transfer.bytes_stored) == ("web01", "ready", 30, 25)


def test_an_export_that_was_there_already_moved_nothing() -> None:
    transfer = told({"changed": False, "job": {**JOB, "bytes_read": 0}, "export": EXPORT})
    assert (transfer.outcome, transfer.bytes_read, transfer.bytes_stored) == ("unchanged", 0, 0)


def test_a_vm_that_was_read_and_had_not_changed_is_unchanged_and_nothing_was_stored() -> None:
    export = {**EXPORT, "checked_at": "2026-11-22T06:30:00Z"}
    transfer = told({"changed": False, "job": JOB, "export": export, "unchanged_since": EXPORT["id"]})
    assert (transfer.outcome, transfer.bytes_read, transfer.bytes_stored) == ("unchanged", 30, 0)
    assert (transfer.taken_at, transfer.checked_at) == (1795242600.0, 1795329000.0)
    assert audit_entry(transfer, CIRCUMSTANCES)["checked_at"] == "2026-11-22T06:30:00+00:00"


def test_an_export_that_was_just_made_equals_the_vm_as_of_when_it_was_taken() -> None:
    transfer = told({"changed": True, "job": JOB, "export": {**EXPORT, "checked_at": ""}})
    assert transfer.checked_at == transfer.taken_at


def test_a_check_that_found_an_error_failed_and_tells_the_vm_and_the_store() -> None:
    error = {"severity": "error", "kind": "no_space", "message": "There is no room.", "hint": "Make some."}
    findings = [{"severity": "warning", "kind": "", "message": "Hm.", "hint": ""}, error]
    job = {"vm": "web01", "kind": "export", "url": "s3://b/vms"}
    transfer = told({"changed": False, "job": job, "findings": findings}, check=True)
    assert (transfer.outcome, transfer.vm, transfer.url) == ("failed", "web01", "s3://b/vms")
    assert (transfer.error_kind, transfer.message, transfer.hint) == ("no_space", "There is no room.", "Make some.")
    assert told({"changed": True, "job": job, "findings": findings[:1]}, check=True).outcome == "checked"


def test_bytes_that_moved_count_although_the_task_says_changed_when_false() -> None:
    assert told({"changed": False, "job": JOB, "export": EXPORT}).outcome == "ready"


def test_a_failure_has_its_kind_its_sentence_and_its_hint() -> None:
    transfer = told(FAILURE, failed=True)
    assert (transfer.outcome, transfer.vm, transfer.url) == ("failed", "web01", "s3://b/vms")
    assert (transfer.error_kind, transfer.message, transfer.hint) == ("no_space", "There is no room.", "Make some.")


def test_a_failure_stays_one_although_the_task_says_failed_when_false() -> None:
    assert told({**FAILURE, "failed": False}).outcome == "failed"


def test_a_transfer_that_somebody_stopped_is_cancelled() -> None:
    assert told({**FAILURE, "error": {"kind": "cancelled"}}, failed=True).outcome == "cancelled"


def test_of_a_censored_result_only_the_outcome_is_told() -> None:
    result = {"changed": True, "censored": "hidden", "job": JOB, "export": EXPORT, "msg": "secret"}
    assert told(result) == Transfer("kvm1", "export", "ready", 1000.0)
    assert told({**FAILURE, "_ansible_no_log": True}, failed=True) == Transfer("kvm1", "export", "failed", 1000.0)


def test_what_was_masked_is_shown_as_it_is_and_never_counted() -> None:
    export = {**EXPORT, "vm": {"name": MASKED}, "url": "file:///********/x", "disks": [{"bytes_read": MASKED}]}
    transfer = told({"changed": True, "export": export, "job": {}})
    assert (transfer.vm, transfer.url, transfer.bytes_read) == (MASKED, "file:///********/x", None)


def rows(*states: tuple[str, str]) -> dict[str, Any]:
    error = {"message": "There is no VM.", "hint": "List them.", "kind": "not_found", "sentence": ""}
    found = [
        {"vm": f"vm{number}", "state": state, **({"error": {**error, "when": when}} if when else {})}
        for number, (state, when) in enumerate(states)
    ]
    return {"ansible_facts": {FACT: found}}


def test_a_vm_that_a_batch_leaves_out_is_an_export_that_failed() -> None:
    told_rows = rows(("planned", ""), ("failed", "preflight"), ("failed", "export"), ("none", ""))
    (transfer,) = left_out(told_rows, "kvm1", 1000.0)
    assert (transfer.host, transfer.vm, transfer.outcome, transfer.kind) == ("kvm1", "vm1", "failed", "export")
    assert (transfer.error_kind, transfer.message, transfer.hint) == ("not_found", "There is no VM.", "List them.")


@FEW
@given(
    st.recursive(st.none() | st.booleans() | st.text(), st.lists)
    | st.lists(st.fixed_dictionaries({"state": st.just("failed"), "error": st.text() | st.just({})}))
)
def test_facts_of_any_shape_leave_nobody_out(value: Any) -> None:
    assert left_out({"ansible_facts": value}, "kvm1", 0.0) == []
    assert left_out({"ansible_facts": {FACT: value}}, "kvm1", 0.0) == []


@FEW
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_a_result_of_any_shape_is_told(value: Any) -> None:
    transfer = told({"job": value, "export": {"disks": value, "vm": value, "taken_at": value}, "error": value})
    assert len(table_lines([transfer])) >= 2
    metrics.parse(metrics.exposition(metrics.after({}, [transfer])))


def test_columns_of_the_table_stand_below_each_other() -> None:
    ready = made("a-long-name", bytes_read=3 << 20, duration=1.5, url="file:///srv")
    lines = [line for line, _outcome in table_lines([ready, told(FAILURE, failed=True)])]
    assert lines == [
        "HOST  VM           KIND    OUTCOME  MODE     READ  STORED  TIME       RATE  WHERE, OR WHAT WENT WRONG",
        "kvm1  a-long-name  export  ready    -     3.15 MB       -  0:02  2.10 MB/s  file:///srv",
        "kvm1  web01        export  failed   -        30 B       -  0:02     15 B/s  no_space: There is no room.",
        " " * 76 + "Make some.",
    ]


def test_a_name_cannot_break_out_of_its_row() -> None:
    (_titles, row) = table_lines([made("evil\x1b[2J\r\nname", url="file:///srv")])
    assert "evil[2J name" in row[0]
    assert row[0].isprintable()


@FEW
@given(st.text(), st.text(), st.sampled_from(["export", "import"]))
def test_every_label_comes_back_from_a_parser_of_prometheus(host: str, vm: str, kind: str) -> None:
    text = metrics.exposition(metrics.after({}, [Transfer(host, kind, "ready", 1.5, vm=vm)]))
    (family,) = [one for one in text_string_to_metric_families(text) if one.name == metrics.LAST_RUN]
    assert family.type == "gauge"
    assert family.documentation == metrics.HELP[metrics.LAST_RUN]
    assert [(one.labels, one.value) for one in family.samples] == [({"host": host, "vm": vm, "kind": kind}, 1.5)]
    assert list(metrics.parse(text)) == [Series(host, vm, kind)]


names = st.text(st.characters() | st.sampled_from('\\"\n\r{},= '), max_size=8)
values = st.dictionaries(st.sampled_from(sorted(metrics.HELP)), st.floats(allow_nan=False), min_size=1)


@FEW
@given(st.dictionaries(st.builds(Series, names, names, names), values))
def test_what_was_written_is_read_back(samples: dict[Series, dict[str, float]]) -> None:
    assert metrics.parse(metrics.exposition(samples)) == samples


def test_bytes_that_are_no_text_make_no_second_series() -> None:
    once = metrics.after({}, [made("\udcff")])
    again = metrics.after(metrics.parse(metrics.exposition(once)), [made("\udcff", time=2000.0)])
    assert len(again) == 1


def test_a_failure_before_the_vm_is_known_is_forgotten_once_the_vm_is() -> None:
    failed = metrics.after({}, [made(""), made("db01")])
    assert Series("kvm1", "", "export") in failed
    assert set(metrics.after(failed, [made("web01")])) == {
        Series("kvm1", "web01", "export"),
        Series("kvm1", "db01", "export"),
    }


def test_of_two_transfers_of_a_vm_the_last_counts_and_a_success_is_remembered(tmp_path: Path) -> None:
    transfers = [made(outcome="ready", bytes_read=5), made(outcome="failed", time=1001.0)]
    metrics.write_metrics(tmp_path / "x.prom", transfers)
    found = metrics.parse((tmp_path / "x.prom").read_text())
    assert found[Series("kvm1", "web01", "export")] == {
        metrics.LAST_RUN: 1001.0,
        metrics.LAST_SUCCESS: 1000.0,
        metrics.SUCCESS: 0.0,
    }


def test_a_vm_that_does_not_change_keeps_a_recovery_point_that_is_not_old() -> None:
    first = metrics.after({}, [made(taken_at=500.0, checked_at=500.0)])
    again = metrics.after(first, [made(outcome="unchanged", time=2000.0, taken_at=500.0, checked_at=1990.0)])
    failed = metrics.after(again, [made(outcome="failed", time=3000.0)])
    for samples in (again, failed):
        (values,) = samples.values()
        assert (values[metrics.TAKEN], values[metrics.CHECKED]) == (500.0, 1990.0)


def test_a_file_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    for content in (b"root:x:0:0\n", b'node_load1{host="a",vm="b",kind="c"} 1\n', b"\xff\xfe"):
        (tmp_path / "x.prom").write_bytes(content)
        with pytest.raises(metrics.NotOurs):
            metrics.write_metrics(tmp_path / "x.prom", [made()])
        assert (tmp_path / "x.prom").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.prom.lock", "x.prom"]


def test_plays_that_end_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.prom"
    threads = [threading.Thread(target=metrics.write_metrics, args=(path, [made(f"vm{n}")])) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(metrics.parse(path.read_text())) == 8
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_play_does_not_wait_for_another_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "LOCK_SECONDS", 0.1)
    with metrics._locked(tmp_path / "x.prom"), pytest.raises(TimeoutError, match="another play"):
        metrics.write_metrics(tmp_path / "x.prom", [made()])


CIRCUMSTANCES = Circumstances("root", "here", "a.yml", "Nightly", "Export")
ENTRY = audit_entry(told(FAILURE, failed=True), CIRCUMSTANCES)


def write(path: Path) -> None:
    log = AuditLog(path)
    log.add(ENTRY)
    log.close()


def test_the_audit_log_is_for_its_owner_alone_and_only_grows(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        write(tmp_path / "audit")
    finally:
        os.umask(umask)
    write(tmp_path / "audit")
    lines = (tmp_path / "audit").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [ENTRY, ENTRY]
    assert ENTRY["time"] == "1970-01-01T00:16:40.000+00:00"
    assert ENTRY["error"] == {"kind": "no_space", "message": "There is no room."}
    assert stat.S_IMODE((tmp_path / "audit").stat().st_mode) == 0o600


def sample(language: str) -> str:
    """The first of this language in the documentation."""
    text = (Path(__file__).resolve().parents[4] / "docs" / "metrics_and_audit.md").read_text()
    return text.partition(f"```{language}\n")[2].partition("```")[0]


def test_the_line_that_is_shown_in_the_documentation_is_one_that_is_written() -> None:
    shown = json.loads(sample("json").replace("\n", ""))
    assert list(shown) == list(ENTRY)
    image = f"{shown['url']}/db01-77ab01c2/20261121T064203Z-9c8d7e6f/disk-0.qcow2"
    error = translate(OSError(errno.ENOSPC, ""), f"Writing {image}")
    assert shown["error"] == {"kind": error.kind, "message": error.message}


def test_the_table_that_is_shown_in_the_documentation_is_one_that_is_printed() -> None:
    def export(host: str, vm: str, outcome: Any, duration: float, **known: Any) -> Transfer:
        return Transfer(host, "export", outcome, 0.0, vm=vm, duration=duration, **known)

    web01, db01 = (f"s3://backups/vms/{path}" for path in ("web01-1f0c9a2b/20261121T063000Z-1a2b3c4d", DB01))
    hint = "List the VMs that are there with vmferry.migrate.vm_info."
    missing = {"error_kind": "not_found", "message": "There is no VM mail at qemu:///system.", "hint": hint}
    rows = [
        export("kvm01", "web01", "ready", 11.2, mode="full", bytes_read=1 << 30, bytes_stored=1 << 30, url=web01),
        export("kvm01", "db01", "unchanged", 1.0, mode="full", bytes_read=0, bytes_stored=0, url=db01),
        export("kvm02", "mail", "failed", 2.0, bytes_read=0, bytes_stored=0, **missing),
    ]
    assert [line for line, _outcome in table_lines(rows)] == sample("text").splitlines()[1:]


def test_a_line_that_was_cut_off_does_not_spoil_the_next(tmp_path: Path) -> None:
    (tmp_path / "audit").write_bytes(b'{"time": "2026')
    write(tmp_path / "audit")
    cut, whole = (tmp_path / "audit").read_text().splitlines()
    assert (cut, json.loads(whole)) == ('{"time": "2026', ENTRY)


def test_the_audit_log_is_never_written_through_a_link_or_into_something_else(tmp_path: Path) -> None:
    (tmp_path / "victim").touch()
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo"):
        with pytest.raises(OSError):
            write(tmp_path / name)
    assert (tmp_path / "victim").read_bytes() == b""
