# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Results and failures as Ansible sees them: one sentence, its kind, what to do, and no secret."""

from __future__ import annotations

import base64
import json
import re
from typing import Any, Callable
from urllib.parse import quote

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.tests.unit.plugins.modules.module_run import LEAST, ModuleRun

SECRET = 'pass/wo"rd+&1'


def raising(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize("module", LEAST)
def test_error_becomes_a_failure_with_its_kind_and_hint(modules: ModuleRun, module: str) -> None:
    modules.act = raising(VmferryError("no_space", "The store is full.", "Free some space.", phase="exporting"))
    outcome = modules.fail(module, {})
    assert outcome["msg"] == "The store is full."
    assert outcome["error"] == {
        "kind": "no_space",
        "retryable": False,
        "phase": "exporting",
        "hint": "Free some space.",
    }


def test_retryable_is_what_the_error_says(modules: ModuleRun) -> None:
    modules.act = raising(VmferryError("network", "The connection was reset."))
    assert modules.fail("vm_export", {})["error"]["retryable"] is True


def test_defect_is_an_internal_error_that_says_where_it_is(modules: ModuleRun) -> None:
    modules.act = raising(ZeroDivisionError("division by zero"))
    outcome = modules.fail("vm_export", {})
    told = r"Unexpected ZeroDivisionError in test_failures\.py, line \d+: division by zero"
    assert re.fullmatch(told, outcome["msg"])
    assert outcome["error"]["kind"] == "internal"


@pytest.mark.parametrize("module", ["vm_export", "vm_import", "export_verify", "export_info"])
@pytest.mark.parametrize(
    "option",
    [
        *("secret_key", "session_token", "sse_customer_key"),
        *("account_key", "sas_token", "connection_string", "secret"),
        "access_token",
    ],
)
@pytest.mark.parametrize("defect", [True, False])
def test_no_failure_carries_a_secret_however_it_is_encoded(
    modules: ModuleRun, module: str, option: str, defect: bool
) -> None:
    spellings = [SECRET, quote(SECRET), quote(SECRET, safe=""), base64.b64encode(SECRET.encode()).decode()]
    said = f"Refused: {' and '.join(spellings)} and {json.dumps(SECRET)}."
    modules.act = raising(ValueError(said) if defect else VmferryError("unauthenticated", said, hint=said))
    printed = json.dumps(modules.fail(module, {"storage": {option: SECRET}}))
    for spelling in [*spellings, json.dumps(SECRET)]:
        assert spelling not in printed
        assert json.dumps(spelling)[1:-1] not in printed


def test_secret_from_the_environment_is_masked_too(modules: ModuleRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    modules.act = raising(VmferryError("unauthenticated", f"Signed with {SECRET}."))
    assert modules.fail("vm_export", {})["msg"] == "Signed with ********."


def test_short_access_key_masks_nothing(modules: ModuleRun) -> None:
    modules.result = {"changed": True, "export": {"url": "file:///srv/backup/web01"}}
    outcome = modules.succeed(
        "vm_export", {"url": "s3://backups", "storage": {"access_key": "backup", "secret_key": SECRET}}
    )
    assert outcome["export"] == {"url": "file:///srv/backup/web01"}


@pytest.mark.parametrize("error", [VmferryError("network", "The store is gone."), ZeroDivisionError("of ours")])
def test_job_that_failed_is_named(modules: ModuleRun, error: Any) -> None:
    error.job = {"id": "1", "record": "/srv/state/1.json", "state_dir": "/srv/state"}
    modules.act = raising(error)
    assert modules.fail("vm_export", {})["job"] == error.job


@pytest.mark.parametrize("diff", [True, False])
def test_diff_is_returned_in_diff_mode_only(modules: ModuleRun, diff: bool) -> None:
    modules.result = {"changed": True, "diff": {"before": {"exports": []}, "after": {"exports": ["one"]}}}
    assert ("diff" in modules.succeed("vm_export", {}, diff=diff)) is diff


@pytest.mark.parametrize("module", LEAST)
def test_result_of_the_operation_is_the_result_of_the_module(modules: ModuleRun, module: str) -> None:
    modules.result = {"changed": False, "found": [1, {"two": 3}]}
    outcome = modules.succeed(module, {})
    assert (outcome["changed"], outcome["found"]) == (False, [1, {"two": 3}])


def test_warnings_of_the_operation_are_warnings_of_the_task(modules: ModuleRun) -> None:
    modules.result = {"changed": True, "warnings": ["The guest agent did not answer."]}
    outcome = modules.succeed("vm_export", {})
    assert "The guest agent did not answer." in json.dumps(outcome["warnings"])
    assert "deprecations" not in outcome


MALFORMED: list[tuple[str, dict[str, Any], str]] = [
    ("vm_export", {"max_age": "a while"}, "max_age"),
    ("vm_export", {"max_age": "0"}, "max_age"),
    ("vm_export", {"full_after": "0"}, "full_after"),
    ("vm_export", {"max_chain": 0}, "max_chain"),
    ("vm_export", {"spot_check": -1}, "spot_check"),
    ("vm_export", {"resume_window": "soon"}, "resume_window"),
    ("vm_export", {"signing": {}}, "signing.key is missing"),
    (
        "vm_export",
        {"signing": {"key": "hunter22", "key_file": "/x"}},
        "signing.key and signing.key_file exclude each other",
    ),
    ("vm_export", {"signing": {"key": "hunter22"}}, "signing.key is not a private key"),
    ("export_cleanup", {"signing": {"key_file": "/nowhere"}}, "signing.key_file /nowhere cannot be read"),
    ("vm_import", {"trusted_keys": []}, "trusted_keys is empty"),
    ("export_verify", {"trusted_keys": [""]}, "trusted_keys is empty, or has an empty key"),
    ("export_info", {"trusted_keys": ["abc"]}, "trusted_keys has no public key"),
    ("vm_export", {"snapshot": {"source": ""}}, "snapshot.source is empty"),
    ("vm_export", {"snapshot": {"name": ""}}, "snapshot.name is empty"),
    ("vm_export", {"snapshot": {"keep": -1}}, "snapshot.keep"),
    ("vm_export", {"snapshot": {"source": "nightly", "keep": 1}}, "snapshot.keep is of a snapshot that is made"),
    ("vm_export", {"snapshot": {"source": "nightly", "memory": True}}, "snapshot.memory"),
    ("vm_export", {"snapshot": {"source": "nightly", "name": "mine"}}, "snapshot.name"),
    ("vm_export", {"snapshot": {"source": "nightly"}, "max_age": "1d"}, "max_age"),
    ("vm_export", {"idle_timeout": "0"}, "idle_timeout"),
    ("vm_export", {"progress_interval": "0"}, "progress_interval"),
    ("vm_export", {"max_duration": "12 parsecs"}, "max_duration"),
    ("vm_export", {"bandwidth_burst": "much"}, "bandwidth_burst"),
    ("vm_export", {"bandwidth_burst": "0"}, "bandwidth_burst"),
    ("vm_export", {"bandwidth_limit": "20"}, "bandwidth_limit"),
    ("vm_export", {"bandwidth_limit": "fast"}, "bandwidth_limit"),
    ("vm_import", {"bandwidth_limit": "25:00,20MiB/s 19:00,0"}, "bandwidth_limit"),
    ("vm_export", {"parallel": 0}, "parallel"),
    ("vm_export", {"job_id": "../../etc/cron.d/job"}, "job_id"),
    ("vm_export", {"job_id": ""}, "job_id"),
    ("vm_export", {"max_retries": -1}, "max_retries"),
    ("vm_export", {"url": "s3://backups", "storage": {"connect_timeout": "soon"}}, "storage.connect_timeout"),
    ("vm_export", {"storage": {"file_mode": "rw"}}, "storage.file_mode"),
    ("vm_export", {"vm": ""}, "vm is empty"),
    ("disk_snapshot", {"vm": ""}, "vm is empty"),
    ("disk_snapshot", {"name": ""}, "name is empty"),
    ("disk_snapshot", {"state": "reverted"}, "name"),
    ("disk_snapshot", {"state": "consolidated", "name": "nightly"}, "name"),
    ("disk_snapshot", {"timeout": "0"}, "timeout"),
    ("disk_snapshot", {"keep": 0}, "keep"),
    ("disk_snapshot", {"keep": -1, "state": "absent"}, "keep"),
    ("disk_snapshot", {"keep": 1, "state": "absent", "name": "nightly"}, "keep"),
    ("disk_snapshot", {"keep": 1, "state": "consolidated"}, "keep"),
    ("disk_snapshot_info", {"vm": ""}, "vm is empty"),
    ("vm_import", {"name": ""}, "name is empty"),
    ("vm_info", {"vm": ["web01", ""]}, "vm is empty"),
    ("vm_migrate", {"vm": ""}, "vm is empty"),
    ("vm_migrate", {"name": ""}, "name is empty"),
    ("vm_migrate", {"source": {"provider": None}}, "source: The task names no provider"),
    ("vm_migrate", {"destination": {"provider": "image"}}, "destination: The provider is image, and image.url"),
    ("vm_migrate", {"hardware": {"memory": "1000B"}}, "hardware.memory"),
    ("vm_import", {"network_map": {"production": 7}}, "network_map"),
    ("vm_import", {"storage_map": {"disk-0": None}}, "storage_map"),
    ("export_verify", {"boot": {"serial": "(login"}}, "boot.serial is '(login'"),
    ("export_verify", {"boot": {"timeout": "soon"}}, "boot.timeout"),
    ("export_verify", {"max_age": "0"}, "max_age"),
    ("job_info", {"log_lines": -1}, "log_lines"),
]


@pytest.mark.parametrize(("module", "arguments", "option"), MALFORMED)
def test_value_that_cannot_be_meant_is_told_by_its_option(
    modules: ModuleRun, module: str, arguments: dict[str, Any], option: str
) -> None:
    outcome = modules.fail(module, arguments)
    assert option in outcome["msg"]
    assert outcome["error"]["kind"] == "invalid_config"
    assert outcome["error"]["hint"]
    assert not modules.calls


@pytest.mark.parametrize(
    ("package", "module", "arguments"),
    [
        ("libvirt", "vm_info", {}),
        ("libvirt", "disk_snapshot", {}),
        ("libvirt", "disk_snapshot_info", {}),
        ("libvirt", "vm_export", {}),
        ("libvirt", "vm_import", {}),
        ("boto3", "vm_export", {"url": "s3://backups"}),
        ("boto3", "vm_export", {"provider": "image", "image": {"url": "s3://images"}}),
        ("boto3", "vm_info", {"provider": "image", "image": {"url": "s3://images"}}),
        ("libvirt", "vm_migrate", {"source": {"provider": "image", "image": {"url": "/srv/images"}}}),
        ("boto3", "vm_migrate", {"source": {"provider": "image", "image": {"url": "s3://images"}}}),
        ("boto3", "vm_migrate", {"destination": {"provider": "image", "image": {"url": "s3://images"}}}),
        ("boto3", "vm_import", {"url": "s3://backups"}),
        ("boto3", "export_info", {"url": "s3://backups"}),
        ("requests", "vm_export", {"url": "gs://backups"}),
        ("urllib3", "vm_export", {"url": "https://dav.example.org/vms"}),
        ("boto3", "vm_export", {"url": "https://s3.example.org/vms", "storage": {"type": "s3"}}),
        ("cryptography", "vm_export", {"signing": {"key": "-----BEGIN"}}),
        ("cryptography", "export_cleanup", {"signing": {"key": "-----BEGIN"}}),
        ("cryptography", "vm_import", {"trusted_keys": ["ab" * 32]}),
    ],
)
def test_missing_package_is_named(modules: ModuleRun, package: str, module: str, arguments: dict[str, Any]) -> None:
    modules.without_package(package)
    outcome = modules.fail(module, arguments)
    assert package in outcome["msg"]
    assert outcome["error"]["kind"] == "invalid_config"
    assert f"python3-{package}" in outcome["error"]["hint"]
    assert not modules.calls


@pytest.mark.parametrize("module", ["vm_export", "vm_import", "export_verify", "export_info"])
@pytest.mark.parametrize(
    ("version", "good"), [("1.9.253", False), ("1.25.99", False), ("1.26.0", True), ("2.0.0", True)]
)
def test_boto3_that_lacks_what_we_need_is_refused(modules: ModuleRun, module: str, version: str, good: bool) -> None:
    modules.replace("boto3", __version__=version)
    outcome = modules.run(module, modules.least(module, {"url": "s3://backups"}))
    assert bool(outcome.get("failed")) is not good
    if not good:
        assert f"boto3 {version} is too old" in outcome["msg"]
        assert outcome["error"]["kind"] == "invalid_config"


@pytest.mark.parametrize("module", ["vm_export", "vm_import", "export_verify", "export_info"])
def test_path_needs_no_package_of_a_cloud(modules: ModuleRun, module: str) -> None:
    modules.without_package("boto3")
    modules.succeed(module, {"url": "file:///srv/exports"})


@pytest.mark.parametrize("module", ["vm_export", "vm_import", "export_verify", "vm_info"])
def test_provider_need_not_be_named_when_its_settings_are_given(modules: ModuleRun, module: str) -> None:
    modules.succeed(module, {"provider": None, "libvirt": {"uri": "qemu:///session"}})
    assert modules.calls


@pytest.mark.parametrize("module", ["vm_export", "vm_import", "export_verify", "vm_info"])
def test_task_without_any_provider_is_refused(modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "qemu:///session")  # says how to reach libvirt, not that it is meant
    outcome = modules.fail(module, {"provider": None})
    assert outcome["error"]["kind"] == "invalid_config"
    assert "libvirt" in outcome["error"]["hint"]


@pytest.mark.parametrize("module", ["vm_export", "vm_info"])
def test_vms_that_are_files_need_no_libvirt_but_a_place(modules: ModuleRun, module: str) -> None:
    modules.without_package("libvirt")
    modules.succeed(module, {"provider": None, "image": {"url": "/srv/images"}})
    outcome = modules.fail(module, {"provider": "image", "image": {"storage": {"file_mode": "0640"}}})
    assert outcome["error"]["kind"] == "invalid_config"
    assert "image.url" in outcome["msg"]
    both = modules.fail(module, {"provider": None, "image": {"url": "/x"}, "libvirt": {"uri": "qemu:///session"}})
    assert "image and libvirt" in both["msg"]


@pytest.mark.parametrize("asked", [{"name": "n" * 257}, {"purpose": "two\nlines"}, {"tags": ["fine", "\x1b[31m"]}])
def test_a_label_that_no_manifest_should_hold_is_refused(modules: ModuleRun, asked: dict[str, Any]) -> None:
    outcome = modules.fail("vm_export", asked)
    assert outcome["error"]["kind"] == "invalid_config"
    assert next(iter(asked)) in outcome["msg"]


@pytest.mark.parametrize("diff", [True, False])
def test_a_failure_returns_what_was_done_before_it(modules: ModuleRun, diff: bool) -> None:
    error = VmferryError("permission_denied", "One could not be deleted.")
    error.done = {"changed": True, "deleted": ["a"], "diff": {"before": {}, "after": {}}, "warnings": ["Mind."]}
    modules.act = raising(error)
    outcome = modules.fail("export_cleanup", {}, diff=diff)
    assert (outcome["msg"], outcome["changed"], outcome["deleted"]) == ("One could not be deleted.", True, ["a"])
    assert outcome["error"]["kind"] == "permission_denied"
    assert ("Mind." in json.dumps(outcome["warnings"]), "diff" in outcome) == (True, diff)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"method": "vendor_task"}, "needs staging"),
        ({"staging": "s3://stage"}, "staging means nothing"),
        ({"method": "vendor_task", "staging": "s3://stage", "poll_interval": "often"}, "poll_interval"),
    ],
)
@pytest.mark.parametrize("module", ["vm_export", "vm_import"])
def test_a_task_of_a_cloud_has_all_that_it_needs(
    modules: ModuleRun, module: str, given: dict[str, Any], words: str
) -> None:
    outcome = modules.fail(module, given)
    assert outcome["error"]["kind"] == "invalid_config"
    assert words in outcome["msg"]


def test_a_task_that_imports_has_a_role(modules: ModuleRun) -> None:
    outcome = modules.fail("vm_import", {"method": "vendor_task", "staging": "s3://stage", "task_role": ""})
    assert (outcome["error"]["kind"], "task_role is empty" in outcome["msg"]) == ("invalid_config", True)
