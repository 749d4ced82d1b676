# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GetSnapshotBlock by the short way is what the SDK would send, and what it cannot read is left to the SDK."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws import block_requests
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.block_requests import BlockRequests
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.session import Session
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.settings import AwsSettings
from engine.aws.exports import block, disk
from rigs.aws import AwsServer
from rigs.aws.blocks import BLOCK

TOKEN = "AAI+/x=="


@pytest.fixture
def session(aws: AwsServer) -> Iterator[Session]:
    opened = Session(AwsSettings.from_options(aws.settings()))
    yield opened
    opened.close()


@pytest.fixture
def taken(aws: AwsServer) -> tuple[str, list[str]]:
    """A snapshot of two blocks, and their tokens."""
    instance = aws.make_instance("disk", [disk(1, 2)])
    (volume,) = aws.volumes(instance).values()
    snapshot = aws.ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    aws.ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot], WaiterConfig={"Delay": 0.1})
    listed = aws.client("ebs").list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]
    return snapshot, [one["BlockToken"] for one in listed]


class Line:
    """In the place of the SDK's connections: nobody answers, and what was sent is remembered."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, request: Any) -> Any:
        from botocore.exceptions import EndpointConnectionError

        self.sent.append(request)
        raise EndpointConnectionError(endpoint_url=request.url)


def text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.parametrize(("more", "slash"), [({}, ""), ({"session_token": "a token of a session"}, ""), ({}, "/")])
def test_it_sends_what_the_sdk_sends(aws: AwsServer, more: dict[str, str], slash: str) -> None:
    given = aws.settings()
    session = Session(AwsSettings.from_options({**given, "endpoint_url": f"{given['endpoint_url']}{slash}", **more}))
    client, line, by_sdk = session.client("ebs"), Line(), []

    class Sent(Exception):
        pass

    def remember(request: Any, **_more: Any) -> None:
        by_sdk.append(request)
        raise Sent

    client.meta.events.register("before-send.ebs.GetSnapshotBlock", remember)
    with pytest.raises(Sent):
        client.get_snapshot_block(SnapshotId="snap-1", BlockIndex=7, BlockToken=TOKEN)
    client._endpoint.http_session = line
    assert BlockRequests(session).ask("snap-1", 7, TOKEN, bytearray(BLOCK)) is None
    (ours,), (theirs,) = line.sent, by_sdk
    assert (ours.method, ours.url, ours.body or b"") == (theirs.method, theirs.url, theirs.body or b"")
    assert ours.stream_output
    heads = [{name.lower(): text(value) for name, value in one.headers.items()} for one in (ours, theirs)]
    signed = [head["authorization"].partition("Signature=")[0] for head in heads]
    assert signed[0] == signed[1], "the same key, day, region, service and headers"
    assert heads[0].get("x-amz-security-token") == heads[1].get("x-amz-security-token") == more.get("session_token")
    assert "vmferry" in heads[0]["user-agent"]


def test_a_block_is_read_into_the_memory_that_is_given(session: Session, taken: tuple[str, list[str]]) -> None:
    snapshot, tokens = taken
    requests, buffer = BlockRequests(session), bytearray(BLOCK)
    for index, token in enumerate(tokens):
        proof = requests.ask(snapshot, index, token, buffer)
        assert proof is not None
        assert (proof.algorithm, proof.length) == ("SHA256", BLOCK)
        assert buffer == block(index + 1)


def test_behind_a_refusal_the_sdk_alone_asks_for_a_while(
    aws: AwsServer, session: Session, taken: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It paces what it sends then, which would be in vain if others asked beside it."""
    snapshot, tokens = taken
    requests, buffer = BlockRequests(session), bytearray(BLOCK)
    aws.fault("GetSnapshotBlock", "throttle")
    for _time in range(3):
        assert requests.ask(snapshot, 0, tokens[0], buffer) is None
    assert len(aws.calls("GetSnapshotBlock")) == 1
    later = time.monotonic() + block_requests.PAUSE + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert requests.ask(snapshot, 0, tokens[0], buffer) is not None
    assert buffer == block(1)


def test_an_sdk_that_is_built_otherwise_asks_itself(
    aws: AwsServer, session: Session, taken: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.delattr(session.client("ebs"), "_endpoint")
        assert BlockRequests(session).ask(taken[0], 0, taken[1][0], bytearray(BLOCK)) is None
    assert not aws.calls("GetSnapshotBlock")
