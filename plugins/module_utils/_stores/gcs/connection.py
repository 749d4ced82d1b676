# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to the JSON API of Cloud Storage, each sent once.

Not through google-cloud-storage: it joins the parts of an upload in memory, sends again by itself, and says nothing
while bytes move. The credentials are google-auth's, the transport is requests, as there.
"""

from __future__ import annotations

import socket
from functools import partial
from threading import Lock
from typing import Any, Callable, Dict, Mapping, Optional

from ..._errors import VmferryError
from ..._http.clear_text import refuse_in_clear
from ..hosts import AllowedHosts
from ..server_clock import ServerClock
from .body import RelatedBody
from .errors import Answer, answered, translated
from .settings import GcsSettings, load_credentials

_OTHER_CONNECTIONS = 2  # beside the parts: the manifest, a listing
_ERROR_BODY = 8192  # bytes read of an answer that is no success


class Connection:
    """Thread-safe, to be shared by everything this process does with the store."""

    def __init__(self, settings: GcsSettings, alive: Callable[[], object] = lambda: None) -> None:
        """`alive` is called while the bytes of a body move."""
        try:
            import google_crc32c  # noqa: F401
            from google.auth.transport.requests import Request
        except ImportError as error:
            raise VmferryError(
                "unsupported",
                "A gs:// storage URL needs the Python packages google-auth, requests and google-crc32c.",
                "Install them where the task runs.",
            ) from error

        self.alive, self.secrets, self._clock = alive, settings.secrets, ServerClock()
        if settings.kind != "anonymous":
            refuse_in_clear(settings.endpoint_url, "A token for Cloud Storage")
        self.account = settings.account
        self.parallel = settings.parallel
        self.endpoint_url = settings.endpoint_url.rstrip("/")
        settings.check_ca_path()
        self._payer = {"userProject": settings.user_project} if settings.user_project else {}
        self._timeout = (settings.connect_timeout, settings.read_timeout)
        # Given with each request: else requests prefers the environment's bundle even where nothing is to be checked.
        self._verify = settings.verify
        self._session = _session(settings)
        self._allowed = AllowedHosts.of(settings.allowed_hosts)
        token_timeout = min(self._timeout)
        self._token_request = partial(
            Request(self._session),
            verify=self._verify,
            timeout=token_timeout,
        )
        with translated(f"Finding the credentials for {self.endpoint_url}"):
            self._credentials = load_credentials(settings, self._token_request)
        self._renewing = Lock()
        self._renewable = settings.kind not in ("anonymous", "accesstoken")

    @property
    def now(self) -> float:
        """Seconds since the epoch, by the server's clock as far as it was told."""
        return self._clock.now

    def json(self, doing: str, method: str, path: str, *, about_bucket: bool = False, **request: Any) -> Dict[str, Any]:
        """The answer's object, empty where it has none. `request`: `params`, `json`, `body`."""
        answer = self.send(doing, method, path, about_bucket=about_bucket, **request)
        self._clock.learn(answer.headers.get("Date", ""))
        with translated(doing), answer:
            found = answer.json() if answer.content else {}
        self.alive()
        return found if isinstance(found, dict) else {}

    def send(
        self,
        doing: str,
        method: str,
        path: str,
        *,
        about_bucket: bool = False,
        params: Optional[Mapping[str, Any]] = None,
        headers: Optional[Mapping[str, str]] = None,
        json: Optional[Mapping[str, Any]] = None,
        body: Optional[RelatedBody] = None,
    ) -> Any:
        """The answer of requests, not read yet, to be closed; or the error that it is."""
        sent = dict(headers or {})
        if body is not None:
            sent["Content-Type"] = body.content_type
        asked = {"params": {**(params or {}), **self._payer}, "json": json, "data": body}
        with translated(doing):
            answer = self._request(method, path, sent, asked)
            if answer.status_code == 401 and self._renewable:
                # The token was taken back, or this machine's clock is wrong.
                answer.close()
                if body is not None:
                    body.seek(0)
                answer = self._request(method, path, sent, asked, renew=True)
            if answer.status_code < 300:
                return answer
            with answer:
                text = answer.raw.read(_ERROR_BODY, decode_content=True)
        raise answered(
            Answer(answer.status_code, answer.headers, text), doing, about_bucket=about_bucket, secrets=self.secrets
        )

    def _request(
        self, method: str, path: str, headers: Mapping[str, str], asked: Mapping[str, Any], *, renew: bool = False
    ) -> Any:
        self._allowed.check(self.endpoint_url)  # here, and not of the session, which asks for tokens as well
        return self._session.request(
            method,
            f"{self.endpoint_url}{path}",
            headers=self._authorized(headers, renew),
            timeout=self._timeout,
            verify=self._verify,
            stream=True,
            allow_redirects=False,
            **asked,
        )

    def _authorized(self, headers: Mapping[str, str], renew: bool) -> Dict[str, str]:
        """Not by `before_request` of google-auth, which asks services at Google for more, whatever the endpoint is."""
        with self._renewing:
            if renew or not self._credentials.valid:
                self._credentials.refresh(self._token_request)
        authorized = dict(headers)
        self._credentials.apply(authorized)
        return authorized

    def close(self) -> None:
        self._session.close()


def _session(settings: GcsSettings) -> Any:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection

    keep_alive = [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *sizes: Any, **named: Any) -> None:
            super().init_poolmanager(*sizes, socket_options=keep_alive, **named)

    session = requests.Session()
    adapter = Adapter(pool_maxsize=settings.parallel + _OTHER_CONNECTIONS, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.auth = _as_it_is  # or an entry of ~/.netrc would replace the token
    session.headers["Accept-Encoding"] = "identity"
    session.headers["User-Agent"] = "vmferry"
    return session


def _as_it_is(request: Any) -> Any:
    return request
