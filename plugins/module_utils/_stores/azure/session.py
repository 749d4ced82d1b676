# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How bytes travel to Azure and back: without copies, and with signs of life while they move.

The SDK hands every request to a session of `requests`, which is where its bodies can be got hold of.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Callable, Protocol

from ..memory_body import MemoryBody
from ..server_clock import ServerClock

if TYPE_CHECKING:
    import requests


class Answer(Protocol):
    """Takes the body of an answer in the moment in which it arrives."""

    def take(self, response: requests.Response) -> None: ...


class AzureSession(Protocol):
    @property
    def now(self) -> float:
        """Seconds since the epoch, by the server's clock as far as it was told; else by ours."""


def open_session(connections: int, alive: Callable[[], object]) -> Any:
    """A `requests.Session` whose `request` also knows `answer`, an `Answer`; such keywords of a call come through the
    SDK as they are. `alive` is called while the bytes of a body move.
    """
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection

    class Session(requests.Session):
        _clock = ServerClock()

        @property
        def now(self) -> float:
            return self._clock.now

        def request(self, method: Any, url: Any, *arguments: Any, answer: Any = None, **named: Any) -> Any:
            data = named.get("data")
            if isinstance(data, bytes) and data:
                data = named["data"] = MemoryBody(memoryview(data), alive)
            if isinstance(data, MemoryBody):
                data.send()
            response = super().request(method, url, *arguments, **named)
            self._clock.learn(response.headers.get("Date", ""))
            if answer is not None and response.status_code in (200, 206):
                try:
                    answer.take(response)
                finally:
                    # A connection that still has bytes of an answer in it cannot be used again.
                    response.close()
            return response

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
            options = [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
            super().init_poolmanager(*arguments, **{**named, "socket_options": options})

    session = Session()
    session.auth = lambda request: request  # or it looks into ~/.netrc, and what it finds replaces the signature
    for scheme in ("http://", "https://"):
        session.mount(scheme, Adapter(pool_maxsize=connections, max_retries=0))
    return session
