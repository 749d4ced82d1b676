# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to one HTTP server: its connections, credentials, certificates, proxies and redirects.

On urllib3 itself: `requests` would read a `.netrc`, follow redirects while it writes, and copy what it sends.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Tuple
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from ..._errors import VmferryError
from ..hosts import AllowedHosts
from ..ranges import READ_CHUNK
from .errors import refused, translated
from .settings import DavSettings

SLICE = 256 * 1024  # bytes sent at once: as much has to be taken within the connection's timeout
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_LONGEST_CHAIN = 5
_OTHER_CONNECTIONS = 4  # beside the parts: the manifest, a listing, a part that is read while it is joined
_PORTS = {"http": 80, "https": 443}


class Body:
    """Memory that is not ours, as slices of itself; `alive` is called for each that was sent."""

    def __init__(self, data: memoryview, alive: Callable[[], object]) -> None:
        self._data, self._alive = data.cast("B") if data.format != "B" else data, alive

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[memoryview]:
        for at in range(0, len(self._data), SLICE):
            yield self._data[at : at + SLICE]
            self._alive()


class DavClient:
    """Thread-safe, to be shared by everything this process does with the store."""

    def __init__(self, origin: str, settings: DavSettings, alive: Callable[[], object] = lambda: None) -> None:
        """`origin`: scheme, host and port. Raises `invalid_config` for certificates that cannot be used, `unsupported`
        without urllib3.
        """
        self.origin, self.alive = origin, alive
        self._settings, self._credentials = settings, settings.credentials()
        self._allowed = AllowedHosts.of(settings.allowed_hosts)
        self._manager = _manager(origin, settings, settings.client_cert)
        self._elsewhere: Dict[str, Any] = {}  # by origin: where redirects led, without any credentials

    def close(self) -> None:
        for manager in (self._manager, *self._elsewhere.values()):
            manager.clear()

    def ask(
        self, method: str, target: str, doing: str, headers: Optional[Mapping[str, str]] = None, body: Any = None
    ) -> Tuple[int, Mapping[str, str]]:
        """Status and headers, of an answer whose body says nothing. Raises for what is no success."""
        with self.open(method, target, doing, headers, body) as answer:
            return answer.status, answer.headers

    @contextmanager
    def open(
        self, method: str, target: str, doing: str, headers: Optional[Mapping[str, str]] = None, body: Any = None
    ) -> Iterator[Any]:
        """An answer whose body is to be read. `target`: an absolute path, percent-encoded. `body`: slices of known
        length. What reading raises is translated, too.
        """
        with translated(doing):
            answer = self._send(method, target, doing, headers or {}, body)
            try:
                if not 200 <= answer.status < 300:
                    raise refused(answer.status, answer.headers, doing)
                yield answer
                if not answer.closed and 0 < int(answer.headers.get("Content-Length", "0") or 0) <= READ_CHUNK:
                    answer.read(READ_CHUNK)  # what nobody read keeps the connection from being used again
            finally:
                answer.close()

    def _send(self, method: str, target: str, doing: str, headers: Mapping[str, str], body: Any) -> Any:
        url, manager, sent = self.origin + target, self._manager, {**self._credentials, **headers}
        sent.setdefault("User-Agent", "vmferry")
        sent["Accept-Encoding"] = "identity"
        if body is not None:
            sent["Content-Length"] = str(len(body))
        for _unused in range(_LONGEST_CHAIN):
            self._allowed.check(url)
            answer = manager.request(
                method, url, body=body, headers=sent, retries=False, redirect=False, preload_content=False,
                decode_content=False, enforce_content_length=True, timeout=self._timeout(),
            )  # fmt: skip
            if answer.status not in _REDIRECTS or method not in ("GET", "HEAD"):
                return answer
            target = answer.headers.get("Location", "")
            answer.close()
            url, before = _redirected(url, target, doing), url
            if origin_of(url) != origin_of(before):
                sent = {name: value for name, value in sent.items() if name not in self._credentials}
            manager = self._manager_of(url)
        raise VmferryError("unsupported", f"{doing} failed: the server redirects again and again.", "Look at it there.")

    def _manager_of(self, url: str) -> Any:
        origin = origin_of(url)
        if origin == self.origin:
            return self._manager
        if origin not in self._elsewhere:
            self._elsewhere[origin] = _manager(origin, self._settings, None)
        return self._elsewhere[origin]

    def _timeout(self) -> Any:
        from urllib3 import Timeout

        # While a body is sent, the first of the two is what a slice may take.
        return Timeout(connect=self._settings.connect_timeout, read=self._settings.read_timeout)


def _manager(origin: str, settings: DavSettings, client_cert: Optional[str]) -> Any:
    try:
        import urllib3
    except ImportError as error:
        raise VmferryError(
            "unsupported",
            "An http:// or https:// storage URL needs the Python package urllib3.",
            "Install urllib3 where the task runs.",
        ) from error
    if client_cert is None:
        settings = replace(settings, client_cert=None, client_key=None)
    context = settings.tls()
    if getattr(urllib3, "__version__", "").startswith("1."):  # which compares names itself, and addresses only so
        context.check_hostname = False
    connections: Dict[str, Any] = {"maxsize": settings.parallel + _OTHER_CONNECTIONS, "ssl_context": context}
    proxy = _proxy(origin)
    if not proxy:
        return urllib3.PoolManager(**connections)
    user = urlsplit(proxy)
    headers = {}
    if user.username:
        pair = f"{unquote(user.username)}:{unquote(user.password or '')}"
        headers = urllib3.make_headers(proxy_basic_auth=pair)
    address = user._replace(netloc=user.netloc.rpartition("@")[2]).geturl()
    return urllib3.ProxyManager(address, proxy_headers=headers, **connections)


def _proxy(origin: str) -> str:
    """As the environment has it; empty for a host that is asked directly."""
    parts = urlsplit(origin)
    if proxy_bypass(parts.netloc):
        return ""
    proxy = getproxies().get(parts.scheme, "")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _redirected(url: str, location: str, doing: str) -> str:
    """Where to ask instead. What is a folder's name without its slash is no object."""
    target = urljoin(url, location)
    parts = urlsplit(target)
    if target == f"{url}/" or parts.path == f"{urlsplit(url).path}/":
        raise VmferryError("not_found", f"{doing} failed: it is a folder.", "Name an object in it.")
    downgraded = url.startswith("https://") and parts.scheme != "https"
    # Of a backslash, libraries disagree on whether the host ends there.
    strange = not parts.netloc or "@" in parts.netloc or "\\" in target
    if not location or parts.scheme not in _PORTS or strange or downgraded:
        raise VmferryError(
            "unsupported", f"{doing} failed: the server redirects to where nothing may be asked.", "Ask its operator."
        )
    return target


def origin_of(url: str) -> str:
    """Scheme, host and port; the port is left out where it is the scheme's own. ValueError for a port that is none."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    port = "" if parts.port in (None, _PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"
