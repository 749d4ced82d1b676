# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An account of AWS for each worker, and the provider connected to it. Every test makes its own instances."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.provider import AwsProvider
from rigs.aws import AwsServer


@pytest.fixture(scope="session")
def server() -> Iterator[AwsServer]:
    with AwsServer() as started:
        yield started


@pytest.fixture(scope="session", autouse=True)
def models_are_read_once() -> Iterator[None]:
    """Each session of boto3 reads the description of EC2 anew, which takes longer than most tests."""
    from botocore import loaders, session

    one = loaders.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        for room in (loaders, session):
            patch.setattr(room, "create_loader", lambda *_given: one, raising=False)
        yield


@pytest.fixture
def aws(server: AwsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsServer]:
    """With no call on its list, and no variable of the tester's own that means another account."""
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server.forget_calls()
    yield server
    server.heal()
    server.change(polls=1)
    empty(server)


def empty(server: AwsServer) -> None:
    """Names are no other test's, and what one left is not found by the next."""
    told = server.ec2.describe_instances()["Reservations"]
    there = [one for each in told for one in each["Instances"] if one["State"]["Name"] != "terminated"]
    for one in there:
        server.ec2.modify_instance_attribute(InstanceId=one["InstanceId"], DisableApiTermination={"Value": False})
    if there:
        server.ec2.terminate_instances(InstanceIds=[one["InstanceId"] for one in there])
    for image in server.ec2.describe_images(Owners=["self"])["Images"]:
        if image["Name"] != "base":  # that of which the instances are made
            server.ec2.deregister_image(ImageId=image["ImageId"])
    for snapshot in server.leftovers().snapshots:
        server.ec2.delete_snapshot(SnapshotId=snapshot)


@pytest.fixture
def settings(aws: AwsServer) -> dict[str, Any]:
    return aws.settings()


@pytest.fixture
def provider(settings: dict[str, Any]) -> Iterator[AwsProvider]:
    opened = AwsProvider(settings)
    yield opened
    opened.close()
