# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("ftp://host/x", "unsupported"),
        ("relative/path", "invalid_config"),
        ("", "invalid_config"),
        ("file://host/x", "invalid_config"),
        ("file:///a/../b", "invalid_config"),
        ("s3:///no-bucket", "invalid_config"),
        ("s3://bucket:9000/x", "invalid_config"),
        ("s3://bucket/a/../b", "invalid_config"),
        ("s3://bucket/a?versionId=1", "invalid_config"),
        ("s3://[bucket/a", "invalid_config"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, kind: str) -> None:
    with pytest.raises(VmferryError) as raised:
        open_store(url, {})
    assert raised.value.kind == kind
    assert raised.value.hint


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(VmferryError) as raised:
        open_store("s3://AKID:hunter2@bucket/x", {})
    assert raised.value.kind == "invalid_config"
    assert "hunter2" not in f"{raised.value} {raised.value.hint}"


def test_a_bare_path_and_its_url_are_the_same_store(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    assert open_store(str(folder), {}).url == open_store(folder.as_uri(), {}).url == folder.as_uri()


@pytest.mark.parametrize(
    "settings",
    [
        {"sse": "rot13"},
        {"sse_kms_key_id": "k"},
        {"sse_customer_key": "c2hvcnQ="},
        {"addressing_style": "sideways"},
        {"access_key": "only"},
        {"endpoint_url": "host:9000"},
        {"endpoint_url": "http://user:password@host"},
        {"profile": "there-is-no-such-profile"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(VmferryError) as raised:
        open_store("s3://bucket", settings)
    assert raised.value.kind == "invalid_config"
    assert raised.value.hint


@pytest.mark.parametrize("mode", ["0400", "rw", "1777", 0])
def test_a_mode_that_locks_the_owner_out_is_refused(tmp_path: Path, mode: object) -> None:
    with pytest.raises(VmferryError) as raised:
        open_store(str(tmp_path), {"mode": mode})
    assert raised.value.kind == "invalid_config"
    assert "storage option file_mode is" in raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize("setting", ["owner", "group"])
def test_an_account_that_does_not_exist_is_told_by_the_name_of_its_option(tmp_path: Path, setting: str) -> None:
    with pytest.raises(VmferryError) as raised:
        open_store(str(tmp_path), {setting: "no-such-account"})
    assert raised.value.kind == "invalid_config"
    assert f"storage option file_{setting} names 'no-such-account'" in raised.value.message
    assert raised.value.hint
