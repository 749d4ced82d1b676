# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing leaves for a host that is not listed, also where the SDK follows a bucket into its region."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.httpsession import URLLib3Session

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from rigs.fault_proxy import Fault, FaultProxy

from .azure_rig import AzureRig

AWS = {"region": "eu-central-1", "access_key": "AKID", "secret_key": "secret"}


@pytest.fixture(params=["s3", "azure", "gcs"])
def each(request: pytest.FixtureRequest) -> Any:
    """Rigs whose stores are sent to through a proxy."""
    rig = request.getfixturevalue(request.param)
    rig.proxy.reset()
    return rig


def opened(rig: Any, allowed: list[str]) -> Store:
    endpoint = rig.proxy.endpoint_url
    return rig.open(  # type: ignore[no-any-return]
        endpoint_url=f"{endpoint}/{rig.server.account}" if isinstance(rig, AzureRig) else endpoint,
        allowed_hosts=allowed,
    )


def test_a_listed_host_is_used_as_ever(each: Any) -> None:
    store = opened(each, ["127.0.0.1"])
    store.probe("vm/p")
    store.put("vm/a", b"x")
    assert (store.get("vm/a"), [info.key for info in store.list("")]) == (b"x", ["vm/a"])
    assert each.proxy.requests


@pytest.mark.parametrize("allowed", [["localhost"], []])
def test_a_host_that_is_not_listed_sees_nothing(each: Any, allowed: list[str]) -> None:
    store = opened(each, allowed)
    for work in (lambda: store.put("vm/a", b"x"), lambda: store.probe("vm/p"), lambda: list(store.list(""))):
        with pytest.raises(VmferryError, match=r"The host 127\.0\.0\.1 is none of") as raised:
            work()
        assert (raised.value.kind, raised.value.retryable) == ("invalid_config", False)
    assert each.proxy.requests == []


def test_a_bucket_in_another_region_is_not_followed_to_a_host_that_is_not_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What AWS answers, given in the place of the network: its certificates cannot be had.
    sent: list[str] = []

    def send(self: Any, request: AWSRequest) -> AWSResponse:
        sent.append(request.url)
        return AWSResponse(request.url, 301, {"x-amz-bucket-region": "us-west-2"}, Silence())

    monkeypatch.setattr(URLLib3Session, "send", send)
    here, there = "exports.s3.eu-central-1.amazonaws.com", "exports.s3.us-west-2.amazonaws.com"
    with pytest.raises(VmferryError, match=f"The host {there} is none of"):
        open_store("s3://exports", {**AWS, "allowed_hosts": [here]}).get("a")
    assert {url.split("/")[2] for url in sent} == {here}
    sent.clear()
    with pytest.raises(VmferryError, match="another region"):
        open_store("s3://exports", {**AWS, "allowed_hosts": ["*.amazonaws.com"]}).get("a")
    assert there in {url.split("/")[2] for url in sent}, "or nothing would have been prevented"


class Silence:
    """A body without bytes."""

    def stream(self, **_unused: object) -> list[bytes]:
        return []

    def read(self, *_unused: object) -> bytes:
        return b""


def test_a_web_server_that_is_not_listed_sees_nothing_and_neither_does_where_it_redirects(
    s3_proxy: FaultProxy,
) -> None:
    s3_proxy.reset()
    s3_proxy.fail_always(Fault(answer=302, headers={"Location": "http://localhost:9/elsewhere"}))
    url = f"{s3_proxy.endpoint_url}/exports"
    try:
        with pytest.raises(VmferryError, match=r"The host 127\.0\.0\.1 is none of"):
            open_store(url, {"allowed_hosts": ["localhost"]}).get("vm/a")
        assert s3_proxy.requests == []
        with pytest.raises(VmferryError, match="The host localhost is none of"):
            open_store(url, {"allowed_hosts": ["127.0.0.1"]}).get("vm/a")
        assert len(s3_proxy.requests) == 1
    finally:
        s3_proxy.reset()
