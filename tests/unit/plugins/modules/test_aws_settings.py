# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to AWS: what the environment fills in, what is masked, and which package it takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.tests.unit.plugins.modules.module_run import ModuleRun

SECRET = 'pass/wo"rd+&1'
FALLBACKS: list[tuple[str, str, str]] = [
    ("AWS_REGION", "eu-central-1", "region"),
    ("AWS_DEFAULT_REGION", "eu-central-1", "region"),
    ("AWS_PROFILE", "offsite", "profile"),
    ("AWS_DEFAULT_PROFILE", "offsite", "profile"),
    ("AWS_ACCESS_KEY_ID", "AKID", "access_key"),
    ("AWS_SECRET_ACCESS_KEY", SECRET, "secret_key"),
    ("AWS_SESSION_TOKEN", SECRET, "session_token"),
    ("AWS_ENDPOINT_URL_STS", "https://sts.example.org", "sts_endpoint_url"),
    ("AWS_CA_BUNDLE", "/etc/ssl/lab.pem", "ca_path"),
]
PROVED = {"validate_certs": True}


def settings(modules: ModuleRun, given: dict[str, Any] | None = None) -> Any:
    arguments: dict[str, Any] = {"provider": "aws"}
    if given is not None:
        arguments["aws"] = given
    return modules.request("vm_info", arguments).settings


@pytest.mark.parametrize(("variable", "text", "option"), FALLBACKS)
def test_environment_fills_in_what_the_task_leaves_out(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, option: str
) -> None:
    monkeypatch.setenv(variable, text)
    assert settings(modules) == {**PROVED, option: text}
    assert settings(modules, {option: "/of/the/task"})[option] == "/of/the/task"


def test_keys_of_the_task_stand_alone(modules: ModuleRun, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(variable, "of-the-environment")
    own = {"access_key": "AKID", "secret_key": SECRET}
    assert settings(modules, own) == {**PROVED, **own}
    assert settings(modules, {"profile": "offsite"}) == {**PROVED, "profile": "offsite"}


def test_keys_of_the_environment_come_before_its_profile(modules: ModuleRun, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "given")
    assert settings(modules) == {**PROVED, "access_key": "given", "secret_key": "given"}


def test_authorities_of_the_environment_give_way_to_a_task_that_verifies_nothing(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/ssl/lab.pem")
    assert settings(modules, {"validate_certs": False}) == {"validate_certs": False}
    both = {"ca_path": "/of/the/task", "validate_certs": False}
    assert settings(modules, both) == both, "which the provider refuses"


@pytest.mark.parametrize("option", ["secret_key", "session_token"])
@pytest.mark.parametrize("module", ["vm_info", "vm", "disk_snapshot", "disk_snapshot_info"])
def test_no_failure_carries_a_secret(
    modules: ModuleRun, monkeypatch: pytest.MonkeyPatch, module: str, option: str
) -> None:
    def act() -> None:
        raise VmferryError("unauthenticated", f"Refused {SECRET}.", f"Not {json.dumps(SECRET)}.")

    modules.act = act
    for given in ({option: SECRET}, {}):
        if not given:
            monkeypatch.setenv({"secret_key": "AWS_SECRET_ACCESS_KEY"}.get(option, "AWS_SESSION_TOKEN"), SECRET)
        outcome = modules.fail(module, {"provider": "aws", "aws": given})
        assert outcome["msg"] == "Refused ********."
        assert json.dumps(SECRET)[1:-1] not in json.dumps(outcome)


def test_connection_alone_names_the_provider(modules: ModuleRun) -> None:
    assert modules.request("vm_info", {"provider": None, "aws": {"region": "eu-central-1"}}).name == "aws"


@pytest.mark.parametrize("version", [None, "1.9.0", "1.25.9"])
def test_a_missing_or_old_boto3_is_told_with_how_to_get_it(modules: ModuleRun, version: str | None) -> None:
    if version is None:
        modules.without_package("boto3")
    else:
        modules.replace("boto3", __version__=version)
    outcome = modules.fail("vm_info", {"provider": "aws"})
    assert outcome["error"]["kind"] == "invalid_config"
    assert "with pip" in outcome["error"]["hint"]
    assert (version or "boto3") in outcome["msg"]


@pytest.mark.parametrize("module", ["export_verify"])
def test_modules_that_do_not_work_with_aws_yet_do_not_take_it(modules: ModuleRun, module: str) -> None:
    assert "must be one of: libvirt" in modules.fail(module, {"provider": "aws"})["msg"]
