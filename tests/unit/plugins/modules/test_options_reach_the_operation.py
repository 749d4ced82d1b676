# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No option is decoration: each changes what the operation is asked for."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, Iterator, get_args

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import PowerState
from ansible_collections.vmferry.migrate.tests.unit.plugins.modules.module_run import LEAST, MODULES, ModuleRun

DAY = 86400.0
MIB = 1024 * 1024

PROVIDER: list[tuple[str, Any, str, Any]] = [
    ("provider", "libvirt", "provider.name", "libvirt"),
    ("libvirt.uri", "qemu:///session", "provider.settings.uri", "qemu:///session"),
    ("libvirt.scratch_dir", "/srv/scratch", "provider.settings.scratch_dir", "/srv/scratch"),
]
STORE: list[tuple[str, Any, str, Any]] = [
    ("url", "s3://backups/vms", "store.url", "s3://backups/vms"),
    ("storage.endpoint_url", "http://127.0.0.1:8333", "store.settings.endpoint_url", "http://127.0.0.1:8333"),
    ("storage.region", "eu-central-1", "store.settings.region", "eu-central-1"),
    ("storage.profile", "offsite", "store.settings.profile", "offsite"),
    ("storage.access_key", "AKID", "store.settings.access_key", "AKID"),
    ("storage.secret_key", "not so open", "store.settings.secret_key", "not so open"),
    ("storage.session_token", "for an hour", "store.settings.session_token", "for an hour"),
    ("storage.addressing_style", "path", "store.settings.addressing_style", "path"),
    ("storage.validate_certs", False, "store.settings.validate_certs", False),
    ("storage.ca_path", "/etc/ssl/lab.pem", "store.settings.ca_path", "/etc/ssl/lab.pem"),
    ("storage.connect_timeout", "2m", "store.settings.connect_timeout", 120.0),
    ("storage.sse", "aws:kms", "store.settings.sse", "aws:kms"),
    ("storage.sse_kms_key_id", "alias/vms", "store.settings.sse_kms_key_id", "alias/vms"),
    ("storage.sse_customer_key", "c2VjcmV0", "store.settings.sse_customer_key", "c2VjcmV0"),
    ("storage.file_mode", "0640", "store.settings.mode", 0o640),
    ("storage.file_owner", "backup", "store.settings.owner", "backup"),
    ("storage.file_group", "disk", "store.settings.group", "disk"),
]
TRANSFER: list[tuple[str, Any, str, Any]] = [
    ("parallel", 7, "transfer.parallel", 7),
    ("bandwidth_limit", "20MiB/s", "transfer.bandwidth_limit", "20MiB/s"),
    ("bandwidth_burst", "4MiB", "transfer.bandwidth_burst", 4 * MIB),
    ("priority", "low", "transfer.priority", "low"),
    ("max_retries", 0, "transfer.max_retries", 0),
    ("idle_timeout", "90", "transfer.idle_timeout", 90.0),
    ("max_duration", "12h", "transfer.max_duration", DAY / 2),
    ("state_dir", "/srv/state", "transfer.state_dir", "/srv/state"),
    ("job_id", "6f1d2c0e43a5", "transfer.job_id", "6f1d2c0e43a5"),
    ("max_jobs", 2, "transfer.max_jobs", 2),
    ("controller_timeout", "30s", "transfer.controller_timeout", 30.0),
]
EXPORT = [
    *PROVIDER,
    *STORE,
    *TRANSFER,
    ("vm", "db01", "vm", "db01"),
    ("disks", ["disk-0", "vdb"], "disks", ("disk-0", "vdb")),
    ("name", "before-upgrade", "name", "before-upgrade"),
    ("max_age", "30d", "max_age", 30 * DAY),
    ("mode", "incremental", "mode", "incremental"),
    ("full_after", "7d", "full_after", 7 * DAY),
    ("max_chain", 6, "max_chain", 6),
    ("spot_check", 0, "spot_check", 0),
    ("track_changes", False, "track_changes", False),
    ("consistency", "quiesced", "consistency", "quiesced"),
    ("format", "raw", "format", "raw"),
    ("verify", "content", "verify", "content"),
    ("tags", ["daily", "prod"], "tags", ("daily", "prod")),
    ("purpose", "backup", "purpose", "backup"),
]
IMPORT = [
    *PROVIDER,
    *STORE,
    *TRANSFER,
    ("name", "db02", "placement.name", "db02"),
    ("export", "before-upgrade", "export", "before-upgrade"),
    ("vm", "db01", "vm", "db01"),
    ("placement.storage", "fast", "placement.storage", "fast"),
    ("placement.disk_format", "raw", "placement.disk_format", "raw"),
    ("placement.disk_bus", "scsi", "placement.disk_bus", "scsi"),
    ("placement.firmware", "uefi", "placement.firmware", "uefi"),
    ("placement.keep_mac", True, "placement.keep_mac", True),
    ("placement.power_on", True, "placement.power_on", True),
    ("network_map", {"production": "isolated"}, "placement.network_map", {"production": "isolated"}),
    ("storage_map", {"disk-1": "slow"}, "placement.storage_map", {"disk-1": "slow"}),
    ("source_vm", {"name": "db01"}, "source_vm", {"name": "db01"}),
]
BRING_VM = [
    *PROVIDER,
    ("vm", "db01", "vm", "db01"),
    ("state", "absent", "state", "absent"),
    ("timeout", "90s", "timeout", 90.0),
    ("force", True, "force", True),
    ("remove_disks", True, "remove_disks", True),
]
VERIFY = [
    *PROVIDER,
    *STORE,
    *TRANSFER,
    ("export", "before-upgrade", "export", "before-upgrade"),
    ("vm", "db01", "vm", "db01"),
    ("level", "stored", "level", "stored"),
    ("max_age", "7d", "max_age", 7 * DAY),
    ("boot.serial", "login:", "markers.serial", "login:"),
    ("boot.agent", True, "markers.agent", True),
    ("boot.timeout", "90s", "markers.timeout", 90.0),
    ("boot.storage", "scratch", "storage", "scratch"),
]
END_JOB = [
    *PROVIDER,
    *STORE,
    ("job", "20261121-1a2b", "job", "20261121-1a2b"),
    ("state", "cancelled", "state", "cancelled"),
    ("timeout", "90s", "timeout", 90.0),
    ("state_dir", "/srv/state", "state_dir", "/srv/state"),
]
CLEANUP = [
    *PROVIDER,
    *STORE,
    ("vm", ["db01", "web01"], "vm", ("db01", "web01")),
    ("tags", ["daily", "prod"], "tags", ("daily", "prod")),
    ("purpose", "backup", "purpose", "backup"),
    ("max_age", "30d", "limits.max_age", 30 * DAY),
    ("max_count", 5, "limits.max_count", 5),
    ("max_total_size", "2MiB", "limits.max_total_size", 2 * MIB),
    ("min_free", "7MiB", "limits.min_free", 7 * MIB),
    ("keep_last", 0, "protections.keep_last", 0),
    ("keep_daily", 7, "protections.keep_daily", 7),
    ("keep_weekly", 4, "protections.keep_weekly", 4),
    ("keep_monthly", 12, "protections.keep_monthly", 12),
    ("keep_yearly", 2, "protections.keep_yearly", 2),
    ("preserve", ["before-*", "gold"], "protections.preserve", ("before-*", "gold")),
    ("min_retention", "7d", "protections.min_retention", 7 * DAY),
]
SNAPSHOT = [
    *PROVIDER,
    ("vm", "db01", "vm", "db01"),
    ("state", "absent", "state", "absent"),
    ("name", "before-{date}", "name", "before-{date}"),
    ("quiesce", "required", "quiesce", "required"),
    ("memory", True, "memory", True),
    ("method", "internal", "method", "internal"),
    ("keep", 3, "keep", 3),
    ("timeout", "2h", "timeout", 7200.0),
]
REQUESTS = [
    *(("disk_snapshot", *row) for row in SNAPSHOT),
    *(("export_cleanup", *row) for row in CLEANUP),
    *(("vm_export", *row) for row in EXPORT),
    *(("vm_import", *row) for row in IMPORT),
    *(("export_verify", *row) for row in VERIFY),
    *(("job", *row) for row in END_JOB),
    *(("vm", *row) for row in BRING_VM),
]
# The others take no request; what they are called with is looked up in (positional, named).
CALLS: list[tuple[str, str, Any, str, Any]] = [
    *(("vm_info", option, value, f"0.{path.partition('.')[2]}", wanted) for option, value, path, wanted in PROVIDER),
    ("vm_info", "vm", ["web01", "db01"], "1", ["web01", "db01"]),
    *(
        ("disk_snapshot_info", option, value, f"0.{path.partition('.')[2]}", wanted)
        for option, value, path, wanted in PROVIDER
    ),
    ("disk_snapshot_info", "vm", "db01", "1", "db01"),
    ("disk_snapshot_info", "name", "before-upgrade", "2", "before-upgrade"),
    ("vm_info", "filters.name", "web*", "2.name", "web*"),
    ("vm_info", "filters.power_state", "paused", "2.power_state", "paused"),
    ("vm_info", "filters.folder", "prod/*", "2.folder", "prod/*"),
    ("vm_info", "filters.tag", "prod", "2.tag", "prod"),
    *(("export_info", option, value, f"0.{path.partition('.')[2]}", wanted) for option, value, path, wanted in STORE),
    ("export_info", "vm", "db01", "vm", "db01"),
    ("export_info", "export", "before-upgrade", "export", "before-upgrade"),
    ("export_info", "tags", ["daily"], "tags", ["daily"]),
    ("export_info", "purpose", "backup", "purpose", "backup"),
    ("export_info", "statistics", True, "statistics", True),
    ("job_info", "job", "20261121-1a2b", "job", "20261121-1a2b"),
    ("job_info", "vm", "db01", "vm", "db01"),
    ("job_info", "state", "failed", "state", "failed"),
    ("job_info", "state_dir", "/srv/state", "0", "/srv/state"),
    ("job_info", "log_lines", 3, "log_lines", 3),
    *(("job_info", option, value, path, wanted) for option, value, path, wanted in STORE),
]
# `state` has a single choice, which is what the module does; the others are what the action plugin goes by.
WITHOUT_EFFECT = {("vm_import", "state"), ("export_cleanup", "orphans"), ("export_cleanup", "credentials_from")} | {
    (module, option)
    for module in ("export_verify", "vm_export", "vm_import")
    for option in ("progress", "progress_interval", "credentials_from")
}

OF_THE_ACTION = "transfer.watcher"  # no option: see test_environment


def task(option: str, value: Any) -> dict[str, Any]:
    outer, *inner = option.split(".")
    return {outer: {inner[0]: value}} if inner else {outer: value}


def look_up(holder: Any, path: str) -> Any:
    for step in path.split("."):
        if holder is not None:  # a provider or a store that may be left out
            holder = holder.get(step) if isinstance(holder, dict) else getattr(holder, step)
    return holder


@pytest.mark.parametrize(("module", "option", "value", "path", "wanted"), REQUESTS)
def test_option_reaches_the_request(
    modules: ModuleRun, module: str, option: str, value: Any, path: str, wanted: Any
) -> None:
    assert look_up(modules.request(module, task(option, value)), path) == wanted
    if option != "provider":  # which has one choice so far, and cannot be left out of the least task
        assert look_up(modules.request(module, {}), path) != wanted


@pytest.mark.parametrize(("module", "option", "value", "path", "wanted"), CALLS)
def test_option_reaches_the_call(
    modules: ModuleRun, module: str, option: str, value: Any, path: str, wanted: Any
) -> None:
    def asked(arguments: dict[str, Any]) -> Any:
        modules.succeed(module, arguments)
        positional, named = modules.calls[-1]
        return look_up({**{str(place): one for place, one in enumerate(positional)}, **named}, path)

    assert asked(task(option, value)) == wanted
    if option != "provider":
        assert asked({}) != wanted


def every_option(module: str) -> Iterator[str]:
    for name, definition in MODULES[module].argument_spec().options.items():
        if "options" in definition:
            yield from (f"{name}.{inner}" for inner in definition["options"])
        else:
            yield name


@pytest.mark.parametrize("module", MODULES)
def test_every_option_is_in_a_table_above(module: str) -> None:
    tested = {row[1] for row in [*REQUESTS, *CALLS] if row[0] == module}
    assert {option for option in every_option(module) if (module, option) not in WITHOUT_EFFECT} == tested


@pytest.mark.parametrize("module", ["disk_snapshot", "export_verify", "vm_export", "vm_import"])
def test_every_field_of_a_request_can_be_asked_for(modules: ModuleRun, module: str) -> None:
    def paths(holder: Any, prefix: str = "") -> Iterator[str]:
        for field in fields(holder):
            value = getattr(holder, field.name)
            if is_dataclass(value):
                yield from paths(value, f"{prefix}{field.name}.")
            elif field.name != "settings":
                yield prefix + field.name

    asked_for = {row[3] for row in REQUESTS if row[0] == module}
    assert set(paths(modules.request(module, {}))) - {OF_THE_ACTION} <= asked_for


def test_vms_are_found_by_the_power_states_that_are_returned() -> None:
    filters = MODULES["vm_info"].argument_spec().options["filters"]["options"]
    assert tuple(filters["power_state"]["choices"]) == get_args(PowerState)


def test_all_vms_are_asked_for_when_none_is_named(modules: ModuleRun) -> None:
    modules.succeed("vm_info", {})
    assert modules.calls[-1][0][1:] == (None, {})


@pytest.mark.parametrize("module", ["job", "job_info"])
def test_a_job_is_looked_for_in_a_store_only_where_one_is_named(modules: ModuleRun, module: str) -> None:
    modules.succeed(module, {"url": None})
    positional, named = modules.calls[-1]
    assert (named["store"] if module == "job_info" else positional[0].store) is None


def test_what_is_left_out_stays_the_choice_of_the_engine(modules: ModuleRun) -> None:
    request = modules.request("vm_export", {})
    assert request.provider.settings == {"uri": "qemu:///system"}
    assert request.store.settings == {
        "addressing_style": "auto",
        "connect_timeout": 60.0,
        "mode": 0o600,
        "sse": "none",
        "validate_certs": True,
    }
    assert (request.disks, request.max_age, request.name, request.purpose) == (None, None, "", "")
    assert request.transfer.state_dir == ""


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize("module", ["disk_snapshot", "export_cleanup", "export_verify", "vm_export", "vm_import"])
def test_check_mode_is_handed_on(modules: ModuleRun, module: str, check_mode: bool) -> None:
    modules.succeed(module, {}, check_mode=check_mode)
    assert modules.calls[-1][0][1] is check_mode


@pytest.mark.parametrize("module", LEAST)
def test_check_mode_is_supported(modules: ModuleRun, module: str) -> None:
    modules.succeed(module, {}, check_mode=True)
    assert modules.calls


@pytest.mark.parametrize("level", ["manifest", "stored", "content"])
def test_an_export_is_verified_without_a_provider_unless_it_boots(modules: ModuleRun, level: str) -> None:
    modules.without_package("libvirt")
    assert modules.request("export_verify", {"level": level, "provider": None}).provider is None
    assert modules.fail("export_verify", {"provider": None})["error"]["kind"] == "invalid_config"


def test_orphans_are_asked_for_by_name(modules: ModuleRun) -> None:
    assert modules.request("export_cleanup", {}).orphans is True
    assert modules.request("export_cleanup", {"orphans": False, "max_age": "1d"}).orphans is False


def test_a_provider_counts_only_where_orphans_are_removed(modules: ModuleRun) -> None:
    asked = modules.request("export_cleanup", {"orphans": False, "max_age": "1d"})
    assert asked.provider is None
    assert modules.request("export_cleanup", {"provider": None}).provider is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"orphans": False}, "sets no limit"),
        ({"max_age": "soon"}, "max_age: 'soon' is not a duration"),
        ({"max_count": 0}, "max_count is 0"),
        ({"max_total_size": "0"}, "max_total_size is 0"),
        ({"min_free": "much"}, "min_free: 'much' is not a size"),
        ({"keep_daily": -1}, "keep_daily is -1"),
        ({"preserve": [""]}, "preserve has an empty pattern"),
        ({"min_retention": "0"}, "min_retention is 0"),
        ({"vm": [""]}, "vm has an empty name"),
    ],
)
def test_a_cleanup_that_cannot_be_meant_is_refused(modules: ModuleRun, arguments: dict[str, Any], told: str) -> None:
    outcome = modules.fail("export_cleanup", arguments)
    assert told in outcome["msg"]
    assert outcome["error"]["kind"] == "invalid_config"
    assert modules.calls == []
