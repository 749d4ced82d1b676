# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Azure over TLS, with an authority of our own: trusted when it is named, refused in plain words otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from rigs.fault_proxy import FaultProxy
from rigs.nbd import certificates
from rigs.tls_front import TlsFront, tls_front

from .azure_wire import exercise
from .store_rigs import AzureRig


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def front(azure_proxy: FaultProxy, pki: Path) -> Iterator[TlsFront]:
    with tls_front(azure_proxy.port, pki) as front:
        yield front


@pytest.fixture
def proxy(azure_proxy: FaultProxy) -> FaultProxy:
    azure_proxy.reset()
    return azure_proxy


@pytest.fixture
def address(azure: AzureRig, front: TlsFront, proxy: FaultProxy) -> str:
    return f"https://localhost:{front.port}/{azure.server.account}"


def refused(store: Store) -> VmferryError:
    with pytest.raises(VmferryError) as raised:
        store.put("vm/a", b"x")
    assert not raised.value.retryable
    return raised.value


def test_an_authority_of_ones_own_is_trusted_when_ca_path_names_it(azure: AzureRig, address: str, pki: Path) -> None:
    exercise(azure.open(endpoint_url=address, ca_path=str(pki / "ca-cert.pem")))


def test_an_unknown_authority_is_refused_and_the_hint_names_ca_path(
    azure: AzureRig, address: str, proxy: FaultProxy
) -> None:
    error = refused(azure.open(endpoint_url=address))
    assert (error.kind, "certificate" in error.message, "ca_path" in error.hint) == ("network", True, True)
    assert proxy.requests == []


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_without_validate_certs_any_certificate_will_do(azure: AzureRig, address: str, pki: Path) -> None:
    exercise(azure.open(endpoint_url=address, validate_certs=False))
    exercise(azure.open(endpoint_url=address, validate_certs=False, ca_path=str(pki / "none")))


def test_a_certificate_for_another_name_is_refused_whoever_signed_it(
    azure: AzureRig, front: TlsFront, proxy: FaultProxy, pki: Path
) -> None:
    address = f"https://127.0.0.1:{front.port}/{azure.server.account}"
    error = refused(azure.open(endpoint_url=address, ca_path=str(pki / "ca-cert.pem")))
    assert (error.kind, "another host name" in error.message) == ("network", True)
    assert proxy.requests == []


@pytest.mark.parametrize("content", [None, "these are no certificates"])
def test_a_ca_path_that_cannot_be_used_is_named(
    azure: AzureRig, address: str, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(VmferryError) as raised:
        azure.open(endpoint_url=address, ca_path=str(path))
    assert raised.value.kind == "invalid_config"
    assert f"ca_path {path}" in raised.value.message
