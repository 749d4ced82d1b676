# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation of a module says is returned, is returned, in the type it says."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import yaml

from rigs.domain import Guest
from system.exports import Bench

MODULES = Path(__file__).resolve().parents[2] / "plugins" / "modules"
TYPES = {"str": str, "int": int, "bool": bool, "float": (int, float), "list": list, "dict": dict}
NOT_ALWAYS = {"fell_back"}


def documented(module: str) -> dict[str, Any]:
    tree = ast.parse((MODULES / f"{module}.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "RETURN":
            return yaml.safe_load(ast.literal_eval(node.value))
    raise AssertionError(f"{module} documents no results")


def assert_returned(described: dict[str, Any], result: dict[str, Any], where: str) -> None:
    for name, what in described.items():
        if name in NOT_ALWAYS:
            continue
        assert name in result, f"{where}.{name} is documented and missing"
        value = result[name]
        if value is None:
            continue
        if what["type"] != "raw":
            assert isinstance(value, TYPES[what["type"]]), f"{where}.{name} is {value!r}, not {what['type']}"
        for one in value if isinstance(value, list) else [value]:
            if "contains" in what and isinstance(one, dict):
                assert_returned(what["contains"], one, f"{where}.{name}")


def part(module: str, *names: str) -> dict[str, Any]:
    return {name: what for name, what in documented(module).items() if name in names}


def test_what_is_documented_is_returned(bench: Bench, small: Guest) -> None:
    exported = bench.export("small")
    assert_returned(part("vm_export", "export", "job"), exported, "vm_export")
    planned = bench.export("small", check_mode=True)
    assert_returned(part("vm_export", "findings", "plan"), planned, "vm_export")
    jobs = bench.jobs()
    assert_returned(part("job_info", "jobs"), {"jobs": jobs}, "job_info")
