# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to Proxmox VE: what the environment fills in, what is masked, and which packages it takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.tests.unit.plugins.modules.module_run import ModuleRun

SECRET = 'pass/wo"rd+&1'
FALLBACKS: list[tuple[str, str, str, Any]] = [
    ("PROXMOX_HOST", "pve.example.com", "api_host", "pve.example.com"),
    ("PROXMOX_PORT", "443", "api_port", 443),
    ("PROXMOX_USER", "backup@pve", "api_user", "backup@pve"),
    ("PROXMOX_PASSWORD", SECRET, "api_password", SECRET),
    ("PROXMOX_VALIDATE_CERTS", "no", "validate_certs", False),
    ("PROXMOX_CA_PATH", "/etc/ssl/pve.pem", "ca_path", "/etc/ssl/pve.pem"),
]
TOKEN = {"PROXMOX_TOKEN_ID": "nightly", "PROXMOX_TOKEN_SECRET": SECRET}
DEFAULTS = {"validate_certs": True, "api_timeout": 60, "transport": "auto", "ssh_user": "root", "ssh_port": 22}


def settings(modules: ModuleRun, given: dict[str, Any] | None = None) -> Any:
    arguments: dict[str, Any] = {"provider": "proxmox"}
    if given is not None:
        arguments["proxmox"] = given
    return modules.request("vm_info", arguments).settings


@pytest.mark.parametrize(("variable", "text", "option", "wanted"), FALLBACKS)
def test_environment_fills_in_what_the_task_leaves_out(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, option: str, wanted: Any
) -> None:
    monkeypatch.setenv(variable, text)
    assert settings(modules)[option] == wanted
    own = {"api_port": 8006, "validate_certs": True}.get(option, "/of/the/task")
    assert settings(modules, {option: own})[option] == own


def test_a_token_of_the_environment_counts_before_its_password(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, text in {**TOKEN, "PROXMOX_PASSWORD": "x"}.items():
        monkeypatch.setenv(variable, text)
    assert settings(modules) == {**DEFAULTS, "api_token_id": "nightly", "api_token_secret": SECRET}


def test_a_secret_of_the_task_is_not_mixed_with_one_of_the_environment(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, text in {**TOKEN, "PROXMOX_PASSWORD": "x"}.items():
        monkeypatch.setenv(variable, text)
    assert settings(modules, {"api_password": "mine"}) == {**DEFAULTS, "api_password": "mine"}
    mine = {"api_token_id": "mine"}
    assert settings(modules, mine) == {**DEFAULTS, **mine, "api_token_secret": SECRET}
    both = {"api_password": "mine", "api_token_id": "mine", "api_token_secret": "mine"}
    assert settings(modules, both) == {**DEFAULTS, **both}, "which the provider refuses"


@pytest.mark.parametrize("variable", [*sorted({row[0] for row in FALLBACKS}), *TOKEN])
def test_an_empty_variable_fills_in_nothing(modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "")
    assert settings(modules) == DEFAULTS


def test_the_timeout_of_others_is_not_taken(modules: ModuleRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """For community.proxmox it is 5 s, in which no volume is allocated."""
    monkeypatch.setenv("PROXMOX_API_TIMEOUT", "5")
    assert settings(modules)["api_timeout"] == 60


@pytest.mark.parametrize("given", [{"ca_path": "/etc/ssl/pve.pem"}, {"validate_certs": True}])
def test_environment_does_not_end_the_trust_that_a_task_asks_for(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    monkeypatch.setenv("PROXMOX_VALIDATE_CERTS", "false")
    assert settings(modules, given) == {**DEFAULTS, **given}


def test_authority_of_the_environment_is_verified_against_unless_the_task_says_no(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXMOX_CA_PATH", "/etc/ssl/pve.pem")
    monkeypatch.setenv("PROXMOX_VALIDATE_CERTS", "false")
    assert settings(modules) == {**DEFAULTS, "ca_path": "/etc/ssl/pve.pem"}
    assert settings(modules, {"validate_certs": False}) == {**DEFAULTS, "validate_certs": False}


def test_a_variable_that_is_neither_true_nor_false_is_told(modules: ModuleRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXMOX_VALIDATE_CERTS", "maybe")
    outcome = modules.fail("vm_info", {"provider": "proxmox"})
    assert (outcome["error"]["kind"], "PROXMOX_VALIDATE_CERTS is maybe" in outcome["msg"]) == ("invalid_config", True)


@pytest.mark.parametrize("module", ["vm_info", "vm", "disk_snapshot", "disk_snapshot_info", "vm_export", "vm_import"])
@pytest.mark.parametrize("option", ["api_password", "api_token_secret"])
@pytest.mark.parametrize("of_environment", [True, False])
def test_no_failure_carries_the_secret(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, module: str, option: str, of_environment: bool
) -> None:
    def act() -> None:
        raise VmferryError("unauthenticated", f"Refused {SECRET}.", f"Not {json.dumps(SECRET)}.")

    modules.act = act
    given = {"api_host": "pve", "api_user": "root@pam"}
    if of_environment:
        monkeypatch.setenv(option.upper().replace("API", "PROXMOX"), SECRET)
    else:
        given[option] = SECRET
    outcome = modules.fail(module, {"provider": "proxmox", "proxmox": given})
    assert outcome["msg"] == "Refused ********."
    assert json.dumps(SECRET)[1:-1] not in json.dumps(outcome)


def test_connection_alone_names_the_provider(modules: ModuleRun) -> None:
    assert modules.request("vm_info", {"provider": None, "proxmox": {"api_host": "pve"}}).name == "proxmox"


@pytest.mark.parametrize("package", ["proxmoxer", "requests"])
def test_a_missing_package_is_told_with_how_to_get_it(modules: ModuleRun, package: str) -> None:
    modules.without_package(package)
    outcome = modules.fail("vm_info", {"provider": "proxmox"})
    assert (outcome["error"]["kind"], package in outcome["msg"]) == ("invalid_config", True)
    assert "with pip" in outcome["error"]["hint"]


def test_an_old_proxmoxer_is_told_with_how_to_get_a_newer_one(modules: ModuleRun) -> None:
    """As the oldest distributions package it."""
    modules.packages["proxmoxer"] = "1.2.0"
    outcome = modules.fail("vm_info", {"provider": "proxmox"})
    assert (outcome["error"]["kind"], "1.2.0 is too old" in outcome["msg"]) == ("invalid_config", True)


def test_oldest_proxmoxer_will_do(modules: ModuleRun) -> None:
    modules.packages["proxmoxer"] = "2.0.0"
    assert settings(modules) == DEFAULTS
