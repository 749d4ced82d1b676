# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vSphere's faults become kinds with hints, by what they are derived from; and which API is spoken."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim, vmodl

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.faults import explained
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.session import newest_known

DOING = "Making the snapshot a of web01"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (vim.fault.InvalidLogin(), "unauthenticated"),
        (vim.fault.NotAuthenticated(), "unauthenticated"),
        (vim.fault.NoPermission(privilegeId="VirtualMachine.State.CreateSnapshot"), "permission_denied"),
        (vim.fault.RestrictedVersion(), "unsupported"),
        (vim.fault.TaskInProgress(), "busy"),
        (vim.fault.VmConfigFault(), "internal"),
        (vim.fault.MemorySnapshotOnIndependentDisk(), "unsupported"),
        (vim.fault.TooManySnapshotLevels(), "quota"),
        (vim.fault.InvalidPowerState(), "conflict"),
        (vim.fault.NoDiskSpace(), "no_space"),
        (vim.fault.FileNotFound(), "not_found"),
        (vim.fault.FileLocked(), "busy"),
        (vmodl.fault.HostNotConnected(), "network"),
        (vmodl.fault.ManagedObjectNotFound(), "not_found"),
        (vmodl.fault.MethodNotFound(), "unsupported"),
        (vmodl.fault.RequestCanceled(), "cancelled"),
        (vmodl.fault.SystemError(), "internal"),
    ],
)
def test_fault_has_a_kind_and_a_hint(fault: Any, kind: str) -> None:
    error = explained(fault, DOING)
    assert error.kind == kind
    assert error.message.startswith(f"{DOING} failed: ")
    assert error.hint or kind == "conflict" or kind == "not_found"


def test_missing_privilege_is_named() -> None:
    error = explained(vim.fault.NoPermission(msg="Denied.", privilegeId="VirtualMachine.State.CreateSnapshot"), DOING)
    assert error.message == f"{DOING} failed: Denied, the privilege VirtualMachine.State.CreateSnapshot is missing."


def test_what_the_server_says_is_one_sentence() -> None:
    said = [vmodl.LocalizableMessage(key="k", message="The disk\nis locked.")]
    assert explained(vim.fault.GenericVmConfigFault(msg="Failed.", faultMessage=said, reason="x"), DOING).message == (
        f"{DOING} failed: Failed: The disk is locked."
    )


@pytest.mark.parametrize(
    ("served", "spoken"),
    [
        ("6.5", "6.5"),
        ("6.7.3", "6.7.3"),
        ("7.0.3.0", "7.0.3.0"),
        ("8.0.1.0", "8.0.1.0"),
        ("8.0.1.99", "8.0.1"),
        ("99.0.0.0", ""),
    ],
)
def test_newest_version_that_both_know_is_spoken(served: str, spoken: str) -> None:
    from pyVmomi.VmomiSupport import versionIdMap

    found = versionIdMap[newest_known(served, "vc.example.com")]
    assert found.startswith(spoken)
    assert found <= served


@pytest.mark.parametrize("served", ["6.0", "5.5", "", "nonsense"])
def test_a_server_that_is_too_old_is_told(served: str) -> None:
    with pytest.raises(VmferryError, match=r"at least 6\.5 is needed") as refused:
        newest_known(served, "vc.example.com")
    assert refused.value.kind == "unsupported"
