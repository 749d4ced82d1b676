# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The house rule: arrows point down, rooms of one rank do not know each other, the engine knows no Ansible."""

from __future__ import annotations

import ast
import functools
from collections.abc import Sequence
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

MODULE_UTILS = Path(__file__).resolve().parents[2] / "plugins" / "module_utils"
PACKAGE = "ansible_collections.vmferry.migrate.plugins.module_utils"
RANKS = (
    {"_ansible"},
    {"_operations"},
    {"_providers", "_stores", "_exports"},
    {"_transfer", "_images", "_nbd", "_appliances", "_aws"},
    {"_http"},
    {"_blocks", "_crc", "_errors"},
)
# The rooms of `_operations`; what stands beside them is what the modules do, which nobody but a module knows.
OPERATIONS = (
    {"cleaning", "importing", "migrating"},
    {"exporting"},
    {"vm_files"},
    {"stored", "objects"},
    {"attempts"},
    {"jobs"},
)
OPERATION_RANK = {room: rank for rank, rooms in enumerate(OPERATIONS, start=1) for room in rooms}
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}
FILES = sorted(MODULE_UTILS.rglob("*.py"))


@functools.cache
def imported_names(path: Path) -> list[str]:
    """Dotted names of everything a file imports, wherever in the file, relative imports made absolute."""
    package = [PACKAGE, *path.relative_to(MODULE_UTILS).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found += [f"{stem}.{alias.name}" for alias in node.names]
    return found


def room(name: str) -> str | None:
    return name[len(PACKAGE) + 1 :].split(".")[0] if name.startswith(PACKAGE + ".") else None


def own_room(path: Path) -> str:
    return path.relative_to(MODULE_UTILS).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(MODULE_UTILS)) for path in FILES])
def test_arrows_point_down(path: Path) -> None:
    own = own_room(path)
    if own == "__init__":
        return
    for name in imported_names(path):
        other = room(name)
        if other is not None and other != own:
            assert RANK[other] > RANK[own], f"{path.name} in {own} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(MODULE_UTILS)) for path in FILES])
def test_only_the_ansible_room_imports_ansible(path: Path) -> None:
    if own_room(path) != "_ansible":
        assert not [name for name in imported_names(path) if name.split(".")[0] == "ansible"]


def test_no_files_import_each_other_in_a_circle() -> None:
    names = {".".join([PACKAGE, *path.relative_to(MODULE_UTILS).with_suffix("").parts]): path for path in FILES}
    imports = {}
    for own, path in names.items():
        found = imported_names(path)
        imports[own] = {name for one in found for name in (one, one.rpartition(".")[0]) if name in names}
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the files


def test_every_room_is_known() -> None:
    assert {own_room(path) for path in FILES} - {"__init__"} <= set(RANK)


OPERATION_FILES = [path for path in FILES if own_room(path) == "_operations"]


def operation_room(parts: Sequence[str]) -> str:
    """Of names below `_operations`; '' for what a module does."""
    return parts[0] if parts and parts[0] in OPERATION_RANK else ""


@pytest.mark.parametrize("path", OPERATION_FILES, ids=[str(path.relative_to(MODULE_UTILS)) for path in OPERATION_FILES])
def test_arrows_between_operations_point_down(path: Path) -> None:
    own = operation_room(path.relative_to(MODULE_UTILS).parts[1:])
    rank = OPERATION_RANK.get(own, 0)
    for name in imported_names(path):
        if room(name) != "_operations":
            continue
        other = operation_room(name[len(PACKAGE) + 1 :].split(".")[1:])
        if not own or other != own:
            assert OPERATION_RANK.get(other, 0) > rank, f"{path.name} in {own or '_operations'} imports {name}"


def test_every_room_of_operations_is_known() -> None:
    folders = {path.parent.name for path in OPERATION_FILES}
    assert folders - {"_operations"} == set(OPERATION_RANK)


def _folders(room_name: str) -> set[str]:
    return {path.parent.name for path in (MODULE_UTILS / room_name).glob("*/__init__.py")}


# What two folders of these need stands beside them, and knows none of them; the table of each room leads to all.
SEPARATE = {"_stores": _folders("_stores"), "_images": _folders("_images")}
TABLES = {"open.py", "formats.py"}
SEPARATED = [path for path in FILES if own_room(path) in SEPARATE and path.name not in TABLES]


@pytest.mark.parametrize("path", SEPARATED, ids=[str(path.relative_to(MODULE_UTILS)) for path in SEPARATED])
def test_no_service_and_no_format_knows_another(path: Path) -> None:
    own = own_room(path)
    known = {name[len(PACKAGE) + 1 :].split(".")[1] for name in imported_names(path) if room(name) == own}
    assert known & SEPARATE[own] <= {path.parent.name}
