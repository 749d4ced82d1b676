# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The descriptions of services that botocore reads: once for all sessions of a process, and of a large one a part.

That of EC2 takes 25 MB for the 800 operations that it has, of which an export needs ten.
"""

from __future__ import annotations

from threading import Lock
from typing import Any, Dict, Iterable, Mapping, Optional, Sequence, Set

_TYPE = "service-2"  # of the file that has the operations
_shared: Dict[Any, Any] = {}  # botocore's loaders, by where they look
_sharing = Lock()


class Models:
    """Plays botocore's Loader, as a component of sessions that see the same. `few`: by service, the operations that
    are to be known of it."""

    def __init__(self, few: Optional[Mapping[str, Sequence[str]]] = None) -> None:
        self._few = dict(few or {})
        self._parts: Dict[str, Any] = {}
        self._path: Any = None
        self._loader: Any = None

    def of(self, core: Any) -> Models:
        """Of the place where this session of botocore looks for them."""
        self._path = core.get_config_variable("data_path")
        with _sharing:
            if self._path not in _shared:
                _shared[self._path] = core.get_component("data_loader")
            self._loader = _shared[self._path]
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def load_service_model(self, service_name: str, type_name: str, api_version: Any = None) -> Any:
        if type_name != _TYPE or service_name not in self._few:
            return self._loader.load_service_model(service_name, type_name, api_version)
        if service_name not in self._parts:
            from botocore import loaders

            passing = loaders.create_loader(self._path)  # it keeps what it read, and goes with it
            whole = passing.load_service_model(service_name, type_name, api_version)
            self._parts[service_name] = _part(whole, self._few[service_name])
        return self._parts[service_name]

    def know_all(self, service: str) -> None:
        """Clients that are made from now on have every operation."""
        self._few.pop(service, None)


def _part(model: Mapping[str, Any], operations: Iterable[str]) -> Dict[str, Any]:
    """Of operations that this botocore does not have, nothing."""
    kept = {name: model["operations"][name] for name in operations if name in model["operations"]}
    wanted = [one[way]["shape"] for one in kept.values() for way in ("input", "output") if way in one]
    wanted += [error["shape"] for one in kept.values() for error in one.get("errors", ())]
    shapes: Set[str] = set()
    while wanted:
        name = wanted.pop()
        if name not in shapes:
            shapes.add(name)
            wanted += _named_by(model["shapes"][name])
    return dict(model, operations=kept, shapes={name: model["shapes"][name] for name in shapes})


def _named_by(shape: Mapping[str, Any]) -> Iterable[str]:
    members = [*shape.get("members", {}).values(), *(shape[key] for key in ("member", "key", "value") if key in shape)]
    return [member["shape"] for member in members]
