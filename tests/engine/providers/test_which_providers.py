# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said where a provider is not there, or cannot do what is asked."""

from __future__ import annotations

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ProviderSpec,
    SnapshotRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.manage_snapshots import manage_snapshots
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.open import open_provider


def test_vms_that_are_files_have_no_snapshots_and_the_provider_is_not_denied() -> None:
    files = ProviderSpec("image", {"url": "file:///srv/images", "storage": {}})
    with pytest.raises(VmferryError, match="are files, without a hypervisor") as caught:
        manage_snapshots(SnapshotRequest(files, "web", "present"), False)
    assert (caught.value.kind, "vm_import" in caught.value.hint) == ("unsupported", True)


def test_a_provider_that_is_not_known_is_said_to_be_none() -> None:
    with pytest.raises(VmferryError, match="There is no provider 'xen'"):
        open_provider("xen", {})
