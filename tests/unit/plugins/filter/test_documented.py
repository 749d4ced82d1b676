# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `ansible-doc` shows of the filters and of the callback is complete and true."""

from __future__ import annotations

import ast
import configparser
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.vmferry.migrate.plugins.plugin_utils._fleet import outcome_rows, plan_rows
from ansible_collections.vmferry.migrate.plugins.plugin_utils._migration import outcome_row, plan_row

PACKAGE = "ansible_collections.vmferry.migrate.plugins.filter"
PLUGINS = Path(__file__).resolve().parents[4] / "plugins"
FILTERS = sorted(path.stem for path in (PLUGINS / "filter").glob("*.py"))
TYPES: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "list": list, "dict": dict}
EXPORT = {
    "id": "20261121T063000Z-1a2b3c4d",
    "url": "file:///srv/exports/web01",
    "mode": "full",
    "disks": [{"bytes_read": 2, "bytes_stored": 1}],
    "duration": 2.0,
    "rate": 1.0,
}
PLANNED: dict[str, Any] = {"findings": [], "plan": {"mode": "full", "bytes_to_read": 2, "bytes_to_send": 1}}
EXPORTED: dict[str, Any] = {"changed": True, "export": EXPORT, "job": {"id": "3f1c9a2be1d04c58"}}
DONE: dict[str, Any] = {**EXPORTED, "changed": False}
FAILED: dict[str, Any] = {"failed": True, "msg": "No."}
WANTED = {
    **{"vm": "web01", "name": "web01", "host": "web01", "to_host": "kvm02"},
    **{"power_off": False, "power_on": True, "delete_source": False, "reachable": False},
}
SOURCE = {"vms": [{"id": "1f0c", "power_state": "powered_off"}]}
NOBODY = {"msg": "Nobody.", "error": {"kind": "not_found"}}
MADE_OF_IT = {"vms": [{"details": {"imported_from": {"vm": "1f0c", "vm_name": "web01"}}}]}


def plugin(name: str) -> Any:
    return importlib.import_module(f"{PACKAGE}.{name}")


def rows_of(name: str) -> list[dict[str, Any]]:
    """In every state that the filter knows."""
    if name.startswith("migration"):
        looked: dict[str, Any] = {"source": SOURCE, "destination": NOBODY, "export": PLANNED, "import": PLANNED}
        row, done = plan_row(looked, WANTED), plan_row({**looked, "destination": MADE_OF_IT}, WANTED)
        if name == "migration_plan":
            return [row, done, plan_row({**looked, "import": FAILED}, WANTED)]
        ends: list[tuple[str, dict[str, Any]]] = [
            ("", {"export": EXPORT, "import": EXPORTED}),
            ("", {}),
            ("import", FAILED),
        ]
        return [outcome_row({"state": row["state"]}, step, result) for step, result in ends]
    nothing = plan_rows({"results": []}, "kvm02", [])
    if name == "fleet_plan":
        return plan_rows({"results": [PLANNED, DONE, FAILED]}, "kvm01", ["web01", "web02", "web03"]) + nothing
    planned = plan_rows({"results": [PLANNED] * 3}, "kvm01", ["web01", "web02", "web03"])
    return outcome_rows([*planned, *nothing], {"results": [EXPORTED, DONE, FAILED]})


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_describes_the_arguments_it_takes(name: str) -> None:
    documented = yaml.safe_load(plugin(name).DOCUMENTATION)
    taken = list(inspect.signature(plugin(name).FilterModule().filters()[name]).parameters)
    assert list(documented["options"]) == ["_input", *taken[1:]]
    assert documented.get("positional", "") == ", ".join(taken[1:])


@pytest.mark.parametrize("name", FILTERS)
def test_the_examples_of_a_filter_are_tasks_one_of_which_has_it(name: str) -> None:
    tasks = yaml.safe_load(plugin(name).EXAMPLES)
    assert all("name" in task for task in tasks)
    assert any(f"vmferry.migrate.{name}" in str(task) for task in tasks)


@pytest.mark.parametrize("name", ["fleet_plan", "fleet_outcome", "migration_plan", "migration_outcome"])
def test_what_a_row_has_is_described_and_nothing_else(name: str) -> None:
    described = yaml.safe_load(plugin(name).RETURN)["_value"]["contains"]
    rows = rows_of(name)
    assert {key for row in rows for key in row} == set(described)
    for key, what in described.items():
        values = [row[key] for row in rows if key in row]
        assert all(isinstance(value, TYPES[what["type"]]) for value in values), key
        assert (len(values) == len(rows)) is (what["returned"] == "always"), key
    states = {row["state"] for row in rows}
    assert all(f"V({state})" in str(described["state"]["description"]) for state in states)


def test_the_example_of_the_callback_has_its_name_and_its_options() -> None:
    callback = strings_of(PLUGINS / "callback/transfers.py")
    options = yaml.safe_load(callback["DOCUMENTATION"])["options"]
    example = yaml.safe_load(callback["EXAMPLES"])["examples"]
    settings = configparser.ConfigParser()
    settings.read_string(example[: example.index("# The table for one run")])
    assert settings["defaults"]["callbacks_enabled"] == callback["CALLBACK_NAME"]
    known = {(one["section"], one["key"]) for option in options.values() for one in option["ini"]}
    section = "callback_vmferry_transfers"
    assert settings[section]
    assert {(section, key) for key in settings[section]} <= known


def strings_of(path: Path) -> dict[str, str]:
    """By name, without an import: that of a callback makes this process a controller, and modules behave otherwise."""
    return {
        node.targets[0].id: node.value.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }
