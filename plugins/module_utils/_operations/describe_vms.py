# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `vm_info` does."""

from __future__ import annotations

from contextlib import closing
from fnmatch import fnmatchcase
from typing import Any, Mapping, Sequence

from .._errors import VmferryError
from .._providers.spec import VmSpec
from .jobs.requests import ProviderSpec
from .vm_files.open import open_provider


def describe_vms(provider: ProviderSpec, vms: Sequence[str] | None, filters: Mapping[str, Any]) -> dict[str, Any]:
    """The named VMs (each must exist), or all; `filters`: name and folder (globs), power_state, tag: all must fit.

    Raises `unsupported` for what VMs there cannot have: nothing found would look like an answer.
    """
    with closing(open_provider(provider.name, provider.settings)) as opened:
        known = {"tag": opened.has_tags, "folder": opened.has_folders}
        for filter in known:
            if filters.get(filter) and not known[filter]:
                offered = [one for one in known if known[one]]
                raise VmferryError(
                    "unsupported",
                    f"VMs on {opened.name} cannot be found by a {filter}.",
                    f"Filter by {', '.join([*offered, 'name'])} or power_state instead.",
                )
        found = opened.vms_like(filters) if vms is None else opened.describe_each(vms)
    chosen = sorted((vm for vm in found if _fits(vm, filters)), key=lambda vm: (vm.name, vm.id))
    return {"changed": False, "vms": [vm.as_dict() for vm in chosen]}


def _fits(vm: VmSpec, filters: Mapping[str, Any]) -> bool:
    name, power_state, tag = filters.get("name"), filters.get("power_state"), filters.get("tag")
    folder = filters.get("folder")
    return (
        (not name or fnmatchcase(vm.name, name))
        and (not folder or fnmatchcase(vm.path.rpartition("/")[0], folder))
        and (not power_state or vm.power_state == power_state)
        and (not tag or tag in vm.tags)
    )
