# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's access key reaches the host of a task whose VMs are in an account of AWS."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.plugin_utils.credentials_of_all import hand_over_all

KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "not so open"}
HANDED = {"access_key": "AKID", "secret_key": "not so open"}
BUCKET: dict[str, Any] = {"url": "s3://backups"}
FOLDER: dict[str, Any] = {"url": "file:///srv/exports"}
REGION = {"region": "eu-central-1"}


@pytest.mark.parametrize(
    ("asked", "handed"),
    [
        ({"provider": "aws"}, HANDED),
        ({"provider": "aws", "aws": REGION}, {**HANDED, **REGION}),
        ({"aws": REGION}, {**HANDED, **REGION}),
        ({"aws": "region=eu-central-1"}, {**HANDED, **REGION}),
        ({"provider": "libvirt", "aws": REGION}, REGION),
        ({"provider": "aws", "aws": {"access_key": "own"}}, {"access_key": "own"}),
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
