# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading properties: narrow paths of many objects in one round trip, never one attribute of one object.

Of PropertyCollector, in the vSphere Web Services API.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, Mapping, Sequence

from .faults import is_session_gone

PAGE = 250  # objects in an answer; thousands of VMs at once would take the server longer than a call may take

Rows = Dict[str, "Row"]  # by MoRef


@dataclass(frozen=True)
class Row:
    """`values` lacks what is not set, and what the user may not see."""

    kind: str  # VirtualMachine, Folder …
    moref: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def get(self, path: str, default: Any = None) -> Any:
        return self.values.get(path, default)


@dataclass(frozen=True)
class Step:
    """From objects of a type to others, by a property that holds references; then by `then`, and by itself again."""

    kind: str
    path: str
    then: Sequence[Step] = ()
    again: bool = False


def retrieve(content: Any, start: Sequence[Any], steps: Sequence[Step], paths: Mapping[str, Sequence[str]]) -> Rows:
    """Of the objects to start from, and of all that the steps lead to, the `paths` of their types.

    Raises the server's faults, `ManagedObjectNotFound` where an object to start from is gone.
    """
    from pyVmomi import vmodl

    query = vmodl.query.PropertyCollector
    wanted = [query.PropertySpec(type=_type(kind), pathSet=list(names), all=False) for kind, names in paths.items()]
    chosen = [query.ObjectSpec(obj=one, skip=False, selectSet=_traversals(steps)) for one in start]
    return _all_pages(content, query.FilterSpec(propSet=wanted, objectSet=chosen))


@contextmanager
def every(content: Any, *kinds: str) -> Iterator[Any]:
    """A view of all objects of these types that this user may see, to start from with `of_view`."""
    view = content.viewManager.CreateContainerView(content.rootFolder, [_type(kind) for kind in kinds], True)
    try:
        yield view
    finally:
        view.DestroyView()


@contextmanager
def watching(content: Any, managed: Any, kind: str, path: str) -> Iterator[Callable[[int], None]]:
    """A function that waits, at most so many seconds, until a property of an object is another one than when it was
    asked last."""
    from pyVmomi import vmodl

    query = vmodl.query.PropertyCollector
    # One of its own: the session's is shared by whoever waits in another thread.
    collector = content.propertyCollector.CreatePropertyCollector()
    version = ""

    def wait(seconds: int) -> None:
        nonlocal version
        changed = collector.WaitForUpdatesEx(version, query.WaitOptions(maxWaitSeconds=seconds))
        version = changed.version if changed is not None else version

    try:
        paths = [query.PropertySpec(type=_type(kind), pathSet=[path], all=False)]
        collector.CreateFilter(query.FilterSpec(propSet=paths, objectSet=[query.ObjectSpec(obj=managed)]), True)
        yield wait
    finally:
        _destroy(collector)


def _destroy(collector: Any) -> None:
    """It ends with its session anyway, which may be what has ended."""
    from pyVmomi import vmodl

    try:
        collector.DestroyPropertyCollector()
    except (vmodl.MethodFault, OSError):
        return


def of_view(then: Sequence[Step] = ()) -> Sequence[Step]:
    return (Step("ContainerView", "view", then),)


def _all_pages(content: Any, query: Any) -> Rows:
    from pyVmomi import vmodl

    collector = content.propertyCollector
    options = vmodl.query.PropertyCollector.RetrieveOptions(maxObjects=PAGE)
    answer = collector.RetrievePropertiesEx([query], options)
    rows: Rows = {}
    while answer is not None:
        for found in answer.objects:
            for missing in found.missingSet or ():
                if is_session_gone(missing.fault):
                    raise missing.fault
            values = {one.name: _plain(one.val) for one in found.propSet or ()}
            kind, moref = type(found.obj).__name__.rpartition(".")[2], found.obj._moId
            before = rows.get(moref)
            rows[moref] = Row(kind, moref, {**(before.values if before else {}), **values})
        answer = collector.ContinueRetrievePropertiesEx(answer.token) if answer.token else None
    return rows


def _plain(value: Any) -> Any:
    """Enumerations are strings with a class of their own, which Ansible does not take for strings."""
    return str(value) if isinstance(value, str) else value


def _traversals(steps: Sequence[Step], prefix: str = "step") -> list[Any]:
    from pyVmomi import vmodl

    query = vmodl.query.PropertyCollector
    made = []
    for number, step in enumerate(steps):
        name = f"{prefix}-{number}"
        after = _traversals(step.then, name)
        if step.again:
            after.append(query.SelectionSpec(name=name))
        made.append(query.TraversalSpec(name=name, type=_type(step.kind), path=step.path, skip=False, selectSet=after))
    return made


def _type(kind: str) -> Any:
    from pyVmomi import vim

    return vim.view.ContainerView if kind == "ContainerView" else getattr(vim, kind)
