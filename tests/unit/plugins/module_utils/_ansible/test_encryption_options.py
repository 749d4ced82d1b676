# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A passphrase that is too short is refused, whatever its characters take in bytes."""

from __future__ import annotations

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.argspec import _Nested
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.encryption_options import with_passphrase
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.seals import Seals


def of(passphrase: str) -> Seals:
    given = {"passphrase": passphrase, "passphrase_file": None, "passphrase_command": None}
    return with_passphrase(Seals(), _Nested({"encryption": given}, {"encryption": given}, set()))


@pytest.mark.parametrize("passphrase", ["seven c", "äöüßäöü", "äöüß"])
def test_fewer_than_eight_characters_are_refused(passphrase: str) -> None:
    with pytest.raises(VmferryError, match="fewer than 8 characters"):
        of(passphrase)


def test_eight_characters_are_taken() -> None:
    ring = of("äöüßäöüß").keyring
    assert ring is not None
    assert ring.passphrase == "äöüßäöüß".encode()
