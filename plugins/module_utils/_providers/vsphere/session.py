# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A session with a vCenter or an ESXi host: begun when first needed, kept alive, and begun again where it was ended."""

from __future__ import annotations

import re
from http.client import HTTPSConnection
from threading import Event, RLock, Thread
from typing import TYPE_CHECKING, Any, Callable, Sequence, TypeVar

from ..._errors import VmferryError
from .faults import is_session_gone, translated
from .settings import VsphereSettings
from .tls import trusting

if TYPE_CHECKING:
    from pyVmomi.SoapAdapter import SoapStubAdapter

Result = TypeVar("Result")
CALL_LIMIT = 60  # seconds without an answer, and to connect
IDLE_LIMIT = 20  # seconds that a connection is used again after: servers and firewalls close it sooner than pyVmomi
KEEP_ALIVE = 300.0  # seconds; vCenter ends a session after 30 minutes without a call, and counts no download as one
OLDEST = "6.5"


class Session:
    """Threads may share it. Managed objects stay good when the session is begun again: they go by the same stub."""

    def __init__(self, settings: VsphereSettings) -> None:
        self._settings = settings
        self._lock = RLock()
        self._stub: SoapStubAdapter | None = None
        self._content: Any = None
        self._logins = 0
        self._key = ""
        self._closed = Event()
        self._keeper = Thread(target=self._keep_alive, name="vmferry-vsphere", daemon=True)

    @property
    def address(self) -> str:
        return self._settings.address

    @property
    def key(self) -> str:
        """By which the server knows this session; no secret, and no use without its cookie."""
        return self._key

    def cookie(self) -> str:
        """By which the API's own server knows this session, as a request sends it back (RFC 6265, 5.4). A secret."""
        self._connected("Connecting")
        with self._lock:
            return str(self._stub.cookie if self._stub is not None else "").partition(";")[0]

    def managed(self, kind: str, moref: str) -> Any:
        """An object of the inventory by its type, such as `VirtualMachine`, and id. Nothing is asked of the server."""
        from pyVmomi import vim

        self._connected("Connecting")
        return getattr(vim, kind)(moref, self._stub)

    def _service(self) -> Any:
        from pyVmomi import vim

        return vim.ServiceInstance("ServiceInstance", self._stub)

    def read(self, doing: str, work: Callable[[Any], Result]) -> Result:
        """`work` with the ServiceContent, once more where the connection turned out to be dead: it changes nothing."""
        try:
            return self.once(doing, work)
        except VmferryError as error:
            if error.kind != "network" or not error.retryable:
                raise
        return self.once(doing, work)

    def once(self, doing: str, work: Callable[[Any], Result]) -> Result:
        """`work` with the ServiceContent. It is begun anew only where the server refused the session: that did nothing.

        After `network` and `timeout` what was asked may yet have happened.
        """
        content = self._connected(doing)
        with translated(doing, self.address):
            seen = self._logins
            try:
                return work(content)
            except Exception as error:
                if not is_session_gone(error):
                    raise
            self._log_in_again(seen)
            return work(content)

    def renew(self) -> None:
        """One call, before which the session is begun again where the server has ended it."""
        self.once("Asking for the time", lambda _content: self._service().CurrentTime())

    def close(self) -> None:
        """For good, whatever goes wrong: the server forgets a session that nobody uses."""
        with self._lock:
            self._closed.set()
            stub, self._stub = self._stub, None
            content, self._content = self._content, None
        if stub is None:
            return
        self._keeper.join(CALL_LIMIT)  # or its call would come after the logout
        try:
            with translated("Logging out", self.address):
                content.sessionManager.Logout()
        except VmferryError:
            pass
        finally:
            stub.DropConnections()

    def _connected(self, doing: str) -> Any:
        with self._lock:
            self._refuse_closed()
            if self._content is None:
                with translated(f"{doing} at {self.address}", self.address):
                    self._connect()
            return self._content

    def _connect(self) -> None:
        from pyVmomi import vim
        from pyVmomi.SoapAdapter import SoapStubAdapter

        given = self._settings
        stub = SoapStubAdapter(
            host=given.hostname,
            port=given.port,
            version=newest_known(OLDEST, given.address),  # until the server tells which it knows
            sslContext=trusting(given.validate_certs, given.ca_path, given.thumbprint),
            httpConnectionTimeout=CALL_LIMIT,
            connectionPoolTimeout=IDLE_LIMIT,
        )
        if given.proxy_host:
            stub.scheme = self._through_proxy
        content = vim.ServiceInstance("ServiceInstance", stub).RetrieveServiceContent()
        stub.ComputeVersionInfo(newest_known(content.about.apiVersion, given.address))
        self._log_in(content)
        self._stub, self._content = stub, content
        self._keeper.start()

    def _through_proxy(self, host: str, port: int | None = None, **options: Any) -> HTTPSConnection:
        """As pyVmomi makes a connection to the server. Its own way through a proxy fails in some of its versions."""
        connection = HTTPSConnection(self._settings.proxy_host, self._settings.proxy_port, **options)
        connection.set_tunnel(self._settings.hostname, self._settings.port)
        return connection

    def _log_in(self, content: Any) -> None:
        self._key = str(content.sessionManager.Login(self._settings.username, self._settings.password).key)
        self._logins += 1

    def _log_in_again(self, seen: int) -> None:
        """Unless another thread did so since."""
        with self._lock:
            self._refuse_closed()
            if self._logins == seen:
                self._log_in(self._content)

    def _refuse_closed(self) -> None:
        if self._closed.is_set():
            raise VmferryError("internal", f"The session with {self.address} was closed already.")

    def _keep_alive(self) -> None:
        """It begins connected, so that it never connects by itself."""
        while not self._closed.wait(KEEP_ALIVE):
            try:
                self.renew()
            except VmferryError:
                continue  # whoever works with it will be told


def newest_known(api_version: str, address: str) -> str:
    """pyVmomi's name of the newest API that both know. Raises `unsupported` for a server that is too old."""
    from pyVmomi.VmomiSupport import GetServiceVersions, versionIdMap

    served = _numbers(api_version)
    if served < _numbers(OLDEST):
        raise VmferryError(
            "unsupported",
            f"{address} speaks version {api_version or 'none'} of the vSphere API; at least {OLDEST} is needed.",
            "Upgrade it, or export its VMs as OVF or OVA and import these.",
        )
    known: Sequence[str] = [name for name in GetServiceVersions("vim25") if _numbers(versionIdMap[name])]
    return max(
        (name for name in known if _numbers(versionIdMap[name]) <= served), key=lambda one: _numbers(versionIdMap[one])
    )


def _numbers(version: str) -> tuple[int, ...]:
    """Of `8.0.3.0`; nothing of what is no such version."""
    return tuple(map(int, version.split("."))) if re.fullmatch(r"\d+(\.\d+)*", version or "") else ()
