# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose requests they are, as the service sees it: keys, signatures, connection strings and identities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from rigs.azurite import AzuriteServer, azurite
from rigs.entra import CLIENT, SECRET, TENANT, Entra, entra
from rigs.fault_proxy import Fault, FaultProxy
from rigs.nbd import certificates

from .azure_wire import EVERY_KIND, exercise, kind_of, sent_with
from .store_rigs import AzureRig

PRINCIPAL = {"client_id": CLIENT, "secret": SECRET, "tenant": TENANT}
TRUSTED = {"disable_instance_discovery": True}


@pytest.fixture
def proxy(azure_proxy: FaultProxy) -> FaultProxy:
    azure_proxy.reset()
    return azure_proxy


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CLIENT_ID", "CLIENT_SECRET", "TENANT_ID", "AUTHORITY_HOST", "FEDERATED_TOKEN_FILE"):
        monkeypatch.delenv(f"AZURE_{name}", raising=False)
    for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "AZURE_TOKEN_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))


def test_an_account_key_signs_every_request_for_its_account(azure: AzureRig, proxy: FaultProxy) -> None:
    exercise(azure.open(endpoint_url=azure.endpoint_url))
    for values in sent_with(proxy.requests, "authorization").values():
        assert {value.partition(":")[0] for value in values} == {f"SharedKey {azure.server.account}"}


def test_an_account_at_an_address_of_another_form_is_named_by_account_name(azure: AzureRig, proxy: FaultProxy) -> None:
    """Some servers have the account in the host's name, whatever that is."""
    store = azure.open(endpoint_url=proxy.endpoint_url, account_name="another")
    with pytest.raises(VmferryError):
        store.put("vm/a", b"x")
    assert proxy.requests[0].headers["authorization"].startswith("SharedKey another:")


@pytest.mark.parametrize("mark", ["", "?"])
def test_a_sas_goes_with_every_request_and_nothing_else_does(azure: AzureRig, proxy: FaultProxy, mark: str) -> None:
    sas = azure.sas["rcwdl"]
    exercise(azure.open(endpoint_url=azure.endpoint_url, account_key=None, sas_token=f"{mark}{sas}"))
    signature = sas.partition("sig=")[2]
    assert {kind_of(request) for request in proxy.requests if signature in request.target} == EVERY_KIND
    assert all(signature in request.target for request in proxy.requests)
    assert sent_with(proxy.requests, "authorization") == {kind: {""} for kind in EVERY_KIND}


def test_a_connection_string_is_enough(azure: AzureRig, proxy: FaultProxy) -> None:
    text = f"AccountName={azure.server.account};AccountKey={azure.server.key};BlobEndpoint={azure.endpoint_url}"
    exercise(azure.open(endpoint_url=None, account_key=None, connection_string=text))
    assert {kind_of(request) for request in proxy.requests} == EVERY_KIND


def test_a_connection_string_that_is_none_is_not_repeated(azure: AzureRig) -> None:
    with pytest.raises(VmferryError) as raised:
        azure.open(endpoint_url=None, account_key=None, connection_string="hunter2")
    error = raised.value
    assert error.kind == "invalid_config"
    assert "hunter2" not in f"{error} {error.hint} {error.__cause__}"


def test_a_token_is_never_sent_in_the_clear(azure: AzureRig, proxy: FaultProxy) -> None:
    with pytest.raises(VmferryError) as raised:
        azure.open(endpoint_url=azure.endpoint_url, account_key=None, **PRINCIPAL)
    assert raised.value.kind == "invalid_config"
    assert proxy.requests == []


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def secured(pki: Path) -> Iterator[AzuriteServer]:
    """That takes tokens; over TLS only, as Azure does."""
    tls = (f"--cert={pki / 'server-cert.pem'}", f"--key={pki / 'server-key.pem'}")
    with azurite("--oauth=basic", *tls, scheme="https", host="localhost") as server:
        from azure.storage.blob import BlobServiceClient

        credential = {"account_name": server.account, "account_key": server.key}
        client = BlobServiceClient(server.endpoint_url, credential, connection_verify=str(pki / "ca-cert.pem"))
        client.create_container("exports")
        yield server


@pytest.fixture
def authority(pki: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Entra]:
    with entra(pki) as service:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        yield service


def by_identity(server: AzuriteServer, pki: Path, **settings: Any) -> Store:
    given = {"endpoint_url": server.endpoint_url, "ca_path": str(pki / "ca-cert.pem"), **settings}
    return open_store("azblob://exports/vms", given)


def test_a_service_principal_gets_a_token_with_its_secret(secured: AzuriteServer, pki: Path, authority: Entra) -> None:
    exercise(by_identity(secured, pki, **PRINCIPAL, **TRUSTED))
    (asked,) = authority.asked  # once, for all requests
    assert asked["path"] == f"/{TENANT}/oauth2/v2.0/token"
    assert (asked["client_id"], asked["client_secret"]) == (CLIENT, SECRET)
    assert "https://storage.azure.com/.default" in asked["scope"]


def test_a_wrong_secret_of_a_service_principal_is_told_and_not_repeated(
    secured: AzuriteServer, pki: Path, authority: Entra
) -> None:
    store = by_identity(secured, pki, **{**PRINCIPAL, "secret": "hunter2"}, **TRUSTED)
    with pytest.raises(VmferryError) as raised:
        store.put("vm/a", b"x")
    error = raised.value
    assert (error.kind, error.retryable) == ("unauthenticated", False)
    assert "gave no token" in error.message
    assert "secret" in error.hint
    assert "hunter2" not in f"{error} {error.hint} {error.__cause__}"


@pytest.mark.usefixtures("authority")
def test_without_its_being_said_an_authority_of_ones_own_is_not_trusted(
    secured: AzuriteServer, pki: Path, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.endpoint_url)
    monkeypatch.setenv("NO_PROXY", "localhost")
    proxy.fail_always(Fault(answer=403))  # as far as a request gets that must not leave this machine
    with pytest.raises(VmferryError):
        by_identity(secured, pki, **PRINCIPAL).put("vm/a", b"x")
    assert {request.target for request in proxy.requests} == {"login.microsoftonline.com:443"}, "who knows them all"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Entra]:
    """As Azure's app and container services give tokens to what runs in them."""
    with entra(None) as service:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{service.port}/token")
        monkeypatch.setenv("IDENTITY_HEADER", "of this machine")
        yield service


@pytest.mark.parametrize("source", [{}, {"auth_source": "msi"}])
def test_the_managed_identity_of_the_machine_is_used_when_nothing_else_is_given(
    secured: AzuriteServer, pki: Path, machine: Entra, source: dict[str, str]
) -> None:
    exercise(by_identity(secured, pki, **source))
    assert {asked["resource"] for asked in machine.asked} == {"https://storage.azure.com"}
    assert not any("client_id" in asked for asked in machine.asked)


@pytest.mark.parametrize("source", [{}, {"auth_source": "msi"}])
def test_one_of_several_managed_identities_is_chosen_by_its_client_id(
    secured: AzuriteServer, pki: Path, machine: Entra, source: dict[str, str]
) -> None:
    by_identity(secured, pki, client_id=CLIENT, **source).put("vm/a", b"x")
    assert {asked["client_id"] for asked in machine.asked} == {CLIENT}


@pytest.mark.parametrize(("source", "by_environment"), [("auto", 1), ("msi", 0)])
def test_msi_looks_no_further_and_auto_begins_with_the_environment(
    secured: AzuriteServer,
    pki: Path,
    machine: Entra,
    authority: Entra,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    by_environment: int,
) -> None:
    for name, value in (("CLIENT_ID", CLIENT), ("CLIENT_SECRET", SECRET), ("TENANT_ID", TENANT)):
        monkeypatch.setenv(f"AZURE_{name}", value)
    by_identity(secured, pki, auth_source=source, **TRUSTED).put("vm/a", b"x")
    assert (len(authority.asked), len(machine.asked)) == (by_environment, 1 - by_environment)


def test_who_is_logged_in_to_azures_command_line_is_asked_for_by_name(
    secured: AzuriteServer, pki: Path, monkeypatch: pytest.MonkeyPatch, machine: Entra, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # where there is none
    with pytest.raises(VmferryError) as raised:
        by_identity(secured, pki, auth_source="cli").put("vm/a", b"x")
    assert (raised.value.kind, raised.value.retryable) == ("unauthenticated", False)
    assert "no credentials were found" in raised.value.message
    assert machine.asked == []
