# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's credentials for a store, handed to the host that needs them: as suboptions, which are no_log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.common.validation import check_type_dict
from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.azure_options import is_azure_url
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError

from . import aws_credentials, azure_credentials, google_credentials


def hand_over(
    arguments: Mapping[str, Any], of_task: Mapping[str, Any], of_controller: Mapping[str, str]
) -> dict[str, Any]:
    """The arguments with what is handed over. `of_task`, `of_controller`: environment variables.

    All or nothing: credentials from two places are refused by every server, with an error that does not say why.
    Raises `invalid_config` where the controller must have some and has none.
    """
    source = arguments.get("credentials_from") or "auto"
    url, storage = str(arguments.get("url") or ""), said_in(arguments.get("storage"))
    service = _service(url, storage)
    if source == "target" or service is None:
        return dict(arguments)
    if storage is None or _has_chosen(storage, service) or any(of_task.get(one) for one in service.of_the_host):
        return dict(arguments)
    if is_azure_url(url, storage.get("type")):
        of_controller = azure_credentials.of_the_account_meant(url, storage, of_controller)
    found = service.find(of_controller)
    if not found and source == "controller":
        raise VmferryError(
            "invalid_config",
            f"credentials_from is controller, and the control node's environment has no credentials for "
            f"{service.name}.",
            service.hint,
            phase="validating",
        )
    return {**arguments, "storage": {**found, **storage}} if found else dict(arguments)


def _has_chosen(storage: Mapping[str, Any], service: Service) -> bool:
    anonymous = service.anonymous and boolean(storage.get(service.anonymous, False), strict=False)
    return bool(anonymous or service.credentials & storage.keys())


def said_in(storage: Any) -> dict[str, Any] | None:
    """What the task says in a dict, which may be text, too. None: it cannot be read, which the module tells better."""
    try:
        said = check_type_dict(storage or {})
    except (TypeError, ValueError):
        return None
    return {name: value for name, value in said.items() if value is not None}


@dataclass(frozen=True)
class Service:
    """Where the credentials of one kind of store are said, and how they are found in the control node's environment."""

    name: str
    credentials: frozenset[str]  # suboptions; a task that gives one of them has chosen
    of_the_host: frozenset[str]  # variables the module reads where nothing is handed over; likewise
    find: Callable[[Mapping[str, str]], dict[str, str]]
    hint: str
    anonymous: str = ""  # a suboption that asks for none


_SERVICES = {
    "s3": Service(
        "S3",
        aws_credentials.CREDENTIALS,
        aws_credentials.OF_THE_HOST,
        aws_credentials.credentials_of_s3,
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY there, or storage.access_key and secret_key in the task.",
        "anonymous",
    ),
    "azblob": Service(
        "Azure Blob Storage",
        azure_credentials.CREDENTIALS,
        azure_credentials.OF_THE_HOST,
        azure_credentials.credentials,
        azure_credentials.WANTED,
    ),
    "gs": Service(
        "Google Cloud Storage",
        google_credentials.CREDENTIALS,
        google_credentials.OF_THE_HOST,
        google_credentials.credentials,
        google_credentials.WANTED,
    ),
}


def _service(url: str, storage: Mapping[str, Any] | None) -> Service | None:
    kind = (storage or {}).get("type")
    if kind == "s3":
        return _SERVICES["s3"]
    is_azure = is_azure_url(url, kind)
    return _SERVICES.get("azblob" if is_azure else url.partition("://")[0])
