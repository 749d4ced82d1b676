# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM that only has to show that it boots. It is never defined, and ends with the connection that started it."""

from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ET
from contextlib import suppress
from threading import Lock, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Callable, TypeVar

from ..._errors import VmferryError
from ..base import BootMarkers, NotBooted
from . import domain_xml
from .connection import LONG_CALL_LIMIT, Connection
from .errors import is_disconnect
from .import_xml import AGENT
from .screen import Screen

if TYPE_CHECKING:
    import libvirt

Result = TypeVar("Result")
LOOK = 0.25  # seconds between two looks
AGENT_TIMEOUT = 5  # seconds; an agent that is there answers at once
PING = '{"execute": "guest-ping"}'
LONGEST_OUTPUT = 1 << 20  # characters of the console that are kept
TOLD = 200  # characters of it in an error
ENDED = (5, 6)  # virDomainState: shut off, crashed


def trial_xml(xml: str, markers: BootMarkers, job_id: str) -> str:
    """With the ports that the markers come through, should the VM have none; and with whose it is."""
    root = domain_xml.parse(xml)
    for description in root.findall("description"):
        root.remove(description)
    ET.SubElement(root, "description").text = f"vmferry.migrate sees whether an export boots. Job {job_id}."
    devices = root.find("devices")
    if devices is None:
        raise VmferryError("internal", "The XML of a VM has no devices.")
    if markers.serial and devices.find("serial") is None:
        ET.SubElement(devices, "serial", type="pty")
    if markers.screen and devices.find("video") is None:
        ET.SubElement(ET.SubElement(devices, "video"), "model", type="vga")
    if markers.agent and devices.find(f"channel/target[@name='{AGENT}']") is None:
        channel = ET.SubElement(devices, "channel", type="unix")
        ET.SubElement(channel, "target", type="virtio", name=AGENT)
    return ET.tostring(root, "unicode")


class Trial:
    def __init__(self, uri: str, name: str, xml: str, looks: bool = False) -> None:
        """The connection is its own: the VM lives as long as it does. `looks`: at its screen."""
        self._connection, self._name, self._xml, self._looks = Connection(uri), name, xml, looks
        self._console: _Console | None = None
        self._screen: Screen | None = None

    def __enter__(self) -> Trial:
        try:
            self._connection.once(f"Starting {self._name}", self._start, limit=LONG_CALL_LIMIT)
            if domain_xml.parse(self._xml).find("devices/serial") is not None:
                self._console = _Console(self._connection.uri, self._name)
            if self._looks:
                self._screen = Screen(self._picture)
            self._call("Starting", lambda domain: domain.resume())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def wait_for(self, markers: BootMarkers, wait: Callable[[float], object]) -> float:
        started = time.monotonic()
        waiting = {
            name: seen
            for name, asked, seen in (
                (f"{markers.serial!r} on its serial port", bool(markers.serial), lambda: self._shows(markers.serial)),
                ("an answer of its guest agent", markers.agent, self._agent_answers),
                ("a screen that is not its firmware's", markers.screen, self._shows_its_own),
            )
            if asked
        }
        while True:
            ended = self._has_ended()
            if ended and self._console is not None:
                self._console.finish()
            waiting = {name: seen for name, seen in waiting.items() if not seen()}
            lasted = time.monotonic() - started
            if not waiting:
                return lasted
            if ended or lasted > markers.timeout:
                raise self._not_booted(" and ".join(waiting), lasted, ended)
            wait(LOOK)

    def _start(self, opened: libvirt.virConnect) -> None:
        """Paused until the console is open: what nobody reads is lost."""
        import libvirt

        flags = libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY
        self._domain = opened.createXML(self._xml, flags | libvirt.VIR_DOMAIN_START_VALIDATE)

    def _end(self) -> None:
        """Where libvirt does not answer, closing the connection has the same effect, and the undoing looks again."""
        import libvirt

        def destroy(opened: libvirt.virConnect) -> None:
            try:
                opened.lookupByName(self._name).destroy()
            except libvirt.libvirtError as error:
                if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
                    raise

        with suppress(VmferryError):
            self._connection.call(f"Ending {self._name}", destroy)
        if self._console is not None:
            self._console.close()
        self._connection.close()

    def _has_ended(self) -> bool:
        import libvirt

        def look(domain: libvirt.virDomain) -> bool:
            try:
                return domain.state()[0] in ENDED
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    return True
                raise

        return self._call("Looking at", look)

    def _shows(self, pattern: str) -> bool:
        return self._console is not None and re.search(pattern, self._console.text, re.MULTILINE) is not None

    def _shows_its_own(self) -> bool:
        return self._screen is not None and not self._has_ended() and self._screen.is_its_own()

    def _picture(self) -> bytes:
        def take(opened: libvirt.virConnect) -> bytes:
            stream = opened.newStream()
            self._domain.screenshot(stream, 0)
            found = b""
            while data := stream.recv(1 << 18):
                found += data
            stream.finish()
            return found

        return self._connection.once(f"Looking at the screen of {self._name}", take)

    def _agent_answers(self) -> bool:
        import libvirt
        import libvirt_qemu

        def ping(domain: libvirt.virDomain) -> bool:
            try:
                libvirt_qemu.qemuAgentCommand(domain, PING, AGENT_TIMEOUT, 0)
            except libvirt.libvirtError as error:
                if is_disconnect(error):
                    raise
                return False  # not yet
            return True

        return self._call("Asking the agent of", ping)

    def _call(self, doing: str, work: Callable[[libvirt.virDomain], Result]) -> Result:
        return self._connection.once(f"{doing} {self._name}", lambda _opened: work(self._domain))

    def _not_booted(self, missing: str, lasted: float, ended: bool) -> NotBooted:
        how = f", and powered itself off after {lasted:.1f} s" if ended else f" within {lasted:.0f} s"
        text = " ".join(self._console.text.split()) if self._console is not None else ""
        last = "".join(letter for letter in text if letter.isprintable())[-TOLD:]
        said = f" The last that it printed was: {last}" if last else " It printed nothing on a serial port."
        return NotBooted("timeout", f"{self._name} did not show {missing}{how}.{said}", retryable=False)


class _Console:
    """What a VM prints, read by a thread of its own: nothing interrupts a stream but its end. The connection is its own
    as well: calls of others, beside a thread that waits for a stream, were seen to wait as long as that thread.
    """

    def __init__(self, uri: str, name: str) -> None:
        self._connection, self._text, self._lock = Connection(uri), "", Lock()
        self._stream = self._connection.once(f"Opening the console of {name}", lambda opened: _opened(opened, name))
        self._thread = Thread(target=self._run, name="vmferry-console", daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        with self._lock:
            return self._text

    def finish(self) -> None:
        """Of a VM that ended: until the last of it was read."""
        self._thread.join(2.0)

    def close(self) -> None:
        self.finish()
        self._connection.close()

    def _run(self) -> None:
        import libvirt

        with suppress(libvirt.libvirtError):  # the VM, or libvirt, is gone
            while data := self._stream.recv(65536):
                with self._lock:
                    printed = data.decode("utf-8", "replace").replace("\r", "")
                    self._text = (self._text + printed)[-LONGEST_OUTPUT:]


def _opened(opened: libvirt.virConnect, name: str) -> libvirt.virStream:
    import libvirt

    stream = opened.newStream()
    opened.lookupByName(name).openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
    return stream
