# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's credentials for Azure Blob Storage: one kind, the first in the order in which the module looks."""

from __future__ import annotations

from collections.abc import Collection, Mapping

_STRING, _ACCOUNT = "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT"
_KINDS = (("connection_string",), ("account_key",), ("sas_token",), ("client_id", "secret", "tenant"))
# In order of preference, as the module's fallbacks.
_VARIABLES = {
    "connection_string": (_STRING,),
    "account_key": ("AZURE_STORAGE_KEY",),
    "sas_token": ("AZURE_STORAGE_SAS_TOKEN",),
    "client_id": ("AZURE_CLIENT_ID",),
    "secret": ("AZURE_CLIENT_SECRET", "AZURE_SECRET"),
    "tenant": ("AZURE_TENANT_ID", "AZURE_TENANT"),
}
CREDENTIALS = frozenset({*_VARIABLES, "auth_source"})
OF_THE_HOST = frozenset(name for names in _VARIABLES.values() for name in names)
WANTED = "Set AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY there, or storage.account_name and account_key in the task."


def credentials(environment: Mapping[str, str]) -> dict[str, str]:
    for kind in _KINDS:
        found = {option: _value(environment, option) for option in kind}
        if all(found.values()):
            account = environment.get(_ACCOUNT, "") if kind != ("connection_string",) else ""
            return {**found, **({"account_name": account} if account else {})}
    return {}


def _value(environment: Mapping[str, str], option: str) -> str:
    return next((environment[name] for name in _VARIABLES[option] if environment.get(name)), "")


def of_the_account_meant(url: str, said: Collection[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Without what names another account than the task does. `said`: names of the suboptions that it gives."""
    unfit = set()
    if url.startswith("https://"):
        unfit = {_STRING, _ACCOUNT}
    elif {"account_name", "endpoint_url"} & set(said):
        unfit = {_STRING}
    return {name: value for name, value in environment.items() if name not in unfit}
