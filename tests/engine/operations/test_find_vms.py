# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs are chosen by where they lie, where a provider has folders; what VMs cannot have is no filter for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from one_vm import VM

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations import describe_vms as operation
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import VmSpec

PATHS = ("prod/web/web01", "prod/db01", "test/web01", "alone")


class Datacenter:
    """As much of a provider as finding VMs needs."""

    name = "datacenter"

    def __init__(self, *, tags: bool, folders: bool) -> None:
        self.has_tags, self.has_folders = tags, folders

    def vms_like(self, filters: Mapping[str, Any]) -> list[VmSpec]:
        """It may know of the filters, and need not go by them."""
        self.asked = dict(filters)
        return [replace(VM, id=path, name=path.rpartition("/")[2], path=path) for path in PATHS]

    def close(self) -> None:
        pass


def found(monkeypatch: pytest.MonkeyPatch, provider: Datacenter, filters: Mapping[str, Any]) -> list[str]:
    monkeypatch.setattr(operation, "open_provider", lambda *_unused: provider)
    return [vm["path"] for vm in operation.describe_vms(ProviderSpec("datacenter", {}), None, filters)["vms"]]


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        ("prod", ["prod/db01"]),
        ("prod*", ["prod/db01", "prod/web/web01"]),
        ("*/web", ["prod/web/web01"]),
        ("Prod", []),
    ],
)
def test_vms_are_found_by_a_pattern_of_their_folder(
    monkeypatch: pytest.MonkeyPatch, pattern: str, chosen: list[str]
) -> None:
    provider = Datacenter(tags=False, folders=True)
    assert found(monkeypatch, provider, {"folder": pattern}) == chosen
    assert provider.asked == {"folder": pattern}


@pytest.mark.parametrize(
    ("filter", "offered", "named"), [("tag", "", ""), ("tag", "folder", "folder, "), ("folder", "tag", "tag, ")]
)
def test_what_vms_cannot_be_found_by_is_refused_and_the_other_filters_are_named(
    monkeypatch: pytest.MonkeyPatch, filter: str, offered: str, named: str
) -> None:
    with pytest.raises(VmferryError) as caught:
        found(monkeypatch, Datacenter(tags=offered == "tag", folders=offered == "folder"), {filter: "prod"})
    assert caught.value.kind == "unsupported"
    assert str(caught.value) == f"VMs on datacenter cannot be found by a {filter}."
    assert caught.value.hint == f"Filter by {named}name or power_state instead."
