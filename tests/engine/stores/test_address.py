# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An object is named by its own URL, or by a key below the URL of its store: both are the same object."""

from __future__ import annotations

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.address import address

STORES = [
    "s3://bucket/a%20b",
    "s3://bucket",
    "https://endpoint.example.org/bucket/prefix",  # of whatever answers there: S3, Azure, a WebDAV server
    "http://127.0.0.1:9000/bucket",
    "https://account.blob.core.windows.net/container",
    "azblob://container/prefix",
    "gs://bucket/prefix",
    "file:///srv/images",
    "nfs:///mnt/nas/images",
    "nfs://images",  # below storage.mount
    "/srv/images",
]


@pytest.mark.parametrize("url", STORES)
def test_an_object_by_its_own_url_is_the_one_by_its_key_below_the_store(url: str) -> None:
    assert address(f"{url}/debian.iso", "") == address(url, "debian.iso") == (url, "debian.iso")


@pytest.mark.parametrize("url", STORES)
def test_a_key_below_a_store_has_folders_and_stands_for_itself(url: str) -> None:
    assert address(url, "isos/{file}%20ü") == (url, "isos/{file}%20ü"), "templates are of uploads alone"


@pytest.mark.parametrize(("url", "key"), [("s3://bucket/a%20b", "a b"), ("/srv/a%20b", "a%20b"), ("/a", "a")])
def test_what_a_url_has_encoded_a_path_and_a_key_have_not(url: str, key: str) -> None:
    assert address(url, "")[1] == key


@pytest.mark.parametrize(
    ("url", "key"),
    [
        *((one, "") for one in ("s3://bucket", "s3://bucket/", "gs://b", "azblob://c", "https://host", "nfs://x", "")),
        *(("s3://bucket", key) for key in ("/isos/a", "isos/../../a", "..", "isos//a", "a/")),
        *(("s3://bucket/%2e%2e", ""), ("s3://bucket/a%2Fb%00", "")),
    ],
)
def test_what_names_no_object_or_climbs_is_refused(url: str, key: str) -> None:
    with pytest.raises(VmferryError) as refused:
        address(url, key)
    assert refused.value.kind == "invalid_config"
    assert refused.value.hint
