# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.provider_options import chosen_provider
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError


def test_settings_for_exactly_one_provider_name_it() -> None:
    assert chosen_provider(None, ["vsphere"]) == "vsphere"


def test_name_wins_over_settings_for_several() -> None:
    assert chosen_provider("libvirt", ["libvirt", "vsphere"]) == "libvirt"


def test_settings_for_several_providers_are_ambiguous() -> None:
    with pytest.raises(VmferryError, match="libvirt and vsphere") as caught:
        chosen_provider(None, ["vsphere", "libvirt"])
    assert caught.value.kind == "invalid_config"


def test_nothing_names_no_provider() -> None:
    with pytest.raises(VmferryError, match="names no provider") as caught:
        chosen_provider(None, [])
    assert caught.value.kind == "invalid_config"
