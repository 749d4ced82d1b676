# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A role offers what its module offers: each option has a variable, which is described, has a default and arrives."""

from __future__ import annotations

import re
from collections.abc import Iterator
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
        "source_vm": "it is for looking before there is an export, of which the role makes a virtual machine",
    },
}
OWN = {
    "vm_export": {"vms", "worker", "cleanup", "busy_retries", "busy_delay"},
    "vm_import": {"vms", "worker", "busy_retries", "busy_delay"},
}
NEEDED = "required"  # in the column of the defaults
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
        assert arguments[name].split()[1].lstrip("(") == f"{role}_{name}"


@pytest.mark.parametrize("role", [*WITHOUT_VARIABLE, "vm_migrate", "prepare"])
def test_the_readme_has_each_variable_with_its_default(role: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", (ROLES / role / "README.md").read_text(), re.MULTILINE)
    told = {name: NEEDED if default == NEEDED else yaml.safe_load(default.strip("`")) for name, default in rows}
    variables = read(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert len(told) == len(rows)
    assert told == {name: NEEDED if what.get("required") else what["default"] for name, what in variables.items()}


def test_the_cleanup_after_an_export_offers_what_its_module_offers() -> None:
    of_the_export = {
        "provider",
        "aws",
        "libvirt",
        "proxmox",
        "vsphere",
        "storage",
        "url",
        "vm",
        "credentials_from",
        "signing",
        "encryption",
    }
    of_others = {"export"}  # named by who knows them, which a rule for each night does not
    options = {
        name: what
        for name, what in MODULES["export_cleanup"].argument_spec().options.items()
        if name not in of_the_export | of_others
    }
    offered_here = described("vm_export")["cleanup"]["options"]
    assert offered_here.keys() == options.keys()
    for name, what in offered_here.items():
        assert (what["type"], what.get("elements")) == (options[name]["type"], options[name].get("elements")), name
    (task,) = (one for one in read("vm_export", "tasks/main.yml") if "vmferry.migrate.export_cleanup" in one)
    arguments = task["vmferry.migrate.export_cleanup"]
    assert arguments.keys() == {*options, *of_the_export}
    for name in options:
        assert arguments[name] == f"{{{{ vm_export_cleanup.{name} | default(omit) }}}}"


def test_each_variable_of_a_migration_has_its_default_and_is_used() -> None:
    role = "vm_migrate"
    defaults = read(role, "defaults/main.yml")
    variables = described(role)
    wanted = {f"{role}_{name}": what["default"] for name, what in variables.items() if not what.get("required")}
    assert defaults == wanted
    used = "".join(path.read_text() for folder in ("tasks", "vars") for path in (ROLES / role / folder).iterdir())
    assert [name for name in variables if not re.search(rf"\b{role}_{name}\b", used)] == []


def test_what_a_migration_takes_of_a_module_is_taken_there() -> None:
    variables = described("vm_migrate")
    for name, module, option in (
        ("consistency", "vm_export", "consistency"),
        ("verify", "vm_export", "verify"),
        ("signing", "vm_export", "signing"),
        ("trusted_keys", "vm_import", "trusted_keys"),
        ("credentials_from", "vm_export", "credentials_from"),
        ("state_dir", "vm_import", "state_dir"),
        ("network_map", "vm_import", "network_map"),
        ("storage_map", "vm_import", "storage_map"),
    ):
        taken = MODULES[module].argument_spec().options[option]
        assert (variables[name]["type"], variables[name].get("choices")) == (taken["type"], taken.get("choices")), name
    placement = MODULES["vm_import"].argument_spec().options["placement"]["options"]
    landing = variables["placement"]["options"]
    ends_with_a_vm = {"stop_at"}
    assert set(placement) - set(landing) - ends_with_a_vm == {"keep_mac", "power_on"}, "they have their own variables"
    assert all(landing[name].get("choices") == placement[name].get("choices") for name in landing)


def test_each_task_of_a_migration_reaches_every_provider_that_the_role_takes() -> None:
    end = described("vm_migrate")["source"]["options"]
    providers = end["provider"]["choices"]
    assert sorted(end) == sorted([*providers, "provider"])
    reached = 0
    for path in sorted((ROLES / "vm_migrate" / "tasks").iterdir()):
        for task in every_task(yaml.safe_load(path.read_text())):
            arguments: dict[str, Any] = next((task[name] for name in task if name.startswith("vmferry.migrate.")), {})
            given = {name.split("_", 2)[-1]: value for name, value in {**arguments, **task.get("vars", {})}.items()}
            if "provider" in given:
                (which,) = re.findall(r"vm_migrate_(source|destination)_provider", given["provider"])
                for name in providers:
                    assert f"vm_migrate_{which}.{name} " in given[name], (path.name, task["name"])
                reached += 1
    assert reached >= 8


def every_task(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for task in tasks:
        yield task
        for part in ("block", "rescue", "always"):
            yield from every_task(task.get(part, []))
