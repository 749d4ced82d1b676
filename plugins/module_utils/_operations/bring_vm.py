# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `vm` does: a VM brought into a state."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Mapping, Sequence

from .._errors import VmferryError
from .._providers.base import Provider
from .._providers.open import open_provider
from .._providers.spec import VmSpec
from .jobs.requests import VmRequest

OFF = ("powered_off", "crashed")


def bring_vm(request: VmRequest, check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises `VmferryError`."""
    with closing(open_provider(request.provider.name, request.provider.settings)) as provider:
        if request.state == "absent":
            return _remove(provider, request, check_mode)
        vm = provider.describe(request.vm)
        if request.state == "powered_on":
            return _power_on(provider, vm, check_mode)
        return _power_off(provider, vm, request, check_mode)


def _power_on(provider: Provider, vm: VmSpec, check_mode: bool) -> dict[str, Any]:
    if not check_mode:
        vm = provider.settled(vm)
    if vm.power_state == "powered_on":
        return _unchanged(vm)
    if vm.power_state not in OFF:
        raise VmferryError("conflict", f"{vm.name} is {vm.power_state}, which is not off.", "Resume it.")
    after = vm if check_mode else provider.start(vm)
    return _changed(after, {"power_state": vm.power_state}, {"power_state": "powered_on"})


def _power_off(provider: Provider, vm: VmSpec, request: VmRequest, check_mode: bool) -> dict[str, Any]:
    if vm.power_state in OFF:
        return _unchanged(vm)
    if vm.power_state != "powered_on" and not request.force:
        hint = "Resume it, or have its power cut with force: true."
        raise VmferryError("conflict", f"{vm.name} is {vm.power_state}, and cannot shut itself down.", hint)
    after = vm if check_mode else provider.shut_down(vm, request.timeout, request.force)
    return _changed(after, {"power_state": vm.power_state}, {"power_state": "powered_off"})


def _remove(provider: Provider, request: VmRequest, check_mode: bool) -> dict[str, Any]:
    try:
        vm = provider.describe(request.vm)
    except VmferryError as error:
        if error.kind != "not_found":
            raise
        return _unchanged(None)
    if vm.power_state not in OFF:
        raise VmferryError("conflict", f"{vm.name} is {vm.power_state}, not powered_off.", "Shut it down first.")
    if not provider.can_remove:
        hint = "Remove it with the provider's own tools."
        raise VmferryError("unsupported", f"VMs on {provider.name} cannot be removed yet.", hint)
    provider.check_remove(vm, request.remove_disks)
    said = [] if check_mode else provider.remove(vm, request.remove_disks)
    return _changed(None, {"vm": vm.name}, {}, said)


def _unchanged(vm: VmSpec | None) -> dict[str, Any]:
    same = {} if vm is None else {"power_state": vm.power_state}
    return {"changed": False, "vm": vm and vm.as_dict(), "diff": {"before": same, "after": same}}


def _changed(
    vm: VmSpec | None, before: Mapping[str, str], after: Mapping[str, str], warnings: Sequence[str] = ()
) -> dict[str, Any]:
    return {
        "changed": True,
        "vm": vm and vm.as_dict(),
        "diff": {"before": before, "after": after},
        "warnings": list(warnings),
    }
