# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Azure's credentials come all from the task or all from the environment, and nothing comes from another cloud's."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.tests.unit.plugins.modules.module_run import ModuleRun

URL, BY_HOST = "azblob://exports/vms", "https://backups.blob.core.windows.net/exports"
NAMES = ("account_name", "account_key", "sas_token", "connection_string", "client_id", "secret", "tenant")
PRINCIPAL = {"AZURE_CLIENT_ID": "client", "AZURE_CLIENT_SECRET": "secret", "AZURE_TENANT_ID": "tenant"}
EVERYTHING = {
    **PRINCIPAL,
    "AZURE_STORAGE_ACCOUNT": "account",
    "AZURE_STORAGE_KEY": "key",
    "AZURE_STORAGE_SAS_TOKEN": "sas",
    "AZURE_STORAGE_CONNECTION_STRING": "string",
}


def settings(modules: ModuleRun, storage: Any = None, url: str = URL) -> dict[str, Any]:
    found: dict[str, Any] = modules.request("vm_export", {"url": url, "storage": storage}).store.settings
    return found


def credentials(modules: ModuleRun, storage: Any = None, url: str = URL) -> dict[str, Any]:
    return {name: value for name, value in settings(modules, storage, url).items() if name in NAMES}


@pytest.fixture
def environment(modules: ModuleRun, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    assert modules, "cleans the environment, so it comes first"
    for name, value in EVERYTHING.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_of_the_environment_the_first_kind_is_taken_as_by_azures_own_command_line(
    modules: ModuleRun, environment: pytest.MonkeyPatch
) -> None:
    assert credentials(modules) == {"connection_string": "string"}
    environment.delenv("AZURE_STORAGE_CONNECTION_STRING")
    assert credentials(modules) == {"account_name": "account", "account_key": "key"}
    environment.delenv("AZURE_STORAGE_KEY")
    assert credentials(modules) == {"account_name": "account", "sas_token": "sas"}
    environment.delenv("AZURE_STORAGE_SAS_TOKEN")
    principal = {"client_id": "client", "secret": "secret", "tenant": "tenant"}
    assert credentials(modules) == {"account_name": "account", **principal}
    environment.delenv("AZURE_CLIENT_SECRET")
    assert credentials(modules) == {"account_name": "account", "client_id": "client"}, "a managed identity's"


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    "own", [{"account_key": "own"}, {"sas_token": "own"}, {"client_id": "own"}, {"client_id": "a", "secret": "b"}]
)
def test_credentials_of_a_task_are_not_mixed_with_those_of_the_environment(
    modules: ModuleRun, own: dict[str, str]
) -> None:
    assert credentials(modules, own) == {"account_name": "account", **own}


@pytest.mark.usefixtures("environment")
def test_a_connection_string_of_a_task_says_which_account(modules: ModuleRun) -> None:
    assert credentials(modules, {"connection_string": "own"}) == {"connection_string": "own"}


@pytest.mark.usefixtures("environment")
def test_a_connection_string_of_the_environment_is_not_for_another_account(modules: ModuleRun) -> None:
    assert credentials(modules, {"account_name": "own"}) == {"account_name": "own", "account_key": "key"}
    assert credentials(modules, url=BY_HOST) == {"account_key": "key"}


@pytest.mark.usefixtures("environment")
def test_an_identity_that_a_task_asks_for_needs_no_secrets_of_the_environment(modules: ModuleRun) -> None:
    assert credentials(modules, {"auth_source": "msi"}) == {"account_name": "account"}


@pytest.mark.parametrize("url", [URL, BY_HOST])
def test_what_the_environment_says_of_aws_is_not_meant(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:8333")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/ssl/lab.pem")
    assert not {"endpoint_url", "ca_path"} & set(settings(modules, url=url))
    own = {"endpoint_url": "http://127.0.0.1:10000/backups", "ca_path": "/etc/ssl/own.pem"}
    found = settings(modules, own, url)
    assert {name: found[name] for name in own} == own


@pytest.mark.parametrize("url", [URL, BY_HOST])
def test_a_missing_sdk_is_named_before_the_first_step(modules: ModuleRun, url: str) -> None:
    modules.without_package("azure.storage.blob")
    outcome = modules.fail("vm_export", {"url": url})
    assert "azure-storage-blob" in outcome["msg"]
    assert outcome["error"]["kind"] == "invalid_config"
    assert "python3-azure-storage" in outcome["error"]["hint"]
    assert not modules.calls


def test_the_package_of_identities_is_needed_for_identities_only(modules: ModuleRun) -> None:
    modules.without_package("azure.identity")
    modules.succeed("vm_export", {"url": URL, "storage": {"account_key": "key"}})
    assert "azure-identity" in modules.fail("vm_export", {"url": URL, "storage": {"account_name": "backups"}})["msg"]


@pytest.mark.parametrize(("version", "good"), [("12.9.0", False), ("12.14.0", True), ("13.0.0", True)])
def test_an_sdk_that_lacks_what_we_need_is_refused(modules: ModuleRun, version: str, good: bool) -> None:
    modules.replace("azure.storage.blob", __version__=version)
    outcome = modules.run("vm_export", modules.least("vm_export", {"url": URL}))
    assert bool(outcome.get("failed")) is not good
    assert good or f"azure-storage-blob {version} is too old" in outcome["msg"]


def test_the_archive_is_no_tier_to_export_to(modules: ModuleRun) -> None:
    assert "archive" in modules.fail("vm_export", {"url": URL, "storage": {"access_tier": "archive"}})["msg"]


@pytest.mark.parametrize("url", ["https://[::1/exports", "azblob://[exports"])
def test_a_url_that_cannot_be_parsed_is_the_stores_to_tell(modules: ModuleRun, url: str) -> None:
    assert modules.request("vm_export", {"url": url}).store.url == url
