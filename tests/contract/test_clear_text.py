# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No store sends a secret as it is where anybody may listen."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

SAS = "sv=2022-11-02&sig=c2lnbmF0dXJl"
FROM_ACCOUNT = f"BlobEndpoint=HOST/account;SharedAccessSignature={SAS}"
KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
CARRIED: list[tuple[str, dict[str, Any]]] = [
    ("HOST/vms", {"token": "t0ken-t0ken"}),
    ("HOST/vms", {"username": "me", "password": "passw0rd"}),
    ("HOST/vms", {"headers": {"X-Api-Key": "t0ken-t0ken"}}),
    ("gs://bucket", {"endpoint_url": "HOST", "access_token": "t0ken-t0ken"}),
    ("azblob://container", {"endpoint_url": "HOST/account", "sas_token": SAS}),
    ("azblob://container", {"connection_string": FROM_ACCOUNT}),
    ("azblob://container", {"endpoint_url": "HOST/account", "account_name": "account"}),
    ("s3://bucket", {"endpoint_url": "HOST", "sse_customer_key": KEY}),
    ("s3://bucket", {"sts_endpoint_url": "HOST", "role_arn": "arn:aws:iam::1:role/a", "web_identity_token_file": "/t"}),
]
SIGNED: list[tuple[str, dict[str, Any]]] = [
    ("HOST/vms", {}),
    ("gs://bucket", {"endpoint_url": "HOST", "auth_kind": "anonymous"}),
    ("azblob://container", {"endpoint_url": "HOST/account", "account_key": "c2VjcmV0", "account_name": "account"}),
    ("s3://bucket", {"endpoint_url": "HOST", "access_key": "AKIDEXAMPLE", "secret_key": "secret", "region": "a"}),
]


def opened(url: str, settings: dict[str, Any], host: str) -> None:
    at = {name: value.replace("HOST", host) if isinstance(value, str) else value for name, value in settings.items()}
    open_store(url.replace("HOST", host), at).close()


@pytest.mark.parametrize(
    "host", ["http://192.0.2.1:8080", "http://storage.example.org", "http://localhost.example.org"]
)
@pytest.mark.parametrize(("url", "settings"), CARRIED)
def test_a_secret_is_not_sent_in_the_clear(url: str, settings: dict[str, Any], host: str) -> None:
    with pytest.raises(VmferryError, match=r"TLS") as raised:
        opened(url, settings, host)
    assert raised.value.kind == "invalid_config"
    assert "https" in raised.value.hint
    for secret in ("t0ken", "passw0rd", "sig=", KEY):
        assert secret not in str(raised.value) + raised.value.hint


@pytest.mark.parametrize("host", ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1", "https://192.0.2.1"])
@pytest.mark.parametrize(("url", "settings"), [one for one in CARRIED[:6] if one[1]])
def test_over_tls_and_within_this_host_it_may_be(url: str, settings: dict[str, Any], host: str) -> None:
    opened(url, settings, host)


@pytest.mark.parametrize(("url", "settings"), SIGNED)
def test_what_only_signs_or_is_nothing_may_go_without_tls(url: str, settings: dict[str, Any]) -> None:
    opened(url, settings, "http://storage.example.org")
