# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the environment fills in, also when the whole dictionary is left out, and what it must not."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.tests.unit.plugins.modules.module_run import ModuleRun
from ansible_collections.vmferry.migrate.tests.unit.plugins.modules.test_options_reach_the_operation import (
    look_up,
    task,
)

SETTINGS = "store.settings"
FALLBACKS: list[tuple[str, str, str, str]] = [
    ("LIBVIRT_DEFAULT_URI", "libvirt.uri", "provider.settings.uri", "qemu:///session"),
    ("AWS_ENDPOINT_URL_S3", "storage.endpoint_url", "store.settings.endpoint_url", "http://127.0.0.1:8333"),
    ("AWS_ENDPOINT_URL", "storage.endpoint_url", "store.settings.endpoint_url", "http://127.0.0.1:8333"),
    ("AWS_REGION", "storage.region", "store.settings.region", "eu-central-1"),
    ("AWS_DEFAULT_REGION", "storage.region", "store.settings.region", "eu-central-1"),
    ("AWS_PROFILE", "storage.profile", "store.settings.profile", "offsite"),
    ("AWS_DEFAULT_PROFILE", "storage.profile", "store.settings.profile", "offsite"),
    ("AWS_ACCESS_KEY_ID", "storage.access_key", "store.settings.access_key", "AKIDENV"),
    ("AWS_SECRET_ACCESS_KEY", "storage.secret_key", "store.settings.secret_key", "known to few"),
    ("AWS_SESSION_TOKEN", "storage.session_token", "store.settings.session_token", "for an hour"),
    ("AWS_ENDPOINT_URL_STS", "storage.sts_endpoint_url", "store.settings.sts_endpoint_url", "http://127.0.0.1:8333"),
    ("AWS_CA_BUNDLE", "storage.ca_path", "store.settings.ca_path", "/etc/ssl/lab.pem"),
    (
        "GCP_SERVICE_ACCOUNT_FILE",
        "storage.service_account_file",
        f"{SETTINGS}.service_account_file",
        "/root/sa.json",
    ),
    (
        "GCP_SERVICE_ACCOUNT_CONTENTS",
        "storage.service_account_contents",
        f"{SETTINGS}.service_account_contents",
        "{}",
    ),
    ("GCP_ACCESS_TOKEN", "storage.access_token", "store.settings.access_token", "for an hour"),
    ("AZURE_STORAGE_ACCOUNT", "storage.account_name", "store.settings.account_name", "backups"),
    ("AZURE_STORAGE_KEY", "storage.account_key", "store.settings.account_key", "known to few"),
    ("AZURE_STORAGE_SAS_TOKEN", "storage.sas_token", "store.settings.sas_token", "sv=1&sig=x"),
    (
        "AZURE_STORAGE_CONNECTION_STRING",
        "storage.connection_string",
        "store.settings.connection_string",
        "AccountName=backups",
    ),
    ("AZURE_CLIENT_ID", "storage.client_id", "store.settings.client_id", "1f0c9a2b"),
    ("AZURE_CLIENT_SECRET", "storage.secret", "store.settings.secret", "known to few"),
    ("AZURE_SECRET", "storage.secret", "store.settings.secret", "known to few"),
    ("VMFERRY_BANDWIDTH_LIMIT", "bandwidth_limit", "transfer.bandwidth_limit", "5MiB/s"),
    ("VMFERRY_STATE_DIR", "state_dir", "transfer.state_dir", "/srv/state"),
]


@pytest.mark.parametrize("module", ["vm_export", "vm_import", "export_verify"])
@pytest.mark.parametrize(("variable", "option", "path", "value"), FALLBACKS)
def test_environment_fills_in_what_the_task_leaves_out(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, module: str, variable: str, option: str, path: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert look_up(modules.request(module, {}), path) == value
    own = "7MiB/s" if option == "bandwidth_limit" else "/of/the/task"
    assert look_up(modules.request(module, task(option, own)), path) == own


@pytest.mark.parametrize("module", ["vm_export", "vm_import", "export_verify"])
def test_a_job_knows_the_task_that_watches_it(modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    assert modules.request(module, {}).transfer.watcher == ""
    monkeypatch.setenv("VMFERRY_WATCHER", "fedcba9876543210")
    assert modules.request(module, {}).transfer.watcher == "fedcba9876543210"


@pytest.mark.parametrize(("variable", "path"), [(row[0], row[2]) for row in FALLBACKS if ".settings." in row[2]])
def test_an_empty_variable_fills_in_nothing(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, variable: str, path: str
) -> None:
    monkeypatch.setenv(variable, "")
    assert look_up(modules.request("vm_export", {}), path) is None


@pytest.mark.parametrize("module", ["export_info", "job_info", "vm_info"])
def test_info_modules_ask_the_same_environment(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "qemu:///session")
    monkeypatch.setenv("VMFERRY_STATE_DIR", "/srv/state")
    asked = modules.request(module, {})
    if module == "export_info":
        assert asked.settings["region"] == "eu-central-1"
    elif module == "vm_info":
        assert asked.settings["uri"] == "qemu:///session"
    else:
        assert asked == "/srv/state"


def test_allowed_hosts_of_the_environment_count_where_the_task_names_none(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allowed(storage: Any) -> Any:
        return modules.request("vm_export", {"url": "s3://backups", "storage": storage}).store.settings.get(
            "allowed_hosts"
        )

    assert allowed(None) is None
    monkeypatch.setenv("VMFERRY_ALLOWED_HOSTS", "s3.example.org,*.example.net")
    assert allowed({"region": "eu-1"}) == ["s3.example.org", "*.example.net"]
    assert allowed({"allowed_hosts": ["other"]}) == ["other"]
    assert allowed({"allowed_hosts": []}) == [], "no host at all"
    monkeypatch.setenv("VMFERRY_ALLOWED_HOSTS", "")
    assert allowed(None) is None


def credentials(modules: ModuleRun, storage: Any) -> dict[str, str]:
    names = ("profile", "access_key", "secret_key", "session_token")
    settings = modules.request("vm_export", {"url": "s3://backups", "storage": storage}).store.settings
    return {name: settings[name] for name in names if name in settings}


@pytest.fixture
def temporary_keys(modules: ModuleRun, monkeypatch: pytest.MonkeyPatch) -> None:
    assert modules, "cleans the environment, so it comes first"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "known to few")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "for an hour")


@pytest.mark.usefixtures("temporary_keys")
def test_session_token_of_the_environment_is_not_sent_with_the_keys_of_a_task(modules: ModuleRun) -> None:
    own = {"access_key": "AKIDTASK", "secret_key": "said here"}
    assert credentials(modules, own) == own


@pytest.mark.usefixtures("temporary_keys")
def test_profile_of_a_task_wins_over_the_keys_of_the_environment(modules: ModuleRun) -> None:
    assert credentials(modules, {"profile": "offsite"}) == {"profile": "offsite"}


@pytest.mark.usefixtures("temporary_keys")
def test_keys_of_the_environment_win_over_its_profile(modules: ModuleRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "offsite")
    found = credentials(modules, {"region": "eu-central-1"})
    assert found == {"access_key": "AKIDENV", "secret_key": "known to few", "session_token": "for an hour"}


@pytest.mark.usefixtures("temporary_keys")
def test_a_session_token_whose_key_is_gone_is_not_sent_with_a_profile(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_PROFILE", "offsite")
    assert credentials(modules, {}) == {"profile": "offsite"}


@pytest.mark.usefixtures("temporary_keys")
def test_web_identity_of_a_task_takes_the_place_of_the_keys_of_the_environment(modules: ModuleRun) -> None:
    assert credentials(modules, {"web_identity_token_file": "/run/token", "role_arn": "arn:aws:iam::1:role/b"}) == {}


@pytest.mark.usefixtures("temporary_keys")
def test_a_role_of_a_task_is_assumed_with_the_keys_of_the_environment(modules: ModuleRun) -> None:
    assert credentials(modules, {"role_arn": "arn:aws:iam::1:role/b"})["access_key"] == "AKIDENV"


@pytest.mark.usefixtures("temporary_keys")
def test_anonymous_is_anonymous_whatever_the_environment_has(modules: ModuleRun) -> None:
    assert credentials(modules, {"anonymous": True}) == {}
    assert credentials(modules, {"anonymous": False})["access_key"] == "AKIDENV"


@pytest.mark.usefixtures("temporary_keys")
def test_half_a_pair_of_a_task_is_not_completed_from_the_environment(modules: ModuleRun) -> None:
    assert credentials(modules, {"access_key": "AKIDTASK"}) == {"access_key": "AKIDTASK"}


@pytest.mark.usefixtures("temporary_keys")
def test_settings_written_as_text_count_as_given(modules: ModuleRun) -> None:
    assert credentials(modules, '{"profile": "offsite"}') == {"profile": "offsite"}
    assert credentials(modules, "profile=offsite region=eu-central-1") == {"profile": "offsite"}


LIMITS = [
    ("VMFERRY_CLEANUP_MAX_AGE", "max_age", "2d", "limits.max_age", 2 * 86400.0),
    ("VMFERRY_CLEANUP_MAX_COUNT", "max_count", "3", "limits.max_count", 3),
]


@pytest.mark.parametrize(("variable", "option", "text", "path", "value"), LIMITS)
def test_the_environment_limits_a_cleanup_that_the_task_does_not(
    modules: ModuleRun,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    option: str,
    text: str,
    path: str,
    value: float,
) -> None:
    monkeypatch.setenv(variable, text)
    assert look_up(modules.request("export_cleanup", {"orphans": False}), path) == value
    assert look_up(modules.request("export_cleanup", {option: "7"}), path) == 7
    monkeypatch.setenv(variable, "")
    assert look_up(modules.request("export_cleanup", {}), path) is None
