# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to vSphere: what the environment fills in, what is masked, and which packages it takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.tests.unit.plugins.modules.module_run import ModuleRun

SECRET = 'pass/wo"rd+&1'
FALLBACKS: list[tuple[str, str, str, Any]] = [
    ("VMWARE_HOST", "vc.example.com", "hostname", "vc.example.com"),
    ("GOVC_URL", "https://vc.example.com:8443/sdk", "hostname", "vc.example.com:8443"),
    ("GOVC_URL", "vc.example.com", "hostname", "vc.example.com"),
    ("GOVC_URL", f"https://root:{SECRET.replace('/', '%2F')}@vc.example.com/sdk", "hostname", "vc.example.com"),
    ("VMWARE_PORT", "8443", "port", 8443),
    ("VMWARE_USER", "backup", "username", "backup"),
    ("GOVC_USERNAME", "backup", "username", "backup"),
    ("VMWARE_PASSWORD", SECRET, "password", SECRET),
    ("GOVC_PASSWORD", SECRET, "password", SECRET),
    ("VMWARE_VALIDATE_CERTS", "no", "validate_certs", False),
    ("GOVC_INSECURE", "1", "validate_certs", False),
    ("GOVC_TLS_CA_CERTS", "/etc/ssl/lab.pem", "ca_path", "/etc/ssl/lab.pem"),
    ("VMFERRY_VSPHERE_THUMBPRINT", "ab" * 32, "thumbprint", "ab" * 32),
    ("VMWARE_PROXY_HOST", "proxy.example.com", "proxy_host", "proxy.example.com"),
    ("VMWARE_PROXY_PORT", "3128", "proxy_port", 3128),
]


def settings(modules: ModuleRun, given: dict[str, Any] | None = None) -> Any:
    arguments: dict[str, Any] = {"provider": "vsphere"}
    if given is not None:
        arguments["vsphere"] = given
    return modules.request("vm_info", arguments).settings


@pytest.mark.parametrize(("variable", "text", "option", "wanted"), FALLBACKS)
def test_environment_fills_in_what_the_task_leaves_out(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, option: str, wanted: Any
) -> None:
    monkeypatch.setenv(variable, text)
    assert settings(modules)[option] == wanted
    own = {"port": 443, "proxy_port": 80, "validate_certs": True}.get(option, "/of/the/task")
    assert settings(modules, {option: own})[option] == own


@pytest.mark.parametrize("variable", sorted({row[0] for row in FALLBACKS}))
def test_an_empty_variable_fills_in_nothing(modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "")
    assert settings(modules) == {"validate_certs": True}


def test_variables_of_the_community_collection_come_before_those_of_govc(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, text in {"VMWARE_HOST": "one", "GOVC_URL": "other", "GOVC_INSECURE": "1"}.items():
        monkeypatch.setenv(variable, text)
    monkeypatch.setenv("VMWARE_VALIDATE_CERTS", "true")
    assert settings(modules) == {"hostname": "one", "validate_certs": True}


@pytest.mark.parametrize("variable", [("VMWARE_VALIDATE_CERTS", "False"), ("GOVC_INSECURE", "1")])
@pytest.mark.parametrize(
    "given", [{"ca_path": "/etc/ssl/lab.pem"}, {"thumbprint": "ab" * 32}, {"validate_certs": True}]
)
def test_environment_does_not_end_the_trust_that_a_task_asks_for(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str], given: dict[str, Any]
) -> None:
    monkeypatch.setenv(*variable)
    assert settings(modules, given) == {"validate_certs": True, **given}


def test_authority_of_the_environment_is_verified_against_unless_the_task_says_no(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOVC_TLS_CA_CERTS", "/etc/ssl/lab.pem")
    monkeypatch.setenv("VMWARE_VALIDATE_CERTS", "False")
    assert settings(modules) == {"ca_path": "/etc/ssl/lab.pem", "validate_certs": True}
    assert settings(modules, {"validate_certs": False}) == {"validate_certs": False}
    both = {"ca_path": "/of/the/task", "validate_certs": False}
    assert settings(modules, both) == both, "which the provider refuses"


@pytest.mark.parametrize("variable", ["VMWARE_VALIDATE_CERTS", "GOVC_INSECURE"])
def test_a_variable_that_is_neither_true_nor_false_is_told(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "maybe")
    outcome = modules.fail("vm_info", {"provider": "vsphere"})
    assert (outcome["error"]["kind"], f"{variable} is maybe" in outcome["msg"]) == ("invalid_config", True)


@pytest.mark.parametrize("sign", ["#", "/", "?", "[", "/x@y#"])
def test_a_url_with_a_password_that_is_not_quoted_is_refused_without_showing_it(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    monkeypatch.setenv("GOVC_URL", f"https://administrator@vsphere.local:abracad{sign}sesame@vc.example.com/sdk")
    outcome = modules.fail("vm_info", {"provider": "vsphere"})
    assert (outcome["error"]["kind"], "GOVC_URL" in outcome["msg"]) == ("invalid_config", True)
    assert not [part for part in ("abracad", "sesame", "x@y") if part in json.dumps(outcome)]


@pytest.mark.parametrize("module", ["vm_info", "vm", "disk_snapshot", "disk_snapshot_info"])
@pytest.mark.parametrize("of_environment", [True, False])
def test_no_failure_carries_the_password(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, module: str, of_environment: bool
) -> None:
    def act() -> None:
        raise VmferryError("unauthenticated", f"Refused {SECRET}.", f"Not {json.dumps(SECRET)}.")

    modules.act = act
    given = {"hostname": "vc", "username": "backup"}
    if of_environment:
        monkeypatch.setenv("VMWARE_PASSWORD", SECRET)
    else:
        given["password"] = SECRET
    outcome = modules.fail(module, {"provider": "vsphere", "vsphere": given})
    assert outcome["msg"] == "Refused ********."
    assert json.dumps(SECRET)[1:-1] not in json.dumps(outcome)


def test_connection_alone_names_the_provider(modules: ModuleRun) -> None:
    assert modules.request("vm_info", {"provider": None, "vsphere": {"hostname": "vc"}}).name == "vsphere"


@pytest.mark.parametrize("version", [None, "6.7.1", "7.0.3", "8.0.0.1.2"])
def test_a_missing_or_old_pyvmomi_is_told_with_how_to_get_it(modules: ModuleRun, version: str | None) -> None:
    if version is None:
        modules.without_package("pyVmomi")
    else:
        modules.packages["pyvmomi"] = version
    outcome = modules.fail("vm_info", {"provider": "vsphere"})
    assert outcome["error"]["kind"] == "invalid_config"
    assert "with pip" in outcome["error"]["hint"]
    assert (version or "pyvmomi") in outcome["msg"]


def test_oldest_pyvmomi_will_do(modules: ModuleRun) -> None:
    modules.packages["pyvmomi"] = "8.0.1.0"
    assert settings(modules) == {"validate_certs": True}


@pytest.mark.parametrize("module", ["export_verify"])
def test_modules_that_do_not_work_with_vsphere_yet_do_not_take_it(modules: ModuleRun, module: str) -> None:
    assert "must be one of: libvirt" in modules.fail(module, {"provider": "vsphere"})["msg"]
