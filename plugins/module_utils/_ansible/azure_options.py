# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to get into Azure Blob Storage: names as in the azure.azcollection collection, environment as Azure's own."""

from __future__ import annotations

from typing import Any, Collection, Mapping
from urllib.parse import urlsplit

from ansible.module_utils.common.parameters import env_fallback

from .._stores.azure.account import is_azure_host

# In the order in which the environment's are looked for, as Azure's own command line does.
_KINDS = ("connection_string", "account_key", "sas_token", "secret")
CREDENTIALS = frozenset({*_KINDS, "client_id", "tenant"})
_SAID_OF_AWS = frozenset({"endpoint_url", "ca_path"})  # by its environment


def azure_options() -> dict[str, dict[str, Any]]:
    return {
        "account_name": {"type": "str", "fallback": (env_fallback, ["AZURE_STORAGE_ACCOUNT"])},
        "account_key": {"type": "str", "no_log": True, "fallback": (env_fallback, ["AZURE_STORAGE_KEY"])},
        "sas_token": {"type": "str", "no_log": True, "fallback": (env_fallback, ["AZURE_STORAGE_SAS_TOKEN"])},
        "connection_string": {
            "type": "str",
            "no_log": True,
            "fallback": (env_fallback, ["AZURE_STORAGE_CONNECTION_STRING"]),
        },
        "client_id": {"type": "str", "fallback": (env_fallback, ["AZURE_CLIENT_ID"])},
        "secret": {"type": "str", "no_log": True, "fallback": (env_fallback, ["AZURE_CLIENT_SECRET", "AZURE_SECRET"])},
        "tenant": {"type": "str", "fallback": (env_fallback, ["AZURE_TENANT_ID", "AZURE_TENANT"])},
        "auth_source": {"type": "str", "choices": ["auto", "msi", "cli"], "default": "auto"},
        "cloud_environment": {
            "type": "str",
            "choices": ["AzureCloud", "AzureChinaCloud", "AzureUSGovernment"],
            "default": "AzureCloud",
        },
        "disable_instance_discovery": {"type": "bool", "default": False},
        "access_tier": {"type": "str", "choices": ["hot", "cool", "cold"]},
        "blob_type": {"type": "str", "choices": ["auto", "block", "page"], "default": "auto"},
    }


def is_azure_url(url: str, kind: str | None = None) -> bool:
    """`kind`: what `storage.type` says that answers there."""
    if kind not in (None, "auto"):
        return kind == "azure"
    return url.startswith("azblob://") or _names_account(url)


def _names_account(url: str) -> bool:
    try:
        return url.startswith("https://") and is_azure_host(urlsplit(url).netloc)
    except ValueError:  # which is told when the store is opened
        return False


def as_meant_for_azure(url: str, settings: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Credentials all from the task or all from the environment, and nothing of what that says of another cloud."""
    kept = dict(settings)
    if is_azure_url(url, kept.get("type")):
        kept.update(dict.fromkeys(_SAID_OF_AWS - set(given)))
    if CREDENTIALS & set(given) or kept["auth_source"] != "auto":
        kept.update(dict.fromkeys(CREDENTIALS - set(given)))
    else:
        _keep_first_of_environment(url, kept, given)
    if (kept["connection_string"] or _names_account(url)) and "account_name" not in given:
        kept["account_name"] = None  # they bring their own
    return kept


def _keep_first_of_environment(url: str, kept: dict[str, Any], given: Collection[str]) -> None:
    if {"account_name", "endpoint_url"} & set(given) or url.startswith("https://"):
        kept["connection_string"] = None  # which says of an account what the task says of another
    chosen = next((name for name in _KINDS if kept[name]), "")
    kept.update(dict.fromkeys(name for name in _KINDS if name != chosen))
    if chosen != "secret":
        kept["tenant"] = None  # without a secret, the client is a managed identity
    if chosen not in ("secret", ""):
        kept["client_id"] = None
