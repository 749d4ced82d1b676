# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task says of Google Cloud Storage, and what the environment may and may not add to it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.tests.unit.plugins.modules.module_run import ModuleRun

URL = "gs://backups/vms"
NAMES = ("auth_kind", "service_account_file", "service_account_contents", "access_token")


def settings_of(modules: ModuleRun, storage: Any) -> dict[str, Any]:
    settings = modules.request("vm_export", {"url": URL, "storage": storage}).store.settings
    return {name: settings[name] for name in (*NAMES, "endpoint_url", "ca_path") if name in settings}


@pytest.fixture
def signed_in(modules: ModuleRun, monkeypatch: pytest.MonkeyPatch) -> None:
    assert modules, "cleans the environment, so it comes first"
    monkeypatch.setenv("GCP_AUTH_KIND", "accesstoken")
    monkeypatch.setenv("GCP_ACCESS_TOKEN", "of the environment")


@pytest.mark.usefixtures("signed_in")
def test_the_environment_signs_in_where_the_task_says_nothing(modules: ModuleRun) -> None:
    assert settings_of(modules, {}) == {"auth_kind": "accesstoken", "access_token": "of the environment"}


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize(
    "own", [{"service_account_file": "/root/sa.json"}, {"auth_kind": "anonymous"}, {"access_token": "of the task"}]
)
def test_credentials_are_never_half_from_the_task_and_half_from_the_environment(
    modules: ModuleRun, own: dict[str, str]
) -> None:
    assert settings_of(modules, own) == own


def test_an_empty_kind_in_the_environment_is_none(modules: ModuleRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCP_AUTH_KIND", "")
    assert settings_of(modules, {}) == {}


def test_what_the_environment_says_of_aws_is_not_said_of_google(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:8333")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/ssl/lab.pem")
    assert settings_of(modules, {}) == {}
    own = {"endpoint_url": "http://127.0.0.1:4443", "ca_path": "/etc/ssl/own.pem"}
    assert settings_of(modules, own) == own


def test_a_key_that_was_parsed_already_is_text_again(modules: ModuleRun) -> None:
    key = {"type": "service_account", "client_email": "ferry@project"}
    found = settings_of(modules, {"service_account_contents": key})["service_account_contents"]
    assert json.loads(found) == key


@pytest.mark.parametrize(("package", "library"), [("google.auth", "google-auth"), ("google_crc32c", "google-crc32c")])
def test_a_missing_package_is_named_as_it_is_installed(modules: ModuleRun, package: str, library: str) -> None:
    modules.without_package(package)
    outcome = modules.fail("vm_export", {"url": URL})
    assert (outcome["error"]["kind"], library in outcome["msg"]) == ("invalid_config", True)
    assert f"python3-{library}" in outcome["error"]["hint"]
    modules.succeed("vm_export", {"url": "file:///srv/exports"})


@pytest.mark.parametrize(("version", "good"), [("1.5.1", False), ("1.35.0", False), ("2.0.0", True), ("2.62.2", True)])
def test_google_auth_that_is_too_old_is_refused(modules: ModuleRun, version: str, good: bool) -> None:
    modules.replace("google.auth", __version__=version)
    outcome = modules.run("vm_export", modules.least("vm_export", {"url": URL}))
    assert bool(outcome.get("failed")) is not good
    assert good or f"google-auth {version} is too old" in outcome["msg"]


def test_a_checksum_library_without_its_c_part_is_refused(modules: ModuleRun) -> None:
    modules.replace("google_crc32c", implementation="python")
    outcome = modules.fail("vm_export", {"url": URL})
    assert "without its C library" in outcome["msg"]
