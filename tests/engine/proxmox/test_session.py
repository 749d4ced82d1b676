# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The session with the API: who it is, what it does when the way is bad, and tasks followed to their ends."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox import tasks
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.session import Session
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.settings import ProxmoxSettings
from rigs.ports import free_port
from rigs.proxmox import ProxmoxServer

STATUS = "/nodes/{node}/tasks/{upid}/status"


def opened(settings: dict[str, Any], **changes: Any) -> Session:
    return Session(ProxmoxSettings.from_options({**settings, **changes}))


def refused(session: Session, doing: str = "Asking for the version") -> VmferryError:
    with pytest.raises(VmferryError) as caught, session.doing(doing):
        session.get("version")
    assert caught.value.message.startswith(f"{doing} failed: ")
    return caught.value


@pytest.mark.parametrize("token", [True, False])
def test_a_token_or_a_password_opens_it(cluster: ProxmoxServer, token: bool) -> None:
    session = opened(cluster.settings(token=token))
    assert session.get("version")["release"] == "9.0"
    session.close()
    with pytest.raises(VmferryError, match="closed already"):
        session.get("version")


def test_a_wrong_password_and_a_wrong_token_are_told_with_whom_they_are_of(cluster: ProxmoxServer) -> None:
    by_password = refused(opened(cluster.settings(token=False), api_password="wrong"))
    by_token = refused(opened(cluster.settings(), api_token_secret="wrong"))
    assert (by_password.kind, by_token.kind) == ("unauthenticated", "unauthenticated")
    assert "root@pam" in by_password.message
    assert "api_user" in by_token.hint
    assert "wrong" not in by_password.message + by_token.message


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_a_certificate_of_nobody_we_trust_is_refused_unless_the_task_says_so(cluster: ProxmoxServer) -> None:
    error = refused(opened(cluster.settings(), ca_path=None))
    assert (error.kind, error.retryable) == ("network", False)
    assert "certificate was not accepted (self" in error.message, "which OpenSSL says"
    assert "pve-root-ca.pem" in error.hint
    assert opened(cluster.settings(), ca_path=None, validate_certs=False).get("version")


def test_nobody_there_is_a_network_error_that_may_pass(cluster: ProxmoxServer) -> None:
    error = refused(opened(cluster.settings(), api_port=free_port()))
    assert (error.kind, error.retryable, "Connection refused" in error.message) == ("network", True, True)


@pytest.mark.parametrize("token", [True, False])
def test_every_call_waits_as_long_as_the_task_says(
    cluster: ProxmoxServer, monkeypatch: pytest.MonkeyPatch, token: bool
) -> None:
    import requests

    waits: list[Any] = []
    send = requests.Session.send
    monkeypatch.setattr(
        requests.Session, "send", lambda *given, **how: waits.append(how["timeout"]) or send(*given, **how)
    )
    opened(cluster.settings(token=token), api_timeout=90).get("version")
    assert set(waits) == {90}


def test_a_ticket_that_has_run_out_is_renewed_by_the_password(cluster: ProxmoxServer) -> None:
    session = opened(cluster.settings(token=False))
    session.get("version")
    cluster.fault("GET", "/version", "expired")
    assert session.get("version")


def test_a_token_that_was_taken_away_is_asked_for_once(cluster: ProxmoxServer) -> None:
    session = opened(cluster.settings())
    session.get("version")
    cluster.fault("GET", "/version", "refuse", status=401, message="no such token", times=2)
    cluster.forget_calls()
    assert refused(session).kind == "unauthenticated"
    assert [call["path"] for call in cluster.calls()] == ["/version"]


def test_a_look_is_repeated_once_where_the_line_was_cut(cluster: ProxmoxServer, session: Session) -> None:
    for kind in ("reset", "lose_answer"):
        cluster.fault("GET", "/version", kind)
        assert session.get("version")
    cluster.fault("GET", "/version", "reset", times=2)
    assert refused(session).kind == "network"


def test_what_changes_something_is_not_repeated(cluster: ProxmoxServer, session: Session) -> None:
    vmid = cluster.make_vm("web01", disks=())
    cluster.fault("POST", "/nodes/{node}/qemu/{vmid}/snapshot", "lose_answer")
    cluster.forget_calls()
    with pytest.raises(VmferryError) as caught, session.doing("Making one"):
        session.post(f"nodes/{cluster.node}/qemu/{vmid}/snapshot", snapname="one")
    assert caught.value.kind == "network"
    assert len([call for call in cluster.calls() if call["method"] == "POST"]) == 1


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"hello": 1}', b'{"data": null}'])
@pytest.mark.parametrize("token", [True, False])
def test_a_server_that_is_no_proxmox_is_told(
    cluster: ProxmoxServer, monkeypatch: pytest.MonkeyPatch, body: bytes, token: bool
) -> None:
    import requests

    def answer(_session: Any, request: Any, **_given: Any) -> Any:
        response = requests.Response()
        response.status_code, response._content, response.url = 200, body, request.url
        return response

    monkeypatch.setattr(requests.Session, "send", answer)
    session = opened(cluster.settings(token=token))
    if body == b'{"data": null}' and token:
        assert session.get("version") is None
        return
    error = refused(session)
    assert (error.kind, error.retryable) == ("network", False)
    assert "does not answer as Proxmox VE does" in error.message


def test_the_site_is_the_same_by_token_and_password_and_whoever_asks(cluster: ProxmoxServer) -> None:
    site = opened(cluster.settings()).site
    assert site
    assert opened(cluster.settings(token=False)).site == site


AUTHORITY = "/CN=Proxmox Virtual Environment/OU=76ca2a19-7f3e-4c6b-9a2e-0d1c2b3a4f5e/O=PVE Cluster Manager CA"


def test_the_site_is_known_by_the_clusters_own_authority(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes that were never renamed are both called pve."""
    told = [
        {"filename": "pve-root-ca.pem", "subject": AUTHORITY},
        {"filename": "pve-ssl.pem", "subject": "/OU=PVE Cluster Node/CN=pve"},
    ]
    get = session.get
    monkeypatch.setattr(session, "get", lambda path, **given: told if "certificates" in path else get(path, **given))
    assert session.site == "76ca2a19-7f3e-4c6b-9a2e-0d1c2b3a4f5e"


def test_who_may_not_ask_for_the_clusters_name_is_told_its_address(cluster: ProxmoxServer) -> None:
    said = "Permission check failed (/, Sys.Audit)"
    cluster.fault("GET", "/cluster/status", "refuse", status=403, message=said)
    session = opened(cluster.settings())
    assert session.site == session.address


# --- tasks -----------------------------------------------------------------------------------------------------------


def start(session: Session, cluster: ProxmoxServer, vmid: int) -> Any:
    return lambda: session.post(f"nodes/{cluster.node}/qemu/{vmid}/status/start")


def test_a_task_that_fails_is_told_with_what_it_ended_with(cluster: ProxmoxServer, session: Session) -> None:
    vmid = cluster.make_vm("web01")
    cluster.fault("POST", "/nodes/{node}/qemu/{vmid}/status/start", "task", message="VM is locked (backup)")
    with pytest.raises(VmferryError) as caught:
        session.run("Starting web01", start(session, cluster, vmid), 60)
    assert (caught.value.kind, "Starting web01 failed: VM is locked (backup)." in caught.value.message) == (
        "busy",
        True,
    )


def test_a_task_that_takes_too_long_is_told_with_its_id(cluster: ProxmoxServer, session: Session) -> None:
    vmid = cluster.make_vm("web01")
    cluster.fault("GET", STATUS, "refuse", status=595, message="No route to host", times=-1)
    with pytest.raises(VmferryError) as caught:
        session.run("Starting web01", start(session, cluster, vmid), 0.3)
    assert (caught.value.kind, "UPID:" in caught.value.hint) == ("timeout", True)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "refuse", "status": 500, "message": "no such task"},
        {"kind": "refuse", "status": 595, "message": "No route to host"},
        {"kind": "refuse", "status": 503, "message": "Service Unavailable"},
        {"kind": "reset"},
        {"kind": "lose_answer"},
    ],
    ids=lambda fault: f"{fault['kind']}-{fault.get('status', '')}",
)
def test_looks_at_a_task_that_fail_do_not_end_it(
    cluster: ProxmoxServer, session: Session, fault: dict[str, Any]
) -> None:
    vmid = cluster.make_vm("web01")
    cluster.fault("GET", STATUS, times=2, **fault)
    assert session.run("Starting web01", start(session, cluster, vmid), 60) == []
    assert cluster.vms()[vmid]["status"] == "running"


def test_a_task_that_nobody_ever_heard_of_is_given_up(
    cluster: ProxmoxServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "UNKNOWN_FOR", 0.2)
    vmid = cluster.make_vm("web01")
    cluster.fault("GET", STATUS, "refuse", message="no such task", times=-1)
    with pytest.raises(VmferryError, match="no such task"):
        session.run("Starting web01", start(session, cluster, vmid), 60)


@pytest.mark.parametrize("upid", ["", "pve1:00001", "null"])
def test_what_is_no_id_of_a_task_is_not_waited_for(session: Session, upid: str) -> None:
    with pytest.raises(VmferryError, match="no id of a task"):
        session.wait(upid, 60)


def test_warnings_of_a_task_are_told(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    log = [{"n": 1, "t": "starting"}, {"n": 2, "t": "WARN: no efidisk configured"}, {"n": 3, "t": "TASK WARNINGS: 1"}]
    told = {"status": {"status": "stopped", "exitstatus": "WARNINGS: 1"}, "log": log}
    monkeypatch.setattr(session, "get", lambda path, **_given: told[path.rpartition("/")[2]])
    upid = "UPID:pve1:00000001:00000002:00000003:qmstart:100:root@pam:"
    assert session.wait(upid, 60) == ["WARN: no efidisk configured"]
