# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files and folders of a WebDAV server below one URL, written: what the store, its writers and its probe share.

Methods: https://www.rfc-editor.org/rfc/rfc4918#section-9
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from secrets import token_hex
from threading import Lock
from typing import Any, Iterator, Mapping, Optional, Set

from ..._errors import VmferryError
from .client import Body, DavClient
from .reading import MISSING, NOR_ABOVE, XML, DavReading

LOCK_SECONDS = 30  # a process that dies with a lock keeps others waiting no longer
_LOCK = (
    b'<?xml version="1.0" encoding="utf-8"?><lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope>'
    b"<locktype><write/></locktype></lockinfo>"
)


class DavFolder(DavReading):
    def __init__(self, client: DavClient, prefix: str) -> None:
        super().__init__(client, prefix)
        self._made: Set[str] = set()  # folders that are known to be there
        self._making = Lock()
        self._locks: Optional[bool] = None
        self._lists_hidden: Optional[bool] = None

    def put(self, key: str, body: Any, headers: Mapping[str, str]) -> None:
        """`body`: slices of known length, which can be gone through again. The folder above is made where it is not."""
        folder = key.rpartition("/")[0]
        self.make_folder(folder)
        try:
            self._put(key, body, headers)
        except VmferryError as error:
            self._forget(folder)  # somebody may have removed it meanwhile, for which nginx has no status but 500
            if error.kind not in MISSING:
                raise
            self.make_folder(folder)
            self._put(key, body, headers)

    def send_once(self, key: str, body: Any, headers: Mapping[str, str]) -> None:
        """As `put`, of slices that nobody can go through again, into a folder that is there."""
        self._put(key, body, headers)

    def _put(self, key: str, body: Any, headers: Mapping[str, str]) -> None:
        self.client.ask("PUT", self.target(key), self.doing("Writing", key), headers, body)

    def move(self, key: str, target: str, *, overwrite: bool = True, lock: str = "") -> None:
        """In one step, as a rename is. Raises `conflict` where the target may not be replaced and is there."""
        headers = {"Destination": self.url_of(target), "Overwrite": "T" if overwrite else "F"}
        if lock:
            headers["If"] = f"<{self.url_of(target)}> (<{lock}>)"
        self.client.ask("MOVE", self.target(key), self.doing("Writing", target), headers)

    def copy(self, source: str, target: str) -> None:
        """`source`: a path on this server, as requests name it."""
        headers = {"Destination": self.url_of(target), "Overwrite": "T", "Depth": "0"}
        self.client.ask("COPY", source, self.doing("Copying to", target), headers)

    def remove(self, key: str, *, is_folder: bool = False, lock: str = "") -> None:
        """What is not there is no error. Of a folder, with everything that is in it."""
        target = self.target(key, is_folder)
        # Of what the request names, so that no server compares two spellings of one URL.
        headers = {"If": f"(<{lock}>)"} if lock else {}
        with suppress_missing():
            self.client.ask("DELETE", target, self.doing("Deleting", key), headers)
        if is_folder:
            self._forget(key)

    def remove_file(self, key: str, lock: str = "") -> None:
        """A folder is left alone: a server would delete all that is in it."""
        if self._properties_of_file(key) is False:
            self.remove(key, lock=lock)

    def tidy(self, key: str) -> None:
        """Remove the folders above `key`, up to the root, that hold nothing any more.

        A server deletes a folder with whatever came into it meanwhile, so it is locked before it is looked into for
        the last time. It stays on a server without locks, or that does not tell of everything that is in it.
        """
        with suppress(VmferryError):  # an empty folder is in nobody's way
            while folder := key.rpartition("/")[0]:
                found = self.entries(folder)
                if found or (found is not None and not self._removed_empty(folder)):
                    return
                key = folder

    def _removed_empty(self, folder: str) -> bool:
        if not self.locks or not self._tells_all(folder):
            return False
        with self.locked(folder, is_folder=True) as lock:
            if self.entries(folder):
                return False
            self.remove(folder, is_folder=True, lock=lock)
        return True

    def _tells_all(self, folder: str) -> bool:
        """Whether listings hold names that begin with a dot. nginx leaves them out."""
        if self._lists_hidden is None:
            name = f".vmferry.{token_hex(8)}.part"
            try:
                self.put(f"{folder}/{name}", Body(memoryview(b""), self.client.alive), {})
                self._lists_hidden = name in [each for each, _unused in self.entries(folder) or []]
            finally:
                self.remove(f"{folder}/{name}")
        return self._lists_hidden

    def _properties_of_file(self, key: str) -> Optional[bool]:
        """Whether it is a folder; None where nothing is there."""
        found = self.properties(key, "0", is_folder=False)
        return None if found is None else any(each.is_folder for each in found)

    def make_folder(self, key: str) -> None:
        """And those above it, up to the root; the root's own parent has to be there."""
        self.enter()
        if not key or key in self._made:
            return
        try:
            self._make(key)
        except VmferryError as error:
            if error.kind not in MISSING:
                raise
            self.make_folder(key.rpartition("/")[0])
            self._make(key)

    def _make(self, key: str) -> None:
        try:
            self.client.ask("MKCOL", self.target(key, True), self.doing("Making", key))
        except VmferryError as error:
            if error.kind in MISSING:
                above = key.rpartition("/")[0]
                self._forget(above)
                raise
            if error.kind != "unsupported":  # 405: it is there
                raise
        with self._making:
            self._made.add(key)

    def _forget(self, key: str) -> None:
        with self._making:
            self._made = {each for each in self._made if key and not f"{each}/".startswith(f"{key}/")}
            self._there = self._there and bool(key)

    def enter(self) -> None:
        """The root is there, or is made. Before the first body, so that nobody sends one to be refused."""
        if self._there:
            return
        if self.properties("", "0") is None:
            try:
                self._make("")
            except VmferryError as error:
                if error.kind not in MISSING:
                    raise
                raise self.missing(NOR_ABOVE) from error
        self._there = True

    @property
    def locks(self) -> bool:
        """Whether the server says that it has locks (class 2)."""
        if self._locks is None:
            try:
                _unused, headers = self.client.ask("OPTIONS", self.target("", True), self.doing("Looking at", ""))
                self._locks = "2" in [each.strip() for each in headers.get("DAV", "").split(",")]
            except VmferryError as error:
                if error.kind not in ("unsupported", "not_found"):
                    raise
                self._locks = False
        return self._locks

    @contextmanager
    def locked(self, key: str, *, is_folder: bool = False) -> Iterator[str]:
        """What is there, against every other who writes; a folder, with what is in it. '' on a server without locks."""
        if not self.locks:
            yield ""
            return
        headers = {**XML, "Depth": "infinity" if is_folder else "0", "Timeout": f"Second-{LOCK_SECONDS}"}
        target, body = self.target(key, is_folder), Body(memoryview(_LOCK), self.client.alive)
        status, answered = self.client.ask("LOCK", target, self.doing("Locking", key), headers, body)
        token = answered.get("Lock-Token", "").strip().strip("<>")
        if not token:
            raise VmferryError("unsupported", f"The server locked {self.url_of(key)} and did not say by what.")
        try:
            if status == 201:  # nothing was there, and now there is something empty
                self.remove(key, is_folder=is_folder, lock=token)
                raise VmferryError("conflict", f"{self.url_of(key)} was removed meanwhile.")
            yield token
        finally:
            with suppress(VmferryError):  # it ends by itself, or has ended with the object
                self.client.ask("UNLOCK", target, self.doing("Unlocking", key), {"Lock-Token": f"<{token}>"})


@contextmanager
def suppress_missing() -> Iterator[None]:
    try:
        yield
    except VmferryError as error:
        if error.kind not in MISSING:
            raise
