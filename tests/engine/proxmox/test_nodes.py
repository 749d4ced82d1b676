# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes: where this process runs, and by the system's OpenSSH."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox import choose_node
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.choose_node import open_node
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.keeper import Keeper
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.local_node import LocalNode
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.node import Node
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.session import Session
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.settings import ProxmoxSettings
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.ssh_node import SshAddress, SshNode
from rigs.ports import free_port
from rigs.proxmox import ProxmoxServer

EVERYTHING = "a b $HOME 'c' \"d\" `e` \\ * ;&|<>\u00e9"


def address_of(cluster: ProxmoxServer) -> SshAddress:
    given = cluster.settings()
    return SshAddress("127.0.0.1", "root", given["ssh_port"], given["ssh_private_key_file"], given["ssh_known_hosts"])


@pytest.fixture(params=["ssh", "node"])
def node(cluster: ProxmoxServer, request: pytest.FixtureRequest) -> Iterator[Node]:
    opened = SshNode(address_of(cluster)) if request.param == "ssh" else LocalNode()
    yield opened
    opened.close()


@contextmanager
def echoing(path: Path) -> Iterator[None]:
    """A server at a unix socket that says once more what it hears."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            connection, _peer = listening.accept()
            with connection:
                connection.sendall(connection.recv(100))

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def test_a_command_gets_its_words_and_its_input_as_they_are_and_what_it_says_comes_back(node: Node) -> None:
    assert node.run(["printf", "%s", EVERYTHING]) == EVERYTHING.encode()
    assert node.run(["cat"], stdin=bytes(range(256))) == bytes(range(256))
    with node.spawn(["cat"]) as process:
        process.stdin.write(b"and on")
        process.finish(30)
        assert process.stdout.read() == b"and on"


def test_a_command_that_fails_is_told_with_its_last_words(node: Node) -> None:
    with pytest.raises(VmferryError, match=r"cat failed on .*/nowhere: No such file or directory") as failed:
        node.run(["cat", "/nowhere"])
    assert failed.value.kind == "not_found"
    with pytest.raises(VmferryError, match="sleep did not end on"):
        node.run(["sleep", "30"], timeout=0.5)
    assert (node.exists("/proc"), node.exists("/nowhere")) == (True, False)


def test_a_socket_of_the_node_is_reached_from_here(node: Node, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("s") / "s"
    with echoing(path), node.forward(str(path)) as local, socket.socket(socket.AF_UNIX) as client:
        client.connect(local)
        client.sendall(b"over there")
        assert client.recv(100) == b"over there"
    assert local == str(path) or not Path(local).exists()


def test_a_node_whose_key_is_not_known_is_not_connected_to(cluster: ProxmoxServer, tmp_path: Path) -> None:
    (tmp_path / "none").touch()
    with pytest.raises(VmferryError, match="Host key verification failed") as refused:
        SshNode(replace(address_of(cluster), known_hosts=str(tmp_path / "none")))
    assert refused.value.kind == "unauthenticated"
    assert "ssh_known_hosts" in refused.value.hint


def test_a_key_that_the_node_does_not_take_is_refused_and_nobody_is_asked(cluster: ProxmoxServer) -> None:
    other = str(Path(cluster.settings()["ssh_private_key_file"]).parent / "host")
    with pytest.raises(VmferryError, match="Permission denied") as refused:
        SshNode(replace(address_of(cluster), private_key_file=other))
    assert refused.value.kind == "unauthenticated"
    assert "ssh_private_key_file" in refused.value.hint


def test_a_node_where_nobody_listens_is_told_as_one(cluster: ProxmoxServer) -> None:
    with pytest.raises(VmferryError, match="Connection refused") as failed:
        SshNode(replace(address_of(cluster), port=free_port()))
    assert failed.value.kind == "network"


class AsNobody(LocalNode):
    def command(self, argv: Sequence[str]) -> list[str]:
        return ["setpriv", "--reuid=65534", "--clear-groups", *argv]


def test_who_is_not_root_on_the_node_is_told_so_at_once() -> None:
    with pytest.raises(VmferryError, match="become: true") as refused:
        Keeper(AsNobody())
    assert refused.value.kind == "permission_denied"


def test_no_option_is_smuggled_in_by_a_host_s_name() -> None:
    with pytest.raises(VmferryError, match="no name of a host"):
        SshNode(SshAddress("-oProxyCommand=touch /tmp/owned"))


def test_a_connection_that_broke_is_told_as_one(cluster: ProxmoxServer) -> None:
    """Commands make a new one; what works for a job there is over."""
    node = SshNode(address_of(cluster))
    keeper = Keeper(node)
    cluster.ssh.drop()
    with pytest.raises(VmferryError) as failed:
        keeper.ask({"do": "ping"})
    assert failed.value.kind == "network"
    node.close()
    with pytest.raises(VmferryError) as failed:  # as a sign of life that comes late
        keeper.ask({"do": "ping"})
    assert failed.value.kind == "network"
    with pytest.raises(VmferryError):
        keeper.close()


@pytest.mark.parametrize(
    ("transport", "on_it", "found"),
    [("auto", True, LocalNode), ("auto", False, SshNode), ("ssh", True, SshNode), ("node", True, LocalNode)],
)
def test_which_way_is_taken(cluster: ProxmoxServer, transport: str, on_it: bool, found: type[Node]) -> None:
    settings = ProxmoxSettings.from_options({**cluster.settings(), "transport": transport})
    session = Session(settings)
    if on_it:
        with cluster.on_the_node():
            node = open_node(session, settings, cluster.node)
    else:
        node = open_node(session, settings, cluster.node)
    assert isinstance(node, found)
    node.close()
    session.close()


@pytest.mark.parametrize(("transport", "said"), [("node", "not that node"), ("api", "reads no disks")])
def test_a_way_that_leads_nowhere_is_refused(session: Session, transport: str, said: str) -> None:
    settings = replace(session.settings, transport=transport)
    with pytest.raises(VmferryError, match=said):
        open_node(session, settings, "elsewhere")


def test_the_address_of_a_node_is_that_of_the_task_or_of_the_cluster(
    cluster: ProxmoxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[str] = []
    monkeypatch.setattr(choose_node, "SshNode", lambda address: connected.append(address.host))
    given = {key: value for key, value in cluster.settings().items() if key != "host_map"}
    for host_map in ({cluster.node: "192.0.2.7"}, {}, {}):
        settings = ProxmoxSettings.from_options({**given, "host_map": host_map})
        session = Session(settings)
        node = cluster.node if len(connected) < 2 else "elsewhere"
        open_node(session, settings, node)
        told = {one["name"]: one.get("ip") for one in session.get("cluster/status") if one["type"] == "node"}
        session.close()
    assert connected == ["192.0.2.7", told[cluster.node] or "127.0.0.1", "127.0.0.1"]
