# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task says of a connection to Proxmox VE, and what cannot be meant."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.settings import ProxmoxSettings

LEAST = {"api_host": "pve.example.com", "api_user": "root@pam", "api_password": "x"}
TOKEN = {"api_host": "pve", "api_user": "backup@pve", "api_token_id": "nightly", "api_token_secret": "s"}


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("pve.example.com", ("pve.example.com", 8006, "pve.example.com")),
        ("pve.example.com:443", ("pve.example.com", 443, "pve.example.com:443")),
        ("https://pve.example.com:8006/", ("pve.example.com", 8006, "pve.example.com")),
        ("192.0.2.11", ("192.0.2.11", 8006, "192.0.2.11")),
        ("2001:db8::1", ("2001:db8::1", 8006, "[2001:db8::1]")),
        ("[2001:db8::1]:443", ("2001:db8::1", 443, "[2001:db8::1]:443")),
    ],
)
def test_a_host_may_have_a_port(host: str, wanted: Any) -> None:
    settings = ProxmoxSettings.from_options({**LEAST, "api_host": host})
    assert (settings.api_host, settings.api_port, settings.address) == wanted


def test_a_token_is_named_alone_or_as_proxmox_shows_it() -> None:
    for name in ("nightly", "backup@pve!nightly"):
        settings = ProxmoxSettings.from_options({**TOKEN, "api_token_id": name})
        assert (settings.api_token_id, settings.who) == ("nightly", "backup@pve!nightly")


def test_no_secret_is_shown() -> None:
    shown = repr(ProxmoxSettings.from_options({**LEAST, "api_password": "hidden1"}))
    shown += repr(ProxmoxSettings.from_options({**TOKEN, "api_token_secret": "hidden2"}))
    assert "hidden" not in shown


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"api_host": None}, "api_host is not set"),
        ({"api_user": ""}, "api_user is not set"),
        ({"api_user": "root"}, "which realm"),
        ({"api_user": "backup@pve!nightly"}, "which realm"),
        ({"api_password": None}, "Neither a password nor a token"),
        ({"api_token_id": "a", "api_token_secret": "b"}, "Both a password and a token"),
        ({"api_password": None, "api_token_id": "a"}, "Only one of"),
        ({**TOKEN, "api_password": None, "api_token_id": "root@pam!nightly"}, "is of root@pam"),
        ({**TOKEN, "api_password": None, "api_token_id": "n i"}, "no name of a token"),
        ({"api_host": "https://root:known@pve"}, "names a user"),
        ({"api_host": "http://pve"}, "no host's name"),
        ({"api_host": "pve:x"}, "a port or an address that is none"),
        ({"api_host": "pve/api2"}, "no host's name"),
        ({"api_host": "-oProxyCommand=x"}, "no host's name"),
        ({"api_host": "pve:443", "api_port": 8006}, "says port 443"),
        ({"api_port": 65536}, "no port"),
        ({"ssh_port": -1}, "no port"),
        ({"api_timeout": 5}, "too short or too long"),
        ({"api_timeout": 3601}, "too short or too long"),
        ({"transport": "carrier"}, "not known"),
        ({"ca_path": "/etc/ssl/x.pem", "validate_certs": False}, "no certificate is verified"),
        ({"host_map": {"pve1": "-oProxyCommand=x"}}, "host_map"),
        ({"host_map": {"pve1": ""}}, "host_map"),
        ({"ssh_user": "-l"}, "no user's name"),
        ({"api_hots": "pve"}, "no setting api_hots"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_do(given: dict[str, Any], words: str) -> None:
    with pytest.raises(VmferryError, match=words) as caught:
        ProxmoxSettings.from_options({**LEAST, **given})
    assert caught.value.kind == "invalid_config"
    assert caught.value.hint
    assert "known" not in caught.value.message.replace("not known", "")


def test_an_authority_that_cannot_be_read_is_told_before_any_request(tmp_path: Any) -> None:
    settings = ProxmoxSettings.from_options({**LEAST, "ca_path": str(tmp_path / "none.pem")})
    with pytest.raises(VmferryError, match=r"proxmox\.ca_path .* cannot be read"):
        _ = settings.verify
