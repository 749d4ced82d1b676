# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The storage options that a Cloud Storage store looks at, and the credentials that they mean."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple
from urllib.parse import urlsplit

from ..connection_settings import ConnectionSettings, refused

ENDPOINT = "https://storage.googleapis.com"
SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)  # what may be asked for at most, whatever the role
_KINDS = ("application", "machineaccount", "serviceaccount", "accesstoken", "anonymous")
_SECRET_FIELDS = ("private_key", "private_key_id", "refresh_token", "client_secret")


@dataclass(frozen=True)
class GcsSettings(ConnectionSettings):
    """Without a credential, and without `auth_kind`, the machine's own are used, as Google's libraries find them."""

    endpoint_url: str = ENDPOINT
    auth_kind: Optional[str] = None
    service_account_file: Optional[str] = None
    service_account_contents: Optional[str] = field(default=None, repr=False)
    access_token: Optional[str] = field(default=None, repr=False)
    user_project: Optional[str] = None
    storage_class: Optional[str] = None
    kms_key_name: Optional[str] = None

    def _check(self) -> None:
        parts = urlsplit(self.endpoint_url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise refused("endpoint_url", "starts with http:// or https://", f"Leave it out for {ENDPOINT}.")
        if "@" in parts.netloc:
            raise refused("endpoint_url", "carries no credentials", "Put them into the other storage options.")
        if self.auth_kind not in (None, *_KINDS):
            raise refused("auth_kind", f"is one of {', '.join(_KINDS)}", "Leave it out to have it follow the rest.")
        if len(self._given) > 1:
            raise refused(" and ".join(sorted(self._given)), "exclude each other", "Give one of them.")
        for name, kind in self._given.items():
            if self.kind != kind:
                raise refused(name, f"does not go with auth_kind {self.kind}", f"Leave it out, or write {kind}.")
        if self.kind in ("serviceaccount", "accesstoken") and not self._given:
            name = "access_token" if self.kind == "accesstoken" else "service_account_file or service_account_contents"
            raise refused("auth_kind", f"{self.kind} needs {name}", "Give it, or leave auth_kind out.")

    @property
    def _given(self) -> Dict[str, str]:
        """Each credential there is, and the kind that it means."""
        meant = {
            "service_account_file": "serviceaccount",
            "service_account_contents": "serviceaccount",
            "access_token": "accesstoken",
        }
        return {name: kind for name, kind in meant.items() if getattr(self, name)}

    @property
    def kind(self) -> str:
        return self.auth_kind or next(iter(self._given.values()), "application")

    @property
    def account(self) -> Tuple[Optional[str], ...]:
        """Stores with the same are reached as the same caller, by the same address."""
        credentials = (self.service_account_file, self.service_account_contents, self.access_token)
        return (self.endpoint_url.rstrip("/"), self.kind, *credentials, self.user_project)

    @property
    def secrets(self) -> Sequence[str]:
        secrets = [self.access_token, self.service_account_contents]
        if self.service_account_contents:
            secrets += [value for name, value in _parsed(self).items() if name in _SECRET_FIELDS]
        return [secret for secret in secrets if secret]


def load_credentials(settings: GcsSettings, request: Any) -> Any:
    """Of google-auth. `request` is its transport, by which a machine's own are looked for."""
    import google.auth
    from google.auth import compute_engine
    from google.auth.credentials import AnonymousCredentials
    from google.oauth2 import credentials as oauth2

    if settings.kind == "anonymous":
        return AnonymousCredentials()
    if settings.kind == "accesstoken":
        return oauth2.Credentials(settings.access_token)
    if settings.kind == "serviceaccount":
        return _service_account(settings)
    if settings.kind == "machineaccount":
        return compute_engine.Credentials(scopes=SCOPES)
    return google.auth.default(scopes=SCOPES, request=request)[0]


def _service_account(settings: GcsSettings) -> Any:
    from google.auth.exceptions import GoogleAuthError
    from google.oauth2 import service_account

    try:
        return service_account.Credentials.from_service_account_info(_parsed(settings), scopes=SCOPES)
    except (GoogleAuthError, ValueError, TypeError, AttributeError):
        # What google-auth says of a key may quote it, so nothing of it is chained.
        raise refused(_source(settings), "holds no service account's key", "Download a new key as JSON.") from None


def _parsed(settings: GcsSettings) -> Dict[str, Any]:
    text = settings.service_account_contents
    if not text:
        text = _read(settings.service_account_file or "")
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise refused(_source(settings), "is no JSON object", "Give the key as it was downloaded.") from None
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        hint = "Give a file on the host that runs the task."
        raise refused(f"service_account_file {path}", f"cannot be read ({why})", hint) from error


def _source(settings: GcsSettings) -> str:
    if settings.service_account_contents:
        return "service_account_contents"
    return f"service_account_file {settings.service_account_file}"
