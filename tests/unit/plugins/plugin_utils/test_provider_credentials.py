# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A provider gets the control node's credentials, all of them or none, and those of a server with its server."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.plugin_utils.credentials_of_all import hand_over_all

ACCOUNT = {"VMWARE_USER": "svc", "VMWARE_PASSWORD": "not so open"}
SERVER = {"VMWARE_HOST": "vc.example.com", "VMWARE_PORT": "8443", "VMWARE_VALIDATE_CERTS": "false"}
HANDED = {"username": "svc", "password": "not so open"}
OF_SERVER = {"hostname": "vc.example.com", "port": "8443", "validate_certs": False}


def handed(said: Any = None, environment: dict[str, str] | None = None, **options: Any) -> Any:
    given = {"provider": "vsphere", "vsphere": said, "url": "file:///srv", **options}
    return hand_over_all(given, {}, {**ACCOUNT, **SERVER} if environment is None else environment)["vsphere"]


def test_user_password_and_server_are_handed_over() -> None:
    assert handed() == {**HANDED, **OF_SERVER}
    assert handed({"host_map": {"esx1": "10.0.0.1"}}) == {**HANDED, **OF_SERVER, "host_map": {"esx1": "10.0.0.1"}}


def test_what_is_known_of_a_server_does_not_go_to_another() -> None:
    assert handed({"hostname": "vc2.example.com"}) == {**HANDED, "hostname": "vc2.example.com"}


@pytest.mark.parametrize("said", [{"ca_path": "/etc/pki/vc.pem"}, {"thumbprint": "ab" * 32}])
def test_what_the_task_trusts_is_not_weakened(said: dict[str, str]) -> None:
    assert handed(said) == {**HANDED, "hostname": "vc.example.com", "port": "8443", **said}


def test_a_thumbprint_of_the_control_node_is_handed_over() -> None:
    pinned = {**ACCOUNT, **SERVER, "VMFERRY_VSPHERE_THUMBPRINT": "ab" * 32}
    assert handed(None, pinned) == {**HANDED, "hostname": "vc.example.com", "port": "8443", "thumbprint": "ab" * 32}


def test_variables_of_govc_count_where_the_others_are_not_set() -> None:
    govc = {"GOVC_URL": "https://vc.example.com:8443/sdk", "GOVC_USERNAME": "svc", "GOVC_PASSWORD": "not so open"}
    assert handed(None, govc) == {**HANDED, "hostname": "vc.example.com:8443"}
    assert handed(None, {**govc, "GOVC_INSECURE": "1"})["validate_certs"] is False


@pytest.mark.parametrize("said", [{"username": "own"}, {"password": "own"}, "username=own"])
def test_nothing_is_added_to_credentials_of_the_task(said: Any) -> None:
    assert handed(said) == said


@pytest.mark.parametrize("name", ["VMWARE_USER", "VMWARE_PASSWORD", "GOVC_USERNAME", "GOVC_PASSWORD"])
def test_nothing_is_added_to_credentials_of_the_tasks_environment(name: str) -> None:
    asked = {"provider": "vsphere", "vsphere": {}}
    assert hand_over_all(asked, {name: "own"}, ACCOUNT) == asked


@pytest.mark.parametrize("lacking", ["VMWARE_USER", "VMWARE_PASSWORD"])
def test_half_of_an_account_is_none(lacking: str) -> None:
    half = {**ACCOUNT, lacking: ""}
    assert handed({}, half) == {}
    with pytest.raises(VmferryError, match="no credentials for vSphere") as refused:
        handed({}, half, credentials_from="controller")
    assert "VMWARE_PASSWORD" in refused.value.hint


def test_whoever_wants_those_of_the_host_gets_them() -> None:
    assert handed({}, credentials_from="target") == {}


@pytest.mark.parametrize(
    "arguments",
    [
        {"provider": "libvirt", "libvirt": {}},
        {"provider": "libvirt", "vsphere": {}},
        {"libvirt": {}, "vsphere": {}},  # the module tells that it is not said which
        {"provider": "vsphere", "vsphere": ["what is this"]},
        {"vm": "web"},
    ],
)
def test_nothing_is_handed_to_who_is_not_meant(arguments: dict[str, Any]) -> None:
    assert hand_over_all(arguments, {}, ACCOUNT) == arguments


def test_a_task_that_describes_one_provider_means_it() -> None:
    assert hand_over_all({"vsphere": {}}, {}, ACCOUNT) == {"vsphere": HANDED}


def test_each_end_of_a_migration_is_handed_what_it_needs() -> None:
    asked = {"source": {"provider": "vsphere"}, "destination": {"libvirt": {}}, "vm": "web"}
    given = hand_over_all(asked, {}, ACCOUNT)
    assert given == {**asked, "source": {"provider": "vsphere", "vsphere": HANDED}}
    turned = {"source": {"libvirt": {}}, "destination": {"vsphere": {"hostname": "vc2"}}, "credentials_from": "target"}
    assert hand_over_all(turned, {}, ACCOUNT) == turned


def test_the_store_beside_it_gets_its_own() -> None:
    keys = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"}
    given = hand_over_all({"provider": "vsphere", "url": "s3://exports"}, {}, {**ACCOUNT, **keys})
    assert given["storage"] == {"access_key": "AKID", "secret_key": "secret"}
    assert given["vsphere"] == HANDED
