# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's credentials for Azure are handed over whole, of one kind, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.plugin_utils.credentials import hand_over

URL, BY_HOST = "azblob://exports", "https://backups.blob.core.windows.net/exports"
STRING = {"AZURE_STORAGE_CONNECTION_STRING": "string"}
KEY = {"AZURE_STORAGE_ACCOUNT": "account", "AZURE_STORAGE_KEY": "key"}
SAS = {"AZURE_STORAGE_ACCOUNT": "account", "AZURE_STORAGE_SAS_TOKEN": "sas"}
PRINCIPAL = {"AZURE_CLIENT_ID": "client", "AZURE_SECRET": "secret", "AZURE_TENANT": "tenant"}


def handed(of_controller: dict[str, str], storage: Any = None, url: str = URL, **options: Any) -> Any:
    return hand_over({"url": url, "storage": storage, **options}, {}, of_controller)["storage"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (KEY, {"account_name": "account", "account_key": "key"}),
        (SAS, {"account_name": "account", "sas_token": "sas"}),
        (PRINCIPAL, {"client_id": "client", "secret": "secret", "tenant": "tenant"}),
        ({**STRING, **KEY, **SAS, **PRINCIPAL}, {"connection_string": "string"}),
        ({**KEY, **SAS, **PRINCIPAL}, {"account_name": "account", "account_key": "key"}),
    ],
)
def test_one_kind_is_handed_over_with_the_account_it_is_of(
    environment: dict[str, str], expected: dict[str, str]
) -> None:
    assert handed(environment) == expected


def test_they_are_for_azure_by_any_of_its_urls() -> None:
    assert handed({**STRING, **KEY}, url=BY_HOST) == {"account_key": "key"}, "the URL names the account"
    assert handed(KEY, url="s3://exports") is None
    assert handed(KEY, url="https://dav.example.com/exports") is None


def test_a_connection_string_is_not_for_the_account_that_the_task_names() -> None:
    own = {"account_name": "own"}
    assert handed({**STRING, **KEY}, own) == {"account_name": "own", "account_key": "key"}
    assert handed(STRING, own) == own


@pytest.mark.parametrize("said", ["account_key", "sas_token", "connection_string", "client_id", "secret", "tenant"])
def test_nothing_is_added_to_credentials_of_the_task(said: str) -> None:
    assert handed(KEY, {said: "own"}) == {said: "own"}


def test_the_hosts_own_identity_needs_nothing() -> None:
    assert handed(KEY, {"auth_source": "msi"}) == {"auth_source": "msi"}


def test_half_of_a_principal_is_none() -> None:
    half = {name: value for name, value in PRINCIPAL.items() if name != "AZURE_SECRET"}
    assert handed(half) is None
    with pytest.raises(VmferryError, match="no credentials for Azure"):
        handed(half, credentials_from="controller")
