# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which account, container and prefix a URL and the options mean; what cannot be meant is refused before a request."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.azure.account import (
    AzureSettings,
    is_azure_host,
    locate,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.azure.checksums import MD5, candidates
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.azure.container import (
    decode_metadata,
    encode_metadata,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.azure.parts import block_id, new_mark
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store, store_kind

KEY = {"account_key": "a2V5"}
CLOUD = "https://backups.blob.core.windows.net"


def located(url: str, **options: Any) -> tuple[str, str, str, str]:
    found = locate(url, AzureSettings.from_options({**KEY, **options}))
    return found.account_url, found.account, found.container, found.prefix


@pytest.mark.parametrize(
    ("url", "options", "expected"),
    [
        ("azblob://exports", {"account_name": "backups"}, (CLOUD, "backups", "exports", "")),
        ("azblob://exports/a b/c/", {"account_name": "backups"}, (CLOUD, "backups", "exports", "a b/c/")),
        ("azblob://exports/a%20b", {"account_name": "backups"}, (CLOUD, "backups", "exports", "a b/")),
        (f"{CLOUD}/exports/vms", {}, (CLOUD, "backups", "exports", "vms/")),
        (f"{CLOUD}/exports/vms", {"account_name": "backups"}, (CLOUD, "backups", "exports", "vms/")),
        (
            "azblob://exports",
            {"account_name": "backups", "cloud_environment": "AzureUSGovernment"},
            ("https://backups.blob.core.usgovcloudapi.net", "backups", "exports", ""),
        ),
        (
            "azblob://exports/x",
            {"endpoint_url": "http://127.0.0.1:10000/devstoreaccount1/"},
            ("http://127.0.0.1:10000/devstoreaccount1", "devstoreaccount1", "exports", "x/"),
        ),
        (
            "azblob://exports",
            {"endpoint_url": "https://blob.example.com", "account_name": "backups"},
            ("https://blob.example.com", "backups", "exports", ""),
        ),
        (
            "https://blob.example.com/exports/vms",  # where it is said that this is Azure's protocol
            {"account_name": "backups"},
            ("https://blob.example.com", "backups", "exports", "vms/"),
        ),
        ("azblob://exports", {"endpoint_url": f"{CLOUD}/"}, (CLOUD, "backups", "exports", "")),
    ],
)
def test_a_url_and_the_options_say_what_is_meant(url: str, options: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert located(url, **options) == expected


def test_identities_come_from_the_cloud_of_the_account() -> None:
    settings = AzureSettings.from_options({})
    for host, authority in (
        ("backups.blob.core.windows.net", "login.microsoftonline.com"),
        ("backups.blob.core.chinacloudapi.cn", "login.chinacloudapi.cn"),
        ("backups.blob.core.usgovcloudapi.net", "login.microsoftonline.us"),
    ):
        assert locate(f"https://{host}/exports", settings).authority == authority


@pytest.mark.parametrize(
    ("host", "is_one"),
    [
        ("backups.blob.core.windows.net", True),
        ("Backups.Blob.Core.Windows.Net", True),
        ("backups.blob.core.usgovcloudapi.net", True),
        ("backups.z12.blob.storage.azure.net", True),
        ("backups-secondary.blob.core.windows.net", True),
        (".blob.core.windows.net", False),
        ("blob.core.windows.net", False),
        ("backups.blob.core.windows.net.example.com", False),
        ("backups.dfs.core.windows.net", False),
        ("dav.example.com", False),
    ],
)
def test_a_storage_account_is_known_by_its_host(host: str, is_one: bool) -> None:
    assert is_azure_host(host) is is_one
    if is_one:
        assert store_kind(f"https://{host}/exports") == store_kind("azblob://exports")


@pytest.mark.parametrize(
    "url",
    [
        *("azblob:///exports", "azblob://e", "azblob://Exports", "azblob://a--b", "azblob://exports:80/x"),
        *("azblob://exports/../x", "azblob://exports/a?sig=x", CLOUD, f"{CLOUD}/", f"{CLOUD}/exports/../x"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str) -> None:
    with pytest.raises(VmferryError) as raised:
        open_store(url, KEY)
    assert raised.value.kind == "invalid_config"
    assert raised.value.hint


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "account is meant is not said"),
        ({"account_name": "Backups_1"}, "account_name"),
        ({"access_tier": "archive"}, "not archive"),
        ({"access_tier": "lukewarm"}, "access_tier"),
        ({"auth_source": "guess"}, "auth_source"),
        ({"cloud_environment": "AzureGermanCloud"}, "cloud_environment"),
        ({"endpoint_url": "127.0.0.1:10000/account"}, "endpoint_url"),
        ({"endpoint_url": "https://user:hunter2@blob.example.com"}, "carries no credentials"),
        ({"endpoint_url": "https://blob.example.com/?sig=hunter2"}, "carries no credentials"),
        ({"account_name": "backups", "account_key": "hunter2", "sas_token": "hunter2"}, "goes without"),
        ({"account_name": "backups", "account_key": "hunter2", "auth_source": "msi"}, "goes without auth_source"),
        ({"account_name": "backups", "secret": "hunter2"}, "client_id and tenant"),
        ({"account_name": "backups", "tenant": "contoso"}, "client_id and secret"),
        ({"account_name": "backups", "connection_string": "hunter2"}, "brings account and endpoint"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_and_not_repeated(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(VmferryError) as raised:
        open_store("azblob://exports", settings)
    error = raised.value
    assert error.kind == "invalid_config"
    assert words in error.message
    assert error.hint
    assert "hunter2" not in f"{error} {error.hint}"


@pytest.mark.parametrize(
    "settings", [{"account_name": "others"}, {"endpoint_url": "https://blob.example.com"}, {"connection_string": "x"}]
)
def test_an_account_that_the_url_names_is_not_named_otherwise(settings: dict[str, str]) -> None:
    with pytest.raises(VmferryError) as raised:
        locate(f"{CLOUD}/exports", AzureSettings.from_options(settings))
    assert next(iter(settings)) in raised.value.message


def test_no_secret_is_shown_with_the_settings() -> None:
    given = {"account_key": "hunter2", "sas_token": "hunter2", "connection_string": "hunter2", "secret": "hunter2"}
    assert "hunter2" not in repr(AzureSettings(**given))
    found = AzureSettings(sas_token="?sv=1&sig=a%2Bb", connection_string="AccountName=a;AccountKey=k==").secrets
    assert {"a+b", "a%2Bb", "k=="} <= set(found), "also as they are seen in URLs"


@pytest.mark.parametrize("name", ["vm-name", "attempt", "1st", "-x", "a-1"])
def test_metadata_names_are_azures_and_come_back(name: str) -> None:
    encoded = encode_metadata({name: "Büro 100%"})
    (sent,) = encoded
    assert sent.isidentifier()
    assert encoded[sent].isascii()
    assert decode_metadata({sent.upper(): encoded[sent]}) == {name: "Büro 100%"}


def test_names_of_blocks_are_of_one_length_that_azure_takes() -> None:
    mark = new_mark(1_700_000_000.5)
    names = [block_id(mark, number, digest) for number in (1, 50_000) for digest in (b"\1" * 8, b"\1" * 16)]
    assert {len(name.encode()) for name in names} == {62}
    assert len(set(names)) == 4
    assert int(mark[:8], 16) == 1_700_000_000


def test_crc64_is_azures_where_the_aws_runtime_is_there() -> None:
    *_unused, last = candidates()
    assert last is MD5
    for checksum in candidates()[:-1]:
        # The check value of CRC-64/NVME, whose polynomial is Azure's, least significant byte first.
        assert checksum.of(memoryview(b"123456789")) == bytes.fromhex("ae8b14860a799888")[::-1]
