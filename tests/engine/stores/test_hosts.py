# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names that fit, names that only look as if, and stores that nobody watches."""

from __future__ import annotations

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores import open as opening
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.hosts import AllowedHosts
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import StoreKind, open_store

LIST = {"allowed_hosts": ["S3.example.org", "*.buckets.example.org", "::1"]}


@pytest.mark.parametrize(
    "host",
    [
        "s3.example.org",
        "S3.EXAMPLE.ORG.",
        "s3.example.org:8443",
        "a.buckets.example.org",
        "a.b.buckets.example.org",
        "[::1]:9",
    ],
)
def test_a_host_that_is_listed_may_be_sent_to(host: str) -> None:
    AllowedHosts.from_options(LIST).check(f"https://{host}/bucket/key")


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "evil-s3.example.org",
        "s3.example.org.evil.net",
        "buckets.example.org",
        "evilbuckets.example.org",
        "s3.example.org@evil.net",
        "127.0.0.1",
        "",
    ],
)
def test_any_other_is_refused(host: str) -> None:
    with pytest.raises(VmferryError, match="none of the storage option allowed_hosts") as raised:
        AllowedHosts.from_options(LIST).check(f"https://{host}/bucket/key")
    assert (raised.value.kind, raised.value.retryable) == ("invalid_config", False)


def test_an_empty_list_allows_none_and_no_list_all() -> None:
    AllowedHosts.from_options({}).check("https://anywhere/")
    with pytest.raises(VmferryError):
        AllowedHosts.from_options({"allowed_hosts": []}).check("https://anywhere/")


@pytest.mark.parametrize("name", ["", "*", "*.", "https://s3.example.org", "s3.*.org", "user@host", "a b"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(VmferryError, match="no host's name"):
        AllowedHosts.from_options({"allowed_hosts": [name]})


def test_a_store_that_does_not_check_is_not_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: str) -> None:
    careless = StoreKind("file", opening._PATH.opener, frozenset(), any_offset=True)
    monkeypatch.setattr(opening, "store_kind", lambda url, type: careless)
    open_store(f"file://{tmp_path}", {}).close()
    with pytest.raises(VmferryError, match="nobody checks") as raised:
        open_store(f"file://{tmp_path}", LIST)
    assert raised.value.kind == "unsupported"


def test_a_path_has_no_host(tmp_path: str) -> None:
    open_store(f"file://{tmp_path}", LIST).close()
