# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One Azure container client from the task's storage options: credentials, endpoint, TLS."""

from __future__ import annotations

from typing import Any, Callable, Dict

from ..._errors import VmferryError
from ..._http.clear_text import refuse_in_clear
from ..connection_settings import refused
from ..hosts import AllowedHosts, check_each_request
from .account import AzureSettings, Location
from .errors import translated
from .session import AzureSession, open_session

_ONE_REQUEST = 5000 * 1024**2  # bytes; the most that one Put Blob takes. The SDK would split what is longer
_SPARE_CONNECTIONS = 2  # beside the parts: the manifest, a listing


def connect(settings: AzureSettings, location: Location, alive: Callable[[], object]) -> tuple[Any, AzureSession]:
    """A client of the container: thread-safe, to be shared by everything this process does with the store."""
    try:
        from azure.core.pipeline.transport import RequestsTransport
        from azure.storage.blob import ContainerClient
    except ImportError as error:
        raise VmferryError(
            "unsupported",
            "An Azure storage URL needs the Python package azure-storage-blob.",
            "Install azure-storage-blob where the task runs.",
        ) from error

    settings.check_ca_path()
    session = open_session(settings.parallel + _SPARE_CONNECTIONS, alive)
    check_each_request(session, AllowedHosts.of(settings.allowed_hosts))
    transport = RequestsTransport(
        session=session,
        connection_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
        connection_verify=settings.verify,
    )
    options: Dict[str, Any] = {
        "transport": transport,
        "retry_total": 0,  # RetryingStore repeats, within the export's limits
        "permit_redirects": False,  # Azure gives none, and nothing is to be sent where nobody said
        "max_single_put_size": _ONE_REQUEST,
        "max_single_get_size": _ONE_REQUEST,
        "user_agent": "vmferry",
    }
    with translated("Preparing the Azure client", settings.secrets):
        if settings.connection_string:
            client = _by_connection_string(ContainerClient, settings.connection_string, location, options)
        else:
            credential = _credential(settings, location)
            client = ContainerClient(location.account_url, location.container, credential=credential, **options)
    return client, session


def _by_connection_string(container_client: Any, text: str, location: Location, options: Dict[str, Any]) -> Any:
    try:
        client = container_client.from_connection_string(text, location.container, **options)
    except ValueError:
        # Not as a cause: it repeats the text.
        raise refused("connection_string", "is not one", "Copy it from the account's access keys.") from None
    if "sharedaccesssignature=" in text.lower():
        refuse_in_clear(client.url, "The SAS")
    return client


def _credential(settings: AzureSettings, location: Location) -> Any:
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential

    if settings.account_key:
        if not location.account:
            raise refused("account_key", "goes with account_name", "Give both.")
        return AzureNamedKeyCredential(location.account, settings.account_key)
    if settings.sas_token:
        refuse_in_clear(location.account_url, "The SAS")
        return AzureSasCredential(settings.sas_token.lstrip("?"))
    if not location.account_url.startswith("https://"):
        raise VmferryError(
            "invalid_config",
            f"{location.account_url} is not reached over TLS, and a token is not sent in the clear.",
            "Write https://, or give account_key or sas_token.",
        )
    return _identity(settings, location)


def _identity(settings: AzureSettings, location: Location) -> Any:
    try:
        from azure import identity
    except ImportError as error:
        raise VmferryError(
            "unsupported",
            "Without account_key, sas_token or connection_string, an Azure storage URL needs the Python package "
            "azure-identity.",
            "Install azure-identity where the task runs, or give one of these options.",
        ) from error

    http: Dict[str, Any] = {"connection_verify": settings.verify, "connection_timeout": settings.connect_timeout}
    if settings.auth_source == "cli":
        return identity.AzureCliCredential(tenant_id=settings.tenant or "")
    if settings.auth_source == "msi":
        return identity.ManagedIdentityCredential(client_id=settings.client_id, **http)
    # In the public cloud the environment's AZURE_AUTHORITY_HOST may say otherwise, as for every Azure SDK.
    authority: Dict[str, Any] = {} if settings.cloud_environment == "AzureCloud" else {"authority": location.authority}
    trusted: Dict[str, Any] = {**authority, "disable_instance_discovery": settings.disable_instance_discovery}
    if settings.secret:
        return identity.ClientSecretCredential(
            settings.tenant or "", settings.client_id or "", settings.secret, retry_total=0, **trusted, **http
        )
    chosen: Dict[str, Any] = {"managed_identity_client_id": settings.client_id} if settings.client_id else {}
    return identity.DefaultAzureCredential(**chosen, **trusted, **http)
