# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An object in one request, from its first byte to its last: each part waits for the one before it."""

from __future__ import annotations

import secrets
from threading import Condition, Thread
from typing import Callable, Iterator, Mapping, Optional, Sequence

from ..._blocks import ObjectInfo, Part, PartReceipt
from ..._errors import VmferryError
from .client import SLICE
from .folder import DavFolder
from .headers import encode_metadata
from .placement import Placement


class DavStream:
    """Nothing of it is kept on the server if the connection breaks: nobody can go on with it."""

    any_offset = False

    def __init__(self, folder: DavFolder, key: str, size: int, metadata: Mapping[str, str] | None) -> None:
        self._folder, self._key, self._size = folder, key, size
        self.token = secrets.token_hex(8)
        self._hidden = f"{key}.{self.token}.part"
        self._metadata = encode_metadata(metadata)
        self._changed = Condition()
        self._next, self._at = 1, 0  # the part whose turn it is, and where it begins
        self._given: Optional[memoryview] = None  # and not yet sent
        self._error: Optional[VmferryError] = None
        self._ended = False
        self._placement = Placement(folder, key)
        self._done: Optional[ObjectInfo] = None
        folder.make_folder(key.rpartition("/")[0])
        self._sender = Thread(target=self._send, name="http-stream", daemon=True)
        self._sender.start()

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[memoryview]:
        """The body, for the thread that sends it."""
        sent = 0
        while sent < self._size:
            data = self._taken()
            for at in range(0, len(data), SLICE):
                yield data[at : at + SLICE]
                self._folder.client.alive()
            sent += len(data)
            with self._changed:
                self._given = None
                self._changed.notify_all()

    def _taken(self) -> memoryview:
        with self._changed:
            while self._error is None and self._given is None:
                self._changed.wait()
            if self._error is None and self._given is not None:
                return self._given
            raise self._error or VmferryError("internal", "Nothing was given to be sent.")

    def _send(self) -> None:
        try:
            self._folder.send_once(self._hidden, self, self._metadata)
        except VmferryError as error:
            self._fail(error)
        except BaseException as error:
            self._fail(VmferryError("internal", f"Sending {self._url} ended with {type(error).__name__}."))
            raise
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _fail(self, error: VmferryError) -> None:
        with self._changed:
            if self._error is None:
                hint = "With a resume_window, what was sent survives a broken connection." if error.retryable else ""
                self._error = VmferryError(error.kind, error.message, hint or error.hint, retryable=False)
            self._changed.notify_all()

    def write_at(self, offset: int, data: memoryview) -> None:
        raise VmferryError("internal", f"{self._url} takes parts in their order, not bytes at an offset.")

    def write_part(self, part: Part, data: memoryview) -> str:
        self._wait(lambda: self._next == part.number)
        if part.offset != self._at or part.offset + len(data) > self._size:
            raise VmferryError("internal", f"Part {part.number} of {self._url} is not where it was planned to be.")
        if data:
            with self._changed:
                self._given = data
                self._changed.notify_all()
            self._wait(lambda: self._given is None)
        with self._changed:
            self._next, self._at = part.number + 1, part.offset + len(data)
            self._changed.notify_all()
        return ""

    def _wait(self, ready: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: ready() or self._error is not None)
            if self._error is not None:
                raise self._error

    def confirms(self, receipt: PartReceipt) -> bool:
        return False

    def leave(self) -> None:
        """Nobody could go on with it."""
        self.abort()

    def complete(self, receipts: Sequence[PartReceipt], size: int, *, if_absent: bool = False) -> ObjectInfo:
        if self._done is not None:
            return self._done
        if size != self._size or self._at != size:
            raise VmferryError("internal", f"{self._url} was planned to have {self._size} bytes, not {size}.")
        self._wait(lambda: self._ended)
        self._placement.move(self._hidden, size, if_absent=if_absent)
        self._done = self._placement.placed(size)
        return self._done

    def interrupt(self) -> None:
        """Whoever waits for its turn here waits no longer."""
        self._fail(VmferryError("cancelled", f"Sending {self._url} was interrupted.", retryable=False))

    def abort(self) -> None:
        if self._done is not None:
            return
        self.interrupt()
        self._sender.join()
        self._placement.undo()
        self._folder.remove(self._hidden)
        self._folder.tidy(self._key)

    @property
    def _url(self) -> str:
        return self._folder.url_of(self._key)
