# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which storage account is meant, and with which credentials: from the storage URL and the task's options."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Mapping, Optional, Sequence, Tuple
from urllib.parse import parse_qs, urlsplit

from ..._errors import VmferryError
from ..connection_settings import ConnectionSettings, refused
from ..keys import root_prefix

AUTH_SOURCES = ("auto", "msi", "cli")
TIERS = ("hot", "cool", "cold")
BLOB_TYPES = ("auto", "block", "page")
# https://learn.microsoft.com/azure/storage/common/storage-account-overview#storage-account-endpoints and each
# sovereign cloud's own page; the second is where its identities come from.
_CLOUDS: Mapping[str, Tuple[str, str]] = {
    "AzureCloud": ("blob.core.windows.net", "login.microsoftonline.com"),
    "AzureChinaCloud": ("blob.core.chinacloudapi.cn", "login.chinacloudapi.cn"),
    "AzureUSGovernment": ("blob.core.usgovcloudapi.net", "login.microsoftonline.us"),
}
CLOUDS = tuple(_CLOUDS)
# Accounts with a DNS zone of their own: ACCOUNT.zNN.blob.storage.azure.net.
_ZONED = re.compile(r"z\d+\.blob\.storage\.azure\.net")
_CONTAINER = re.compile(r"\$root|\$web|[a-z0-9](?:-?[a-z0-9]){2,62}")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")


def is_azure_host(host: str) -> bool:
    """Whether an `https://` URL's host is a storage account's blob endpoint, of any of Azure's clouds."""
    return _cloud_of(host) is not None


def _cloud_of(host: str) -> Optional[str]:
    account, _unused, suffix = host.lower().partition(".")
    if account and _ZONED.fullmatch(suffix):
        return "AzureCloud"
    return next((cloud for cloud, (known, _also_unused) in _CLOUDS.items() if account and suffix == known), None)


@dataclass(frozen=True)
class AzureSettings(ConnectionSettings):
    """The storage options an Azure store looks at. Without credentials, those of the Azure SDK's own chain are used."""

    account_name: Optional[str] = None
    account_key: Optional[str] = field(default=None, repr=False)
    sas_token: Optional[str] = field(default=None, repr=False)
    connection_string: Optional[str] = field(default=None, repr=False)
    client_id: Optional[str] = None
    secret: Optional[str] = field(default=None, repr=False)
    tenant: Optional[str] = None
    auth_source: str = "auto"
    cloud_environment: str = "AzureCloud"
    disable_instance_discovery: bool = False
    endpoint_url: Optional[str] = None
    access_tier: Optional[str] = None
    blob_type: str = "auto"

    def _check(self) -> None:
        if self.access_tier == "archive":
            raise refused(
                "access_tier",
                "is not archive: what lies there can be read after hours only",
                "Take cold, and let a lifecycle rule of the account archive what is old.",
            )
        for option, known in (
            ("access_tier", (None, *TIERS)),
            ("auth_source", AUTH_SOURCES),
            ("blob_type", BLOB_TYPES),
            ("cloud_environment", CLOUDS),
        ):
            if getattr(self, option) not in known:
                raise refused(option, f"is {', '.join(filter(None, known))}", "Leave it out for the default.")
        if self.endpoint_url and not self.endpoint_url.startswith(("http://", "https://")):
            raise refused(
                "endpoint_url", "starts with http:// or https://", "Write for example https://127.0.0.1:10000/account."
            )
        if self.endpoint_url and {"@", "?"} & set(self.endpoint_url):
            raise refused("endpoint_url", "carries no credentials", "Put a SAS into sas_token.")
        self._check_credentials()

    def _check_credentials(self) -> None:
        kinds = [name for name in ("account_key", "sas_token", "connection_string", "secret") if getattr(self, name)]
        if self.auth_source != "auto":
            kinds.append("auth_source")
        if len(kinds) > 1:
            raise refused(kinds[0], f"goes without {kinds[1]}", "Leave one of the two out.")
        if self.secret and not (self.client_id and self.tenant):
            raise refused("secret", "goes with client_id and tenant", "Give all three.")
        if self.tenant and not self.secret and self.auth_source != "cli":
            raise refused("tenant", "goes with client_id and secret", "Give all three, or leave it out.")
        if self.connection_string and (self.endpoint_url or self.account_name):
            raise refused(
                "connection_string", "brings account and endpoint along", "Leave account_name and endpoint_url out."
            )
        if self.account_name and not self.endpoint_url and not _ACCOUNT.fullmatch(self.account_name):
            raise refused("account_name", "is 3 to 24 characters of a-z and 0-9", "Correct the account's name.")

    @property
    def by_identity(self) -> bool:
        """Whether a token of Microsoft Entra ID is asked for, which takes another package."""
        return not (self.account_key or self.sas_token or self.connection_string)

    @property
    def secrets(self) -> Sequence[str]:
        given = [self.account_key, self.sas_token, self.connection_string, self.secret]
        query = (self.sas_token or "").lstrip("?")
        given += parse_qs(query).get("sig", [])
        given += [pair.partition("=")[2] for pair in query.split("&") if pair.startswith("sig=")]
        pairs = (pair.partition("=") for pair in (self.connection_string or "").split(";"))
        given += [value for name, _unused, value in pairs if name.lower() in ("accountkey", "sharedaccesssignature")]
        return [secret for secret in given if secret]


@dataclass(frozen=True)
class Location:
    """`account_url`: empty where the connection string knows it. `authority`: the host that gives out tokens."""

    url: str  # as the store is called
    account_url: str
    account: str
    container: str
    prefix: str  # empty, or ends in a slash
    authority: str


def locate(url: str, settings: AzureSettings) -> Location:
    """`azblob://container/prefix`, or `https://ACCOUNT.blob.core.windows.net/container/prefix`."""
    parts = urlsplit(url)
    by_host = parts.scheme in ("http", "https")
    path = [parts.netloc, *parts.path.split("/")] if not by_host else parts.path.lstrip("/").split("/")
    container = path[0]
    if not _CONTAINER.fullmatch(container):
        raise VmferryError(
            "invalid_config",
            f"The storage URL {url} names no container.",
            "Write azblob://container/prefix, and the account into account_name. A container's name has 3 to 63 "
            "characters of a-z, 0-9 and single hyphens.",
        )
    folder = root_prefix("/".join(path[1:]))
    if by_host:
        account_url, account, cloud = _account_of_host(parts.scheme, parts.netloc, settings)
    else:
        account_url, account, cloud = _account_of_options(settings)
    root = f"{parts.scheme}://{parts.netloc}/{container}" if by_host else f"azblob://{container}"
    return Location(f"{root}/{folder}".rstrip("/"), account_url, account, container, folder, _CLOUDS[cloud][1])


def _account_of_host(scheme: str, netloc: str, settings: AzureSettings) -> Tuple[str, str, str]:
    cloud = _cloud_of(netloc)
    account = netloc.partition(".")[0].lower() if cloud else settings.account_name or ""
    for option in ("endpoint_url", "connection_string"):
        if getattr(settings, option):
            raise refused(option, "goes with azblob:// only, since this URL names the account itself", "Leave it out.")
    if cloud and settings.account_name not in (None, account):
        raise refused(
            "account_name", f"is {settings.account_name}, and the storage URL names {account}", "Leave it out."
        )
    return f"{scheme}://{netloc}", account, cloud or settings.cloud_environment


def _account_of_options(settings: AzureSettings) -> Tuple[str, str, str]:
    cloud = settings.cloud_environment
    if settings.connection_string:
        return "", "", cloud
    if settings.endpoint_url:
        endpoint = settings.endpoint_url.rstrip("/")
        host = urlsplit(endpoint).netloc
        named = host.partition(".")[0] if is_azure_host(host) else urlsplit(endpoint).path.strip("/")
        return endpoint, settings.account_name or named, cloud
    if not settings.account_name:
        raise VmferryError(
            "invalid_config",
            "Which storage account is meant is not said.",
            "Set account_name, connection_string or endpoint_url, or write "
            "https://ACCOUNT.blob.core.windows.net/container/prefix.",
        )
    return f"https://{settings.account_name}.{_CLOUDS[cloud][0]}", settings.account_name, cloud
