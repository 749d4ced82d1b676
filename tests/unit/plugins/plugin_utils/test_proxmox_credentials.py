# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proxmox VE gets the control node's token or password, with its user, and those of a cluster with its address."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.plugin_utils.credentials_of_all import hand_over_all

USER = {"PROXMOX_USER": "backup@pve"}
TOKEN = {"PROXMOX_TOKEN_ID": "nightly", "PROXMOX_TOKEN_SECRET": "not so open"}
PASSWORD = {"PROXMOX_PASSWORD": "not open either"}
SERVER = {"PROXMOX_HOST": "pve.example.com", "PROXMOX_PORT": "443", "PROXMOX_VALIDATE_CERTS": "no"}
BY_TOKEN = {"api_user": "backup@pve", "api_token_id": "nightly", "api_token_secret": "not so open"}
BY_PASSWORD = {"api_user": "backup@pve", "api_password": "not open either"}
OF_SERVER = {"api_host": "pve.example.com", "api_port": "443", "validate_certs": False}


def handed(said: Any, environment: dict[str, str], **options: Any) -> Any:
    return hand_over_all({"provider": "proxmox", "proxmox": said, **options}, {}, environment)["proxmox"]


def test_user_token_and_server_are_handed_over() -> None:
    assert handed(None, {**USER, **TOKEN, **PASSWORD, **SERVER}) == {**BY_TOKEN, **OF_SERVER}
    assert handed(None, {**USER, **PASSWORD}) == BY_PASSWORD


def test_what_is_known_of_a_server_does_not_go_to_another() -> None:
    assert handed({"api_host": "other"}, {**USER, **TOKEN, **SERVER}) == {**BY_TOKEN, "api_host": "other"}


@pytest.mark.parametrize("said", [{"ca_path": "/etc/ssl/pve.pem"}, {"validate_certs": True}])
def test_what_the_task_trusts_is_not_weakened(said: dict[str, Any]) -> None:
    at = {"api_host": "pve.example.com", "api_port": "443"}
    assert handed(said, {**USER, **TOKEN, **SERVER}) == {**BY_TOKEN, **at, **said}


@pytest.mark.parametrize("option", ["api_user", "api_password", "api_token_id", "api_token_secret"])
def test_nothing_is_added_to_credentials_of_the_task(option: str) -> None:
    assert handed({option: "own"}, {**USER, **TOKEN, **SERVER}) == {option: "own"}


@pytest.mark.parametrize("name", [*USER, *TOKEN, *PASSWORD])
def test_nothing_is_added_to_credentials_of_the_tasks_environment(name: str) -> None:
    asked = {"provider": "proxmox", "proxmox": {}}
    assert hand_over_all(asked, {name: "own"}, {**USER, **TOKEN}) == asked


@pytest.mark.parametrize("lacking", [*USER, *TOKEN])
def test_half_of_a_token_is_none(lacking: str) -> None:
    half = {**USER, **TOKEN, lacking: ""}
    assert handed({}, half) == {}
    with pytest.raises(VmferryError, match="no credentials for Proxmox VE") as refused:
        handed({}, half, credentials_from="controller")
    assert "PROXMOX_TOKEN_SECRET" in refused.value.hint
