# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every place where the process may be killed is one where a test kills it.

A quoted word somewhere in a test proves nothing: `manifest` is a word of many uses. What counts is what a test hands to
something called `failpoint` or `step`, which is a parameter of a test or of a function that kills, or a loop; what it
sets the variable to; and what is called `failpoints`, which a test of all providers goes through.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("failpoint", "step")
WALKED = "failpoints"


def test_every_failpoint_is_one_where_a_test_kills() -> None:
    code = "".join(path.read_text() for path in (ROOT / "plugins").rglob("*.py"))
    names = set(re.findall(r"\bfailpoint\(\"([\w-]+)\"\)", code))
    assert len(names) > 30
    sources = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    assert names - killed_at(sources) == set()


def test_a_word_that_nobody_is_killed_at_does_not_count() -> None:
    source = """
FIRST = ["a"]
THEN = ["b:2"]
@pytest.mark.parametrize("step", [*(FIRST + THEN), "c"])
def test_one(step): setenv("VMFERRY_FAILPOINT", step)
@pytest.mark.parametrize(("kind", "failpoint"), [("no", "d"), ("no", "e:1")])
def test_two(kind, failpoint): kill(bench, failpoint, "no")
def kill(bench, failpoint, other): ...
def test_three(bench):
    for failpoint in ("f", "g"): ...
    kill(bench, "h", "no")
    vm.kill_at("i", name="no")
    exporter("no", failpoint="j")
    setenv("VMFERRY_FAILPOINT", "k")
    assert "manifest" in keys
FAILPOINTS: dict[str, str] = {"l": "m"}
class Driver:
    failpoints = {"n": ("o",)}
class Bench:
    def kill_at(self, failpoint, name): ...
"""
    assert killed_at([source]) == set("abcdefghijklmno")
    other = "def kill(failpoint, other): kill('p', 'no')"
    assert killed_at([source, other]) == killed_at([other, source]) == set("abcdefghijklmnop")


def killed_at(sources: Iterable[str]) -> set[str]:
    """A function of a file's own goes before others of that name."""
    trees = [ast.parse(source) for source in sources]
    everywhere = {name: at for tree in trees for name, at in _takers(tree).items()}
    return {text.partition(":")[0] for tree in trees for text in _given(tree, {**everywhere, **_takers(tree)})}


def _takers(tree: ast.Module) -> dict[str, int]:
    return {
        node.name: names.index(name) - (names[0] == "self")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for names in [[one.arg for one in node.args.args]]
        for name in NAMES
        if name in names
    }


def _given(tree: ast.Module, takers: dict[str, int]) -> Iterator[str]:
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.For) and isinstance(node.target, ast.Name) and node.target.id in NAMES:
            yield from _texts(node.iter, constants)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(getattr(target, "id", "").lower().endswith(WALKED) for target in targets):
                yield from _texts(node.value, constants)
        elif isinstance(node, ast.Call):
            yield from _of_call(node, takers, constants)


def _of_call(call: ast.Call, takers: dict[str, int], constants: dict[str, ast.expr]) -> Iterator[str]:
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    for keyword in call.keywords:
        if keyword.arg in NAMES:
            yield from _texts(keyword.value, constants)
    if called == "parametrize":
        yield from _of_parameters(call, constants)
    elif called == "setenv" and isinstance(call.args[0], ast.Constant) and call.args[0].value == "VMFERRY_FAILPOINT":
        yield from _texts(call.args[1], constants)
    elif called in takers and takers[called] < len(call.args):
        yield from _texts(call.args[takers[called]], constants)


def _of_parameters(call: ast.Call, constants: dict[str, ast.expr]) -> Iterator[str]:
    names = [name.strip() for text in _texts(call.args[0], constants) for name in text.split(",")]
    values = call.args[1]
    if isinstance(values, ast.Name):
        values = constants.get(values.id, values)
    for at in (names.index(name) for name in NAMES if name in names):
        rows = values.elts if isinstance(values, (ast.List, ast.Tuple)) else [values]
        for row in rows:
            is_row = len(names) > 1 and isinstance(row, ast.Tuple)
            yield from _texts(row.elts[at] if is_row else row, constants)  # type: ignore[attr-defined]


def _texts(node: ast.expr, constants: dict[str, ast.expr]) -> Iterator[str]:
    """All texts in an expression, also by the names of its file's constants."""
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str):
            yield one.value
        elif isinstance(one, ast.Name) and one.id in constants:
            others = {name: value for name, value in constants.items() if name != one.id}
            yield from _texts(constants[one.id], others)
