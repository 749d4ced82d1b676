# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Of EC2, botocore reads what an export calls, and the rest when something else is called."""

from __future__ import annotations

import boto3

from ansible_collections.vmferry.migrate.plugins.module_utils._aws.models import Models
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.asking import _PAGED
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.session import FEW, Session
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.settings import AwsSettings
from rigs.aws import AwsServer


def test_what_an_export_calls_is_known_first_and_the_rest_as_soon_as_it_is_called(aws: AwsServer) -> None:
    session = Session(AwsSettings.from_options(aws.settings()))
    client = session.client("ec2")
    model = client.meta.service_model
    assert sorted(model.operation_names) == sorted(FEW)
    assert len(model.shape_names) < 1000, "EC2 has some thousands"
    vm = aws.make_instance("known", [b""])
    told = client.describe_instances(InstanceIds=[vm])["Reservations"]
    assert [one["InstanceId"] for each in told for one in each["Instances"]] == [vm]
    assert sorted(client.meta.service_model.operation_names) == sorted(FEW)
    assert client.describe_regions()["Regions"], "which no export calls"
    assert len(client.meta.service_model.operation_names) > 500
    assert client is session.client("ec2")
    session.close()


def test_what_is_read_in_pages_is_known_whether_an_export_reads_it_or_not(aws: AwsServer) -> None:
    session = Session(AwsSettings.from_options(aws.settings()))
    client = session.client("ec2")
    of_exports = ("describe_instances", "describe_volumes", "describe_snapshots")
    assert all(client.can_paginate(operation) and client.get_paginator(operation) for operation in of_exports)
    assert sorted(client.meta.service_model.operation_names) == sorted(FEW)
    plain = boto3.client("ec2", region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")
    paged = {operation for operation in _PAGED if plain.can_paginate(operation)}
    assert paged > set(of_exports)
    assert {operation for operation in _PAGED if client.can_paginate(operation)} == paged
    assert all(client.get_paginator(operation) for operation in paged)
    session.close()


def test_every_shape_that_an_operation_names_is_there() -> None:
    import botocore.session

    core = botocore.session.Session()
    core.register_component("data_loader", Models({"ec2": FEW}).of(core))
    client = boto3.Session(botocore_session=core, aws_access_key_id="a", aws_secret_access_key="b").client(
        "ec2", region_name="eu-west-1"
    )
    wanted = [
        getattr(client.meta.service_model.operation_model(name), way)
        for name in FEW
        for way in ("input_shape", "output_shape")
    ]
    seen = set()
    while wanted:
        shape = wanted.pop()
        if shape is not None and shape.name not in seen:
            seen.add(shape.name)
            below = {"structure": "members", "list": "member", "map": "value"}.get(shape.type_name)
            found = getattr(shape, below) if below else []
            wanted += found.values() if isinstance(found, dict) else [found] if below else []
    assert seen == set(client.meta.service_model.shape_names)


def test_the_description_of_a_service_is_read_once_for_all_sessions() -> None:
    import botocore.session

    found = []
    for _time in range(2):
        core = botocore.session.Session()
        core.register_component("data_loader", Models().of(core))
        found.append(core.get_component("data_loader").load_service_model("ebs", "service-2"))
    assert found[0] is found[1]
