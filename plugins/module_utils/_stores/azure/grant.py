# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How Azure is let read an object that it is to copy by itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Dict, Optional

from .container import Container

_SCOPE = "https://storage.azure.com/.default"
_GRANTED = timedelta(hours=1)  # for one step


@dataclass(frozen=True)
class Grant:
    """By which the server reads the source: its address with a signature, or a token beside it."""

    url: str
    authorization: Optional[str] = None
    secret: str = ""

    @property
    def options(self) -> Dict[str, Any]:
        return {"source_authorization": self.authorization} if self.authorization else {}


def granted(container: Container, key: str) -> Grant:
    blob = container.blob(key)
    credential, url = blob.credential, str(blob.url)
    if hasattr(credential, "get_token"):
        token = credential.get_token(_SCOPE).token
        return Grant(url, f"Bearer {token}", token)
    if hasattr(credential, "account_key"):
        signed = _signed(container, blob, credential)
        return Grant(f"{url}?{signed}", secret=signed.rpartition("sig=")[2].partition("&")[0])
    signature = getattr(credential, "signature", "")
    return Grant(f"{url}?{signature}" if signature else url)


def _signed(container: Container, blob: Any, credential: Any) -> str:
    """For this object only, to be read only, for as long as a step may take."""
    from azure.storage.blob import BlobSasPermissions, generate_blob_sas

    now = datetime.fromtimestamp(container.session.now, timezone.utc)
    signed: str = generate_blob_sas(
        credential.account_name,
        blob.container_name,
        blob.blob_name,
        account_key=credential.account_key,
        permission=BlobSasPermissions(read=True),
        expiry=now + _GRANTED,
    )
    return signed
