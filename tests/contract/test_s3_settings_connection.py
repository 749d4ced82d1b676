# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the bucket is named in a request, and how long a connection may take."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from rigs.fault_proxy import Fault, FaultProxy
from rigs.seaweedfs import DOMAIN

from .s3_wire import exercise
from .store_rigs import S3Rig


@pytest.fixture
def proxy(s3_proxy: FaultProxy) -> FaultProxy:
    s3_proxy.reset()
    return s3_proxy


@pytest.fixture
def endpoint_url(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> str:
    """By name, since below an address there are no hosts; what is below that name is on loopback, too."""
    resolve = socket.getaddrinfo

    def resolve_ours(host: Any, *arguments: Any, **named: Any) -> Any:
        ours = isinstance(host, str) and (host == DOMAIN or host.endswith(f".{DOMAIN}"))
        return resolve("127.0.0.1" if ours else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_ours)
    return f"http://{DOMAIN}:{proxy.port}"


def test_virtual_names_the_bucket_in_the_host(s3: S3Rig, proxy: FaultProxy, endpoint_url: str) -> None:
    exercise(s3.open(endpoint_url=endpoint_url, addressing_style="virtual"))
    assert {request.headers["host"] for request in proxy.requests} == {f"{s3.bucket}.{DOMAIN}:{proxy.port}"}
    assert not any(s3.bucket in request.target for request in proxy.requests)


@pytest.mark.parametrize("style", ["path", "auto"])
def test_path_names_the_bucket_in_the_path_and_so_does_auto_at_an_endpoint(
    s3: S3Rig, proxy: FaultProxy, endpoint_url: str, style: str
) -> None:
    exercise(s3.open(endpoint_url=endpoint_url, addressing_style=style))
    assert {request.headers["host"] for request in proxy.requests} == {f"{DOMAIN}:{proxy.port}"}
    assert all(request.target.startswith(f"/{s3.bucket}") for request in proxy.requests)


@pytest.mark.parametrize(
    ("style", "host"),
    [
        ("auto", "{bucket}.s3.eu-central-1.amazonaws.com:443"),
        ("virtual", "{bucket}.s3.eu-central-1.amazonaws.com:443"),
        ("path", "s3.eu-central-1.amazonaws.com:443"),
    ],
)
def test_at_aws_auto_names_the_bucket_in_the_host(
    s3: S3Rig, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, style: str, host: str
) -> None:
    for name in ("NO_PROXY", "no_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy.endpoint_url)
    proxy.fail_always(Fault(answer=403))  # as far as a request gets that must not leave this machine
    with pytest.raises(VmferryError):
        s3.open(endpoint_url=None, region="eu-central-1", addressing_style=style).put("vm/a", b"x")
    assert [(request.method, request.target) for request in proxy.requests] == [
        ("CONNECT", host.format(bucket=s3.bucket))
    ]


def test_an_endpoint_with_the_bucket_in_its_path_is_the_same_store(s3: S3Rig, proxy: FaultProxy) -> None:
    settings = {**s3.server.settings, "type": "s3", "endpoint_url": "http://not.asked.invalid"}
    store = open_store(f"{proxy.endpoint_url}/{s3.bucket}/by%20url", settings)
    store.put("vm/a", b"x")
    assert store.url == f"s3://{s3.bucket}/by url"
    assert open_store(store.url, s3.server.settings).get("vm/a") == b"x"
    assert proxy.requests


def test_an_endpoint_without_a_bucket_is_refused(s3: S3Rig, proxy: FaultProxy) -> None:
    with pytest.raises(VmferryError) as raised:
        open_store(proxy.endpoint_url, {**s3.server.settings, "type": "s3"})
    assert (raised.value.kind, "bucket" in raised.value.message) == ("invalid_config", True)
