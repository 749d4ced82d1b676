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


REGION = {"region": "eu-central-1"}


@pytest.mark.parametrize(
    ("asked", "handed"),
    [
        ({"provider": "aws"}, HANDED),
        ({"provider": "aws", "aws": REGION}, {**HANDED, **REGION}),
        ({"aws": REGION}, {**HANDED, **REGION}),
        ({"aws": "region=eu-central-1"}, {**HANDED, **REGION}),
        ({"provider": "libvirt", "aws": REGION}, REGION),
        ({"provider": "aws", "aws": {"profile": "offsite"}}, {"profile": "offsite"}),
        ({"provider": "aws", "credentials_from": "target"}, None),
        ({"provider": "libvirt"}, None),
        ({}, None),
    ],
)
def test_the_account_of_aws_that_has_the_vms_is_handed_what_it_needs(
    asked: dict[str, Any], handed: dict[str, str] | None
) -> None:
    task = {**FOLDER, **asked}
    assert hand_over_all(task, {}, KEYS) == {**task, **({"aws": handed} if handed else {})}
    assert hand_over_all(task, {"AWS_PROFILE": "of the task"}, KEYS) == task
    if asked.get("credentials_from") is None:
        ends = {"source": asked, "destination": {"provider": "libvirt"}, "vm": "web"}
        assert hand_over_all(ends, {}, KEYS)["source"].get("aws") == handed


def test_the_account_of_aws_gets_what_belongs_to_its_keys_and_no_server_of_buckets() -> None:
    more = {"AWS_SESSION_TOKEN": "for an hour", "AWS_REGION": "eu-central-1", "AWS_ENDPOINT_URL_S3": "https://s3"}
    handed = hand_over_all({**BUCKET, "provider": "aws"}, {}, {**KEYS, **more})
    token = {"session_token": "for an hour", **REGION}
    assert handed["aws"] == {**HANDED, **token}
    assert handed["storage"] == {**HANDED, **token, "endpoint_url": "https://s3"}
    assert hand_over_all({"provider": "aws"}, {}, {**KEYS, "AWS_ENDPOINT_URL": "https://all"})["aws"] == {
        **HANDED,
        "endpoint_url": "https://all",
    }


def test_an_account_of_aws_without_credentials_is_refused_where_the_controller_must_have_them() -> None:
    with pytest.raises(VmferryError, match="no credentials for AWS") as caught:
        hand_over_all({**FOLDER, "provider": "aws", "credentials_from": "controller"}, {}, {})
    assert "aws.access_key" in caught.value.hint


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
