# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every store of a task gets the control node's credentials if it has none, whichever option names it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.plugin_utils.credentials_of_all import hand_over_all

KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "not so open"}
HANDED = {"access_key": "AKID", "secret_key": "not so open"}
BUCKET: dict[str, Any] = {"url": "s3://backups"}
FOLDER: dict[str, Any] = {"url": "file:///srv/exports"}


def test_each_end_of_a_copy_is_handed_what_it_needs() -> None:
    handed = hand_over_all({"source": FOLDER, "destination": {**BUCKET, "key": "a"}}, {}, KEYS)
    assert handed == {"source": FOLDER, "destination": {**BUCKET, "key": "a", "storage": HANDED}}
    own = {**BUCKET, "storage": {"profile": "offsite"}}
    assert hand_over_all({"source": own, "destination": BUCKET}, {}, KEYS)["source"] == own


def test_every_store_of_further_copies_is_handed_what_it_needs() -> None:
    asked = {**FOLDER, "copies_to": [FOLDER, BUCKET]}
    assert hand_over_all(asked, {}, KEYS) == {**asked, "copies_to": [FOLDER, {**BUCKET, "storage": HANDED}]}
    assert asked["copies_to"] == [FOLDER, BUCKET], "what the task said stays as it was"


def test_the_store_that_vms_lie_in_is_handed_what_it_needs() -> None:
    handed = hand_over_all({**FOLDER, "image": BUCKET}, {}, KEYS)
    assert handed == {**FOLDER, "image": {**BUCKET, "storage": HANDED}}


def test_the_stores_at_both_ends_of_a_migration_are_handed_what_they_need() -> None:
    asked = {"source": {"provider": "image", "image": BUCKET}, "destination": {"image": BUCKET}, "vm": "web"}
    handed = {**BUCKET, "storage": HANDED}
    both = {"source": {"provider": "image", "image": handed}, "destination": {"image": handed}, "vm": "web"}
    assert hand_over_all(asked, {}, KEYS) == both
    hypervisors = {"source": {"provider": "libvirt"}, "destination": {"libvirt": {"uri": "qemu:///system"}}}
    assert hand_over_all(hypervisors, {}, KEYS) == hypervisors


def test_whose_credentials_they_are_counts_for_every_store() -> None:
    for source in ("target", "controller"):
        asked = {"source": FOLDER, "destination": BUCKET, "credentials_from": source}
        if source == "target":
            assert hand_over_all(asked, {}, KEYS) == asked
        else:
            with pytest.raises(VmferryError, match="credentials_from is controller"):
                hand_over_all(asked, {}, {})


@pytest.mark.parametrize("end", ["s3://backups", ["s3://backups"], {"key": "a"}, {"image": "s3://backups"}, None])
def test_what_cannot_be_read_is_left_to_the_module(end: Any) -> None:
    asked = {"source": end, "copies_to": end}
    assert hand_over_all(asked, {}, KEYS) == asked
