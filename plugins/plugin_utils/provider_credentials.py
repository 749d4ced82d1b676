# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's credentials for a provider, handed over as those for a store are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError

from . import aws_credentials, proxmox_credentials, vsphere_credentials
from .credentials import said_in

FROM = "credentials_from"
_OTHERS = ("libvirt", "image")  # that need none, or have them handed over as a store


@dataclass(frozen=True)
class Account:
    """Where the credentials of one kind of provider are said, and how they are found in the control node's environment.

    `find` gets the environment, and the suboptions that the task gives.
    """

    name: str
    credentials: frozenset[str]  # suboptions; a task that gives one of them has chosen
    of_the_host: frozenset[str]  # variables the module reads where nothing is handed over; likewise
    find: Callable[[Mapping[str, str], Collection[str]], dict[str, Any]]
    hint: str


ACCOUNTS = {
    "aws": Account(
        "AWS",
        aws_credentials.CREDENTIALS,
        aws_credentials.OF_THE_HOST,
        aws_credentials.credentials,
        aws_credentials.WANTED,
    ),
    "proxmox": Account(
        "Proxmox VE",
        proxmox_credentials.CREDENTIALS,
        proxmox_credentials.OF_THE_HOST,
        proxmox_credentials.credentials,
        proxmox_credentials.WANTED,
    ),
    "vsphere": Account(
        "vSphere",
        vsphere_credentials.CREDENTIALS,
        vsphere_credentials.OF_THE_HOST,
        vsphere_credentials.credentials,
        vsphere_credentials.WANTED,
    ),
}


def hand_over_to_provider(
    arguments: Mapping[str, Any], of_task: Mapping[str, Any], of_controller: Mapping[str, str]
) -> dict[str, Any]:
    """The arguments, or those below an end, with what is handed over to the provider that they mean.

    As `credentials.hand_over`: all or nothing. Raises `invalid_config`.
    """
    meant = _provider(arguments)
    account = ACCOUNTS.get(meant)
    source = arguments.get(FROM) or "auto"
    if account is None or source == "target":
        return dict(arguments)
    said = said_in(arguments.get(meant))
    if said is None or account.credentials & said.keys() or any(of_task.get(one) for one in account.of_the_host):
        return dict(arguments)
    found = account.find(of_controller, said)
    if not found and source == "controller":
        raise VmferryError(
            "invalid_config",
            f"{FROM} is controller, and the control node's environment has no credentials for {account.name}.",
            account.hint,
            phase="validating",
        )
    return {**arguments, meant: {**found, **said}} if found else dict(arguments)


def _provider(arguments: Mapping[str, Any]) -> str:
    """As the module would choose it; '' where it would refuse to."""
    described = [name for name in (*ACCOUNTS, *_OTHERS) if arguments.get(name) is not None]
    return str(arguments.get("provider") or (described[0] if len(described) == 1 else ""))
