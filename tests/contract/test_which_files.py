# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""By which a VM that is files is known, wherever they lie."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files.open import open_provider
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files.place import place_of
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

S3 = {"access_key": "a", "secret_key": "hunter2", "region": "eu-central-1"}
AZURE = {"sas_token": "sv=2024&sig=hunter2"}
GCS = {"auth_kind": "anonymous"}
HERE, THERE = "https://127.0.0.1:1", "https://127.0.0.1:2"
AWS = {"endpoint_url": "https://s3.dualstack.eu-central-1.amazonaws.com"}
GOOGLE = {"endpoint_url": "https://storage.me-central2.rep.googleapis.com"}


def known_by(url: str, settings: dict[str, Any]) -> tuple[str, str]:
    """Its place, and what its provider is called."""
    with (
        closing(open_store(url, settings)) as store,
        closing(open_provider("image", {"url": url, "storage": settings}, lambda _spec: store)) as provider,
    ):
        return place_of(store, "web.ova", is_path=False), provider.account


@pytest.mark.parametrize(
    ("url", "settings", "first", "second"),
    [
        ("s3://vms/prod", S3, {"endpoint_url": HERE}, {"endpoint_url": THERE}),
        ("s3://vms/prod", S3, {}, {"endpoint_url": THERE}),
        ("gs://vms/prod", GCS, {}, {"endpoint_url": THERE}),
        ("azblob://vms/prod", AZURE, {"account_name": "first"}, {"account_name": "second"}),
        ("azblob://vms/prod", AZURE, {"endpoint_url": f"{HERE}/first"}, {"endpoint_url": f"{HERE}/second"}),
    ],
)
def test_files_of_one_url_on_two_servers_are_two(
    url: str, settings: dict[str, Any], first: dict[str, Any], second: dict[str, Any]
) -> None:
    one, other = known_by(url, {**settings, **first}), known_by(url, {**settings, **second})
    assert (one[0] != other[0], one[1] != other[1]) == (True, True)
    assert "hunter2" not in "".join((*one, *other))


@pytest.mark.parametrize(
    ("url", "settings", "same"),
    [("s3://vms/prod", S3, AWS), ("s3://vms/prod", S3, {"region": "us-east-1"}), ("gs://vms/prod", GCS, GOOGLE)],
)
def test_whichever_host_of_a_service_is_asked_it_has_one_bucket_of_a_name(
    url: str, settings: dict[str, Any], same: dict[str, Any]
) -> None:
    assert known_by(url, settings) == known_by(url, {**settings, **same})
    assert known_by(url, settings)[0] == f"{url}/web.ova"
