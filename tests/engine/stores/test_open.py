# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store, store_kind


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("ftp://host/x", "unsupported"),
        ("relative/path", "invalid_config"),
        ("", "invalid_config"),
        ("file://host/x", "invalid_config"),
        ("file:///a/../b", "invalid_config"),
        ("nfs:///a/../b", "invalid_config"),
        ("nfs://", "invalid_config"),
        ("nfs:relative", "invalid_config"),
        ("nfs://user@server/export", "invalid_config"),
        ("nfs://server/export?uid=0&gid=0", "invalid_config"),
        ("s3:///no-bucket", "invalid_config"),
        ("s3://bucket:9000/x", "invalid_config"),
        ("s3://bucket/a/../b", "invalid_config"),
        ("s3://bucket/a?versionId=1", "invalid_config"),
        ("s3://[bucket/a", "invalid_config"),
        ("https://", "invalid_config"),
        ("https://host:port/x", "invalid_config"),
        ("https://host/a/../b", "invalid_config"),
        ("https://host/a?b=c", "invalid_config"),
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


@pytest.mark.parametrize(
    ("url", "type_", "name"),
    [
        ("/srv/exports", None, "file"),
        ("file:///srv/exports", "auto", "file"),
        ("file:///srv/exports", "file", "file"),
        ("s3://bucket/x", "s3", "s3"),
        ("https://host/x", None, "http"),
        ("http://host/x", "auto", "http"),
        ("https://host/x", "http", "http"),
        ("https://host/bucket/x", "s3", "s3"),
        ("http://127.0.0.1:9000/bucket/x", "s3", "s3"),
        ("https://account.blob.core.windows.net/container", None, "azure"),
        ("https://account.blob.core.windows.net/container", "http", "http"),
        ("https://host/container", "azure", "azure"),
    ],
)
def test_what_answers_is_told_by_the_url_and_its_type(url: str, type_: str | None, name: str) -> None:
    assert store_kind(url, type_).name == name


@pytest.mark.parametrize(
    ("url", "type_"),
    [("s3://bucket", "http"), ("/srv", "s3"), ("file:///srv", "http"), ("https://host/x", "file"), ("s3://b", "nfs")],
)
def test_a_type_that_the_url_cannot_be_is_refused(url: str, type_: str) -> None:
    with pytest.raises(VmferryError) as raised:
        open_store(url, {"type": type_})
    assert raised.value.kind == "invalid_config"
    assert "type" in raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize(
    ("url", "is_written"),
    [
        ("https://Host/a b/%C3%BC/", "https://host/a%20b/%C3%BC"),
        ("https://host:443", "https://host/"),
        ("http://host:8080/x", "http://host:8080/x"),
    ],
)
def test_an_http_url_is_written_in_one_way(url: str, is_written: str) -> None:
    store = open_store(url, {})
    assert store.url == is_written
    assert store.object_url("vm/ü") == f"{is_written.rstrip('/')}/vm/%C3%BC"


@pytest.mark.parametrize(
    ("url", "command", "instead"),
    [
        ("nfs://nas.example.com/srv/vms", "nas.example.com:/srv/vms /mnt/vms", "nfs:///mnt/vms"),
        ("nfs://nas:2050/srv/vms/", "-o vers=4.1,hard,port=2050 nas:/srv/vms /mnt/vms", "nfs:///mnt/vms"),
        ("nfs://nas/all%20vms", "'nas:/all vms' '/mnt/all vms'", "nfs:///mnt/all%20vms"),
        ("nfs://[fd00::1]/vms", "'[fd00::1]:/vms' /mnt/vms", "nfs:///mnt/vms"),
        ("nfs://nas", "nas:/ /mnt/exports", "nfs:///mnt/exports"),
    ],
)
def test_an_nfs_server_in_the_url_is_told_how_to_be_mounted(url: str, command: str, instead: str) -> None:
    with pytest.raises(VmferryError) as raised:
        open_store(url, {})
    assert raised.value.kind == "invalid_config"
    assert "mount -t nfs -o vers=4.1,hard" in raised.value.hint
    assert command in raised.value.hint
    assert f"write {instead}" in raised.value.hint


@pytest.mark.parametrize(
    ("url", "mount"),
    [
        ("nfs:///mnt/nas/vms/a%20b", None),
        ("nfs:///mnt/nas/vms/a%20b", "/mnt/nas"),
        ("nfs://vms/a%20b", "/mnt/nas"),
        ("nfs://vms/a%20b/", "/mnt/nas/"),
    ],
)
def test_every_way_to_write_a_folder_on_nfs_is_the_same_store(url: str, mount: str | None) -> None:
    store = open_store(url, {"mount": mount})
    assert store.url == "nfs:///mnt/nas/vms/a%20b"
    assert store.object_url("web01/manifest.json") == "nfs:///mnt/nas/vms/a%20b/web01/manifest.json"
    assert store.location("web01/manifest.json") == "/mnt/nas/vms/a b/web01/manifest.json"


@pytest.mark.parametrize("url", ["nfs://../etc", "nfs://vms/../../etc", "nfs://vms/%2e%2e/etc", "nfs:///etc"])
def test_a_url_cannot_climb_out_of_its_mount_point(url: str) -> None:
    with pytest.raises(VmferryError) as raised:
        open_store(url, {"mount": "/mnt/nas"})
    assert raised.value.kind == "invalid_config"


def test_folders_on_nfs_are_written_as_any_path_is() -> None:
    assert store_kind("nfs:///mnt/nas").any_offset
