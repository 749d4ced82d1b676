# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to reach Proxmox VE: the settings of a task, read once and refused where they cannot be meant."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any, Mapping, Tuple, Union
from urllib.parse import urlsplit

from ..._errors import VmferryError
from ..._http.certificates import check_authorities

API_PORT, SSH_PORT = 8006, 22
HIGHEST_PORT = 65535
TRANSPORTS = ("auto", "node", "ssh", "api")
# Seconds. Calls that allocate volumes answer when these are there, which takes a storage that is busy half a minute.
SHORTEST_TIMEOUT, LONGEST_TIMEOUT = 60, 3600
_USER = re.compile(r"[^\s:/@]+@[A-Za-z][A-Za-z0-9._-]+")
_TOKEN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]+")


@dataclass(frozen=True)
class ProxmoxSettings:
    """The first nine as in the collection community.proxmox, the others say how disks are reached."""

    api_host: str
    api_user: str  # with its realm: root@pam
    api_port: int = API_PORT
    api_password: str = field(default="", repr=False)
    api_token_id: str = ""  # without the user
    api_token_secret: str = field(default="", repr=False)
    validate_certs: bool = True
    ca_path: str = ""
    api_timeout: int = SHORTEST_TIMEOUT  # seconds, of a call; tasks have limits of their own
    transport: str = "auto"  # of disks: on the node itself, to it by SSH, or by the API alone
    host_map: Mapping[str, str] = field(default_factory=dict, hash=False)  # addresses for SSH by a node's name
    ssh_user: str = "root"
    ssh_port: int = SSH_PORT
    ssh_private_key_file: str = ""  # empty: what OpenSSH finds by itself
    ssh_known_hosts: str = ""  # likewise
    fleecing_storage: str = ""  # for what a VM overwrites while it is exported; empty: that of each disk

    @property
    def address(self) -> str:
        """For people."""
        host = f"[{self.api_host}]" if ":" in self.api_host else self.api_host
        return host if self.api_port == API_PORT else f"{host}:{self.api_port}"

    @property
    def who(self) -> str:
        """As Proxmox VE writes whom it gives permissions."""
        return f"{self.api_user}!{self.api_token_id}" if self.api_token_id else self.api_user

    @property
    def verify(self) -> Union[bool, str]:
        """As requests takes it."""
        if not self.validate_certs:
            return False
        if self.ca_path:
            check_authorities(self.ca_path, "The setting proxmox.ca_path")
        return self.ca_path or True

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> ProxmoxSettings:
        """Raises `invalid_config`."""
        known = [entry.name for entry in fields(cls)]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise _invalid(f"proxmox has no setting {', '.join(unknown)}.", f"Known are {', '.join(known)}.")
        given = {name: value for name, value in options.items() if value not in (None, "")}
        for name in ("api_host", "api_user"):
            if name not in given:
                raise _invalid(f"proxmox.{name} is not set.", "Set it, or the environment variable that stands for it.")
        host, port_of_it = _host_and_port(str(given["api_host"]))
        if port_of_it and given.get("api_port") not in (None, port_of_it):
            text = f"proxmox.api_host says port {port_of_it}, and proxmox.api_port {given['api_port']}."
            raise _invalid(text, "Leave one of them out.")
        given.update(api_host=host, api_port=port_of_it or given.get("api_port", API_PORT))
        settings = cls(**_with_token(given))
        settings._insist_on_sense()
        return settings

    def _insist_on_sense(self) -> None:
        if not _USER.fullmatch(self.api_user):
            hint = "Write root@pam or backup@pve, for example; a token's own name goes into proxmox.api_token_id."
            raise _invalid(f"proxmox.api_user {self.api_user} does not say which realm the user is of.", hint)
        if bool(self.api_token_id) != bool(self.api_token_secret):
            raise _invalid(
                "Only one of proxmox.api_token_id and proxmox.api_token_secret is set.", "Set both, or none."
            )
        if bool(self.api_password) == bool(self.api_token_id):
            said = "Both a password and a token are" if self.api_password else "Neither a password nor a token is"
            hint = "Give proxmox.api_token_id and api_token_secret, or else proxmox.api_password."
            raise _invalid(f"{said} given for {self.api_user}.", hint)
        if self.api_token_id and not _TOKEN_NAME.fullmatch(self.api_token_id):
            raise _invalid(f"proxmox.api_token_id {self.api_token_id} is no name of a token.", "Write automation, say.")
        if self.ca_path and not self.validate_certs:
            text = "proxmox.ca_path is given, and proxmox.validate_certs says that no certificate is verified."
            raise _invalid(text, "Leave one of them out.")
        for name in ("api_port", "ssh_port"):
            if not 1 <= getattr(self, name) <= HIGHEST_PORT:
                raise _invalid(f"proxmox.{name} {getattr(self, name)} is no port.", f"Give 1 to {HIGHEST_PORT}.")
        if not SHORTEST_TIMEOUT <= self.api_timeout <= LONGEST_TIMEOUT:
            hint = f"Give {SHORTEST_TIMEOUT} to {LONGEST_TIMEOUT} seconds: some calls answer when their work is done."
            raise _invalid(f"proxmox.api_timeout {self.api_timeout} is too short or too long.", hint)
        if self.transport not in TRANSPORTS:
            raise _invalid(f"proxmox.transport {self.transport} is not known.", f"Known are {', '.join(TRANSPORTS)}.")
        for node, address in self.host_map.items():
            if not node or not _is_address(str(address)):
                hint = "Give each node's name its address, such as pve1: 192.0.2.11."
                raise _invalid(f"proxmox.host_map has no address that can be meant for {node or 'a node'}.", hint)
        if not _is_address(self.ssh_user):
            raise _invalid(f"proxmox.ssh_user {self.ssh_user} is no user's name.", "Write root, for example.")


def _with_token(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """`user@realm!name` is how Proxmox VE shows a token's id; the name alone is how the options have it."""
    found = dict(given)
    token = str(found.get("api_token_id", ""))
    user, mark, name = token.partition("!")
    if mark:
        if user != found["api_user"]:
            text = f"proxmox.api_token_id is of {user}, and proxmox.api_user is {found['api_user']}."
            raise _invalid(text, "Give the token's name alone, or the user that it is of.")
        found["api_token_id"] = name
    return found


def _host_and_port(text: str) -> Tuple[str, int]:
    """Of a name or an address, with a port or without (0), or of a URL."""
    if text.count(":") > 1 and not text.startswith("[") and "://" not in text:
        return text, 0  # a bare IPv6 address
    hint = "Write pve.example.com or 192.0.2.11:8006, for example."
    if "@" in text:  # not quoted: what stands before it may be a password
        raise _invalid("proxmox.api_host names a user.", "Set proxmox.api_user and its password or token instead.")
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        port = parts.port or 0
    except ValueError as error:
        raise _invalid(f"proxmox.api_host {text} has a port or an address that is none.", hint) from error
    if parts.scheme != "https" or not _is_address(parts.hostname or "") or parts.path not in ("", "/"):
        raise _invalid(f"proxmox.api_host {text} is no host's name.", hint)
    return parts.hostname or "", port


def _is_address(text: str) -> bool:
    """What begins with - would be an option to the commands that it is given to."""
    return bool(text) and not text.startswith("-") and not any(sign.isspace() or sign in "@/" for sign in text)


def _invalid(message: str, hint: str) -> VmferryError:
    return VmferryError("invalid_config", message, hint)
