# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A credential of AWX reaches our modules as connection settings, through nothing but the environment of the job."""

from __future__ import annotations

import re
from typing import Any

import pytest
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ansible_collections.vmferry.migrate.plugins.plugin_utils.credentials import hand_over
from ansible_collections.vmferry.migrate.plugins.plugin_utils.credentials_of_all import hand_over_all
from ansible_collections.vmferry.migrate.tests.unit.plugins.modules.module_run import ModuleRun

from .awx import credential_types, injected

TYPES = credential_types()
ANSWERS = {
    "endpoint_url": "https://s3.example.com:9000",
    "region": "eu-central-1",
    "access_key": "AKIDAWX",
    "secret_key": "known to AWX",
    "api_host": "pve.example.com:8006",
    "api_user": "backup@pve",
    "api_token_id": "awx",
    "api_token_secret": "known to AWX",
}
STORES = [name for name in TYPES if name != "Proxmox VE"]
# The only things that AWX lets a field or an injector have.
FIELD_KEYS = {"id", "label", "type", "format", "help_text", "secret", "multiline", "choices", "default"}
OF_ANSIBLE = re.compile(r"ANSIBLE_.*|PATH|PYTHONPATH|VIRTUAL_ENV|JOB_ID|INVENTORY_ID|CACHE|AWX_.*")
# The same settings, by the modules' names.
SECRET_SETTINGS = {"secret_key", "session_token", "sse_customer_key", "api_token_secret"}


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> ModuleRun:
    return ModuleRun(monkeypatch, capfd)


def answers(kind: dict[str, Any], *, all_fields: bool) -> dict[str, str]:
    fields = [field["id"] for field in kind["inputs"]["fields"]]
    return {name: ANSWERS[name] if all_fields or name in kind["inputs"]["required"] else "" for name in fields}


@pytest.mark.parametrize("module", ["vm_export", "vm_import", "export_info"])
@pytest.mark.parametrize("name", STORES)
def test_what_a_credential_injects_comes_out_as_connection_settings(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    filled = answers(TYPES[name], all_fields=True)
    for variable, value in injected(TYPES[name], filled).items():
        monkeypatch.setenv(variable, value)
    request = modules.request(module, {"url": "s3://exports/vms"})
    settings = (request if module == "export_info" else request.store).settings
    assert {field: settings.get(field) for field in filled} == filled


@pytest.mark.parametrize("name", STORES)
def test_what_a_credential_injects_is_handed_to_the_host_that_moves_the_data(name: str) -> None:
    filled = answers(TYPES[name], all_fields=True)
    task = {"url": "s3://exports/vms", "storage": {"addressing_style": "path"}}
    handed = hand_over(task, {}, injected(TYPES[name], filled))
    assert handed["storage"] == {**filled, "addressing_style": "path"}


@pytest.mark.parametrize("module", ["vm_export", "vm_import", "vm_info", "vm"])
def test_a_token_of_proxmox_comes_out_as_connection_settings_and_is_handed_over(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    filled = answers(TYPES["Proxmox VE"], all_fields=True)
    variables = injected(TYPES["Proxmox VE"], filled)
    assert hand_over_all({"provider": "proxmox"}, {}, variables)["proxmox"] == filled
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    request = modules.request(module, {"provider": "proxmox"})
    settings = (request if module == "vm_info" else request.provider).settings
    assert {field: settings[field] for field in filled} == filled


@pytest.mark.parametrize("name", TYPES)
def test_no_variable_is_ever_set_to_nothing(name: str) -> None:
    """The AWS SDK takes an empty region, endpoint or profile for a wrong one, and fails."""
    for all_fields in (True, False):
        variables = injected(TYPES[name], answers(TYPES[name], all_fields=all_fields))
        assert all(variables.values()), variables


def test_region_that_was_left_empty_is_the_one_our_modules_sign_with() -> None:
    left_empty = injected(TYPES["S3 server"], answers(TYPES["S3 server"], all_fields=False))
    assert left_empty["AWS_REGION"] == "us-east-1"


@pytest.mark.parametrize("name", TYPES)
def test_secrets_are_encrypted_by_awx_and_injected_only_as_variables(name: str) -> None:
    kind = TYPES[name]
    assert set(kind["injectors"]) == {"env"}, "extra_vars are a file of every play, and files lie in the pod"
    secret = {field["id"] for field in kind["inputs"]["fields"] if field.get("secret")}
    assert secret == {field["id"] for field in kind["inputs"]["fields"]} & SECRET_SETTINGS != set()


@pytest.mark.parametrize("name", TYPES)
def test_awx_accepts_the_type(name: str) -> None:
    kind = TYPES[name]
    fields = {field["id"] for field in kind["inputs"]["fields"]}
    assert set(kind["inputs"]) == {"fields", "required"}
    assert set(kind["inputs"]["required"]) <= fields
    assert all(set(field) <= FIELD_KEYS for field in kind["inputs"]["fields"])
    strict = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    for variable, text in kind["injectors"]["env"].items():
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable)
        assert not OF_ANSIBLE.fullmatch(variable)
        assert text.isascii()
        strict.from_string(text).render(dict.fromkeys(fields, "EXAMPLE"))  # fails if it uses any other name
