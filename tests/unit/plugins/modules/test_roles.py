# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A role offers what its module offers: each option has a variable, which is described, has a default and arrives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.vmferry.migrate.tests.unit.plugins.modules.module_run import MODULES

ROLES = Path(__file__).resolve().parents[4] / "roles"
WITHOUT_VARIABLE = {
    "vm_export": {
        "job_id": "each run has a new one, and a role has several runs",
        "vm": "vm_export_vms has them all",
    },
    "vm_import": {
        "job_id": "each run has a new one",
        "state": "it has one choice",
    },
}
OWN = {"vm_export": {"vms", "worker", "busy_retries", "busy_delay"}, "vm_import": {"worker"}}
each_role = pytest.mark.parametrize("role", WITHOUT_VARIABLE)


def read(role: str, file: str) -> Any:
    return yaml.safe_load((ROLES / role / file).read_text())


def described(role: str) -> dict[str, dict[str, Any]]:
    """By the name of the option."""
    variables = read(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert all(name.startswith(f"{role}_") for name in variables)
    return {name[len(role) + 1 :]: what for name, what in variables.items()}


def offered(role: str) -> dict[str, dict[str, Any]]:
    options = MODULES[role].argument_spec().options
    return {name: what for name, what in options.items() if name not in WITHOUT_VARIABLE[role]}


@each_role
def test_every_option_of_the_module_has_a_variable(role: str) -> None:
    assert set(described(role)) - OWN[role] == set(offered(role))
    assert set(WITHOUT_VARIABLE[role]) <= set(MODULES[role].argument_spec().options)


@each_role
def test_a_variable_takes_what_the_option_takes(role: str) -> None:
    options = offered(role)
    for name, variable in described(role).items():
        if name not in OWN[role]:
            for what in ("type", "elements", "choices"):
                assert variable.get(what) == options[name].get(what), f"{name}: {what}"


@each_role
def test_a_default_that_leaves_nothing_to_the_module_is_the_modules(role: str) -> None:
    for name, variable in described(role).items():
        if name not in OWN[role] and variable.get("default"):
            assert variable["default"] == offered(role)[name].get("default", variable["default"]), name


@each_role
def test_a_variable_is_required_or_has_the_default_that_is_described(role: str) -> None:
    defaults = read(role, "defaults/main.yml")
    for name, variable in described(role).items():
        if variable.get("required"):
            assert f"{role}_{name}" not in defaults
        else:
            default = defaults.pop(f"{role}_{name}")
            assert default == variable.get("default", default)
    assert defaults == {}, "not described"


@each_role
def test_a_variable_arrives_at_the_option_of_its_name(role: str) -> None:
    (task,) = (one for one in read(role, "tasks/main.yml") if f"vmferry.migrate.{role}" in one)
    arguments = task[f"vmferry.migrate.{role}"]
    assert set(arguments) == {*offered(role), *({"vm"} if role == "vm_export" else ())}
    for name in offered(role):
        assert arguments[name].split()[1] == f"{role}_{name}"
