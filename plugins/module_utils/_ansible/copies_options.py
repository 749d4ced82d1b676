# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""To which further stores an export goes."""

from __future__ import annotations

from .._operations.jobs.requests import StoreSpec
from .argspec import ArgumentSpec, TaskArguments, invalid
from .storage_options import storage_arguments, store_spec


def copies_arguments() -> ArgumentSpec:
    options = storage_arguments().options
    return ArgumentSpec({"copies_to": {"type": "list", "elements": "dict", "default": [], "options": options}})


def copies(arguments: TaskArguments) -> tuple[StoreSpec, ...]:
    """Each another one than the rest, and than the export's own."""
    seen = {_place(store_spec(arguments))}
    found = []
    for one in arguments.each("copies_to"):
        spec = store_spec(one)
        if _place(spec) in seen:
            raise invalid(f"copies_to names {spec.url} twice, or where the export is.", "Name each store once.")
        seen.add(_place(spec))
        found.append(spec)
    return tuple(found)


def _place(spec: StoreSpec) -> tuple[str, str]:
    return spec.url.rstrip("/"), str(spec.settings.get("endpoint_url", ""))
