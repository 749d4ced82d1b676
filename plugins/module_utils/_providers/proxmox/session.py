# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A session with the API of Proxmox VE, over proxmoxer: begun when first needed, and again where it was ended."""

from __future__ import annotations

import re
from contextlib import contextmanager
from threading import RLock
from typing import Any, Callable, Iterator, List
from urllib.parse import quote

from ..._errors import VmferryError
from . import tasks
from .errors import StrangeAnswer, is_line_cut, status_of, translated
from .settings import ProxmoxSettings

_AUTHORITY = "pve-root-ca.pem"
_ORGANISATION = re.compile(r"OU ?= ?([0-9a-fA-F-]{36})")


class Session:
    """Threads may share it. Paths are those of the API without the slash in front, quoted by `part` where needed;
    parameters with a hyphen are given as `**{"import-from": ...}`.

    What a call raises is proxmoxer's own, unless it is made inside `doing`.
    """

    def __init__(self, settings: ProxmoxSettings) -> None:
        self.settings = settings
        self._lock = RLock()
        self._opened: Any = None
        self._closed = False
        self._site = ""

    @property
    def address(self) -> str:
        return self.settings.address

    @property
    def site(self) -> str:
        """Of the cluster, or of a node that is in none; the same by whichever node it is reached.

        Each has an authority of its own. Names say less: a node that nobody named is `pve`.
        """
        with self._lock:
            if not self._site:
                self._site = self._authority() or self._cluster() or self.address
            return self._site

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Errors as ours; `what` names the verb and the object."""
        with translated(what, self.settings):
            yield

    def get(self, path: str, /, **params: Any) -> Any:
        return self._call(lambda api: api(path).get(**params), changes=False)

    def post(self, path: str, /, **params: Any) -> Any:
        return self._call(lambda api: api(path).post(**params))

    def put(self, path: str, /, **params: Any) -> Any:
        return self._call(lambda api: api(path).put(**params))

    def delete(self, path: str, /, **params: Any) -> Any:
        return self._call(lambda api: api(path).delete(**params))

    def wait(self, upid: str, timeout: float, doing: str = "The task") -> List[str]:
        """Of a task that a call has begun. Its warnings; raises what it failed with, and `timeout`."""
        return tasks.wait(self, upid, timeout, doing)

    def run(self, doing: str, begin: Callable[[], Any], timeout: float) -> List[str]:
        """Both: `begin` makes a call that answers with the id of a task."""
        with self.doing(doing):
            upid = begin()
        return self.wait(upid, timeout, doing)

    def close(self) -> None:
        """For good. A ticket ends by itself, after two hours."""
        with self._lock:
            self._closed = True
            opened, self._opened = self._opened, None
        if opened is not None:
            opened._store["session"].close()

    def _call(self, call: Callable[[Any], Any], changes: bool = True) -> Any:
        """Once more where the ticket was not taken any more, and of what changes nothing where the line was cut: a
        connection that was kept may have been closed by the server just now."""
        api = self._api()
        try:
            return self._answer(call, api)
        except Exception as error:
            if status_of(error) == 401 and self.settings.api_password:
                return self._answer(call, self._api(instead_of=api))
            if changes or not is_line_cut(error):
                raise
        return self._answer(call, api)

    def _answer(self, call: Callable[[Any], Any], api: Any) -> Any:
        try:
            found = call(api)
        except (KeyError, TypeError) as error:  # JSON without the word that all of it lies below
            raise StrangeAnswer from error
        if isinstance(found, dict) and isinstance(found.get("errors"), bytes):  # proxmoxer's word for what is no JSON
            raise StrangeAnswer
        return found

    def _api(self, instead_of: Any = None) -> Any:
        with self._lock:
            if self._closed:
                raise VmferryError("internal", f"The session with {self.address} was closed already.")
            if self._opened is None or self._opened is instead_of:
                self._opened = self._open()
            return self._opened

    def _open(self) -> Any:
        from proxmoxer import ProxmoxAPI

        given = self.settings
        credentials = (
            {"token_name": given.api_token_id, "token_value": given.api_token_secret}
            if given.api_token_id
            else {"password": given.api_password}
        )
        how = {"verify_ssl": given.verify, "timeout": given.api_timeout, **credentials}
        try:
            return ProxmoxAPI(given.api_host, port=given.api_port, user=given.api_user, **how)
        except (KeyError, TypeError, ValueError) as error:  # of an answer to the login that is not as it should be
            raise StrangeAnswer from error

    def _authority(self) -> str:
        """The id in the certificate of the cluster's own authority: every user may ask for it."""
        try:
            with self.doing("Asking Proxmox VE who it is"):
                nodes = sorted(node["node"] for node in self.get("nodes") if node.get("status") == "online")
                told = self.get(f"nodes/{part(nodes[0])}/certificates/info") if nodes else []
        except VmferryError as error:
            if error.kind in ("unauthenticated", "network", "timeout"):
                raise
            return ""
        names = [one.get("subject", "") for one in told or () if one.get("filename") == _AUTHORITY]
        found = [match[1].lower() for match in map(_ORGANISATION.search, names) if match]
        return found[0] if found else ""

    def _cluster(self) -> str:
        try:
            with self.doing("Asking Proxmox VE who it is"):
                told = self.get("cluster/status")
        except VmferryError as error:
            if error.kind != "permission_denied":
                raise
            return ""
        names = {one.get("type"): one.get("name", "") for one in told}
        return str(names.get("cluster") or names.get("node") or "")


def part(text: str) -> str:
    """One part of a path: an id of a volume has slashes and colons of its own."""
    return quote(str(text), safe="")
