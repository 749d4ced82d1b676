# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom the provider trusts, what it says where it cannot connect, and what it does when a session is gone."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.describe_vms import describe_vms
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere import session
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.provider import VsphereProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.settings import VsphereSettings
from rigs.black_hole import black_hole
from rigs.connect_proxy import ConnectProxy
from rigs.ports import free_port
from rigs.vsphere import VSphere
from rigs.vsphere.certificates import Authority

pytestmark = pytest.mark.slow
NAME = "of-the-connection"


def names(settings: dict[str, Any]) -> list[str]:
    return [vm["name"] for vm in describe_vms(ProviderSpec("vsphere", settings), None, {})["vms"]]


def wait_for(happened: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def refusal(settings: dict[str, Any]) -> VmferryError:
    with pytest.raises(VmferryError) as refused:
        names(settings)
    return refused.value


@pytest.fixture(scope="module", autouse=True)
def machine(server: VSphere) -> str:
    return server.make_vm(NAME)


@pytest.fixture
def proxy(server: VSphere) -> Iterator[ConnectProxy]:
    with ConnectProxy((server.host, server.port)) as started:
        yield started


@pytest.fixture
def by_proxy(settings: dict[str, Any], proxy: ConnectProxy) -> dict[str, Any]:
    return {**settings, "port": 443, "proxy_host": "127.0.0.1", "proxy_port": proxy.port}


def test_right_thumbprint_is_trusted_and_the_session_ended(vcenter: VSphere, settings: dict[str, Any]) -> None:
    assert NAME in names(settings)
    made = [call.method for call in vcenter.calls()]
    assert (made.count("Login"), made[-1]) == (1, "Logout")
    assert vcenter.leftovers().sessions == 0


@pytest.mark.parametrize("validate_certs", [True, False])
def test_another_certificate_than_the_pinned_is_refused_before_the_first_call(
    vcenter: VSphere, settings: dict[str, Any], validate_certs: bool
) -> None:
    refused = refusal({**settings, "thumbprint": "0" * 64, "validate_certs": validate_certs})
    assert (refused.kind, refused.retryable) == ("network", False)
    offered = ":".join(vcenter.thumbprint[at : at + 2] for at in range(0, 64, 2)).upper()
    assert f"{offered}, not the one that is pinned" in refused.message
    assert vcenter.calls() == []


def test_right_authority_is_trusted(vcenter: VSphere, settings: dict[str, Any]) -> None:
    assert NAME in names({**settings, "thumbprint": "", "ca_path": str(vcenter.certificate)})


def test_an_authority_that_did_not_sign_is_refused_with_what_to_do(
    vcenter: VSphere, settings: dict[str, Any], tmp_path: Any
) -> None:
    for untrusting in ({}, {"ca_path": str(Authority(tmp_path).path)}):
        refused = refusal({**settings, "thumbprint": "", **untrusting})
        assert (refused.kind, refused.retryable) == ("network", False)
        assert f"the certificate of {vcenter.host}:{vcenter.port} was not accepted" in refused.message
        assert "vsphere.ca_path" in refused.hint
        assert "vsphere.thumbprint" in refused.hint
        assert f"-connect {vcenter.host}:{vcenter.port} " in refused.hint
    assert vcenter.calls() == []


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_this_machine_is_trusted_no_more_than_others(
    vcenter: VSphere, by_proxy: dict[str, Any], proxy: ConnectProxy, name: str
) -> None:
    by_proxy["hostname"] = name
    assert refusal({**by_proxy, "thumbprint": ""}).kind == "network"
    assert refusal({**by_proxy, "thumbprint": "0" * 64}).kind == "network"
    assert vcenter.calls() == []
    assert NAME in names({**by_proxy, "thumbprint": "", "ca_path": str(vcenter.certificate)})
    assert set(proxy.asked) == {f"{name}:443"}


def test_certificate_must_be_made_for_the_name_unless_it_is_pinned(vcenter: VSphere, by_proxy: dict[str, Any]) -> None:
    by_authority = {**by_proxy, "thumbprint": "", "ca_path": str(vcenter.certificate)}
    assert NAME in names({**by_authority, "hostname": "vcenter.test"})
    refused = refusal({**by_authority, "hostname": "other.test"})
    assert refused.kind == "network"
    assert "other.test" in refused.message
    assert NAME in names({**by_proxy, "hostname": "other.test"})


def test_no_certificate_is_looked_at_only_where_that_is_asked(vcenter: VSphere, settings: dict[str, Any]) -> None:
    assert NAME in names({**settings, "thumbprint": "", "validate_certs": False})


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_authorities_that_cannot_be_read_are_told(settings: dict[str, Any], tmp_path: Any, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    refused = refusal({**settings, "thumbprint": "", "ca_path": str(path)})
    assert refused.kind == "invalid_config"
    assert str(path) in refused.message


def test_bad_password_is_told_without_it(
    vcenter: VSphere, settings: dict[str, Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "wr0ng & secret"
    refused = refusal({**settings, "password": wrong})
    assert (refused.kind, refused.retryable) == ("unauthenticated", False)
    assert "vsphere.password" in refused.hint
    trace = traceback.format_exception(type(refused), refused, refused.__traceback__)
    told = [*trace, json.dumps(refused.as_result()), caplog.text, *capfd.readouterr()]
    assert wrong not in "".join(told)
    assert vcenter.leftovers().sessions == 0


def test_password_is_in_no_representation(settings: dict[str, Any]) -> None:
    parsed = VsphereSettings.from_options(settings)
    provider = VsphereProvider(settings)
    told = f"{parsed!r} {provider!r} {vars(provider)!r} {ProviderSpec('vsphere', settings)!r} {provider.account}"
    assert settings["password"] not in told


def test_password_is_in_no_result(settings: dict[str, Any]) -> None:
    found = describe_vms(ProviderSpec("vsphere", settings), [NAME], {})
    assert found["vms"][0]["name"] == NAME
    assert settings["password"] not in json.dumps(found)


def test_nobody_there_is_told(settings: dict[str, Any]) -> None:
    refused = refusal({**settings, "port": free_port()})
    assert (refused.kind, refused.retryable) == ("network", True)
    assert "refused" in refused.message.lower()


def test_a_name_that_nobody_has_is_told(settings: dict[str, Any]) -> None:
    assert refusal({**settings, "hostname": "vcenter.invalid"}).kind == "network"


def test_a_server_that_does_not_answer_is_not_waited_for_without_end(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "CALL_LIMIT", 0.3)
    with black_hole() as port:
        refused = refusal({**settings, "hostname": "127.0.0.1", "port": port})
    assert (refused.kind, refused.retryable) == ("timeout", True)


def test_an_answer_that_takes_too_long_is_a_timeout(
    vcenter: VSphere, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "CALL_LIMIT", 1)
    vcenter.fault("RetrievePropertiesEx", "delay", seconds=3)
    assert refusal(settings).kind == "timeout"


def test_a_server_that_is_none_of_vsphere_is_told(vcenter: VSphere, settings: dict[str, Any]) -> None:
    vcenter.fault("RetrieveServiceContent", "status", status=404, times=-1)
    refused = refusal(settings)
    assert refused.kind == "network"
    assert "404" in refused.message


def test_session_that_the_server_ended_is_begun_again(vcenter: VSphere, provider: VsphereProvider) -> None:
    moref = provider.describe(NAME).details["moref"]
    vcenter.expire_sessions()
    assert provider.describe(moref).name == NAME
    assert len(vcenter.calls("Login")) == 2


def test_sessions_that_end_all_the_time_are_told(vcenter: VSphere, provider: VsphereProvider) -> None:
    provider.describe(NAME)
    vcenter.settings(calls_per_session=1)
    with pytest.raises(VmferryError) as refused:
        provider.vms()
    assert refused.value.kind == "unauthenticated"


def test_a_connection_that_broke_is_made_again_for_what_changes_nothing(
    vcenter: VSphere, provider: VsphereProvider
) -> None:
    provider.describe(NAME)
    vcenter.forget_calls()
    vcenter.fault("RetrievePropertiesEx", "drop")
    assert NAME in [vm.name for vm in provider.vms()]
    ended = [call.ended for call in vcenter.calls("RetrievePropertiesEx")]
    assert (ended.count("dropped"), ended.count("")) == (1, 1)  # a call that another test gave up may end only now


def test_session_is_kept_alive_while_nothing_is_asked(
    vcenter: VSphere, provider: VsphereProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "KEEP_ALIVE", 0.05)
    provider.describe(NAME)
    asked = len(vcenter.calls("CurrentTime"))
    wait_for(lambda: len(vcenter.calls("CurrentTime")) >= asked + 2)


def test_a_session_that_ended_while_it_was_kept_alive_is_begun_again(
    vcenter: VSphere, provider: VsphereProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "KEEP_ALIVE", 0.05)
    provider.describe(NAME)
    vcenter.expire_sessions()
    wait_for(lambda: len(vcenter.calls("Login")) >= 2)
    assert provider.describe(NAME).name == NAME


def test_nobody_keeps_a_closed_session_or_begins_it_again(
    vcenter: VSphere, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "KEEP_ALIVE", 0.01)
    vcenter.fault("CurrentTime", "delay", seconds=0.2, times=-1)  # one is under way when it is closed
    begun = session.Session(VsphereSettings.from_options(settings))
    begun.read("Connecting", lambda _content: None)
    wait_for(lambda: bool(vcenter.calls("CurrentTime")))
    begun.close()
    assert not begun._keeper.is_alive()
    made = [call.method for call in vcenter.calls()]
    assert (made.count("Login"), made[-1]) == (1, "Logout")
    with pytest.raises(VmferryError, match="was closed already"):
        begun.read("Connecting", lambda _content: None)
    with pytest.raises(VmferryError, match="was closed already"):
        begun._log_in_again(1)
    assert vcenter.leftovers().sessions == 0


def test_first_call_is_one_that_the_oldest_server_understands(vcenter: VSphere, settings: dict[str, Any]) -> None:
    names(settings)
    spoken = [call.version for call in vcenter.calls()]
    assert spoken[0] == "vim25/6.5"
    assert spoken[1] != spoken[0], "then as the server does"
