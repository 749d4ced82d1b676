# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Outlives the exporter and undoes what it left: a dead client must never freeze or pause a guest, or fill its host.

Run as a program of its own (see watchdog_launcher), it imports nothing of ours. Standard input is a pipe whose other
end only the exporter holds, and carries JSON lines: first the settings, then what the exporter is about to do. The end
of the pipe without a "done" before it means that the exporter is dead, however it died.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys
import time
import xml.etree.ElementTree as ET
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import libvirt

TICK = 1.0  # seconds between two looks at the free space
RESCUE_PAUSE = 1.0  # seconds between two attempts to reach libvirt
RESCUE_PATIENCE = 3600.0  # seconds; libvirtd may be down for maintenance
BEGIN_PATIENCE = 60.0  # seconds that libvirt may still take to begin a job that nobody waits for any more
AGENT_TIMEOUT = 10  # seconds; libvirt's own is infinite
THAW_PATIENCE = 600.0  # seconds for an agent that does not answer
PAUSED, PAUSED_BY_IO_ERROR, SHUT_OFF, CRASHED = 3, 5, 5, 6  # virDomainState, virDomainPausedReason


class Watchdog:
    def __init__(self, settings: dict[str, Any]) -> None:
        self.uri, self.uuid = settings["uri"], settings["uuid"]
        self.folder, self.socket = Path(settings["folder"]), settings["socket"]
        self.reserve = settings["reserve"]
        self.frozen = self.beginning = self.done = self.aborted = self.orphaned = False
        self.pending = b""

    def watch(self) -> None:
        while not self.done:
            ready, _unused, _unused = select.select([0], [], [], TICK)
            if ready:
                data = os.read(0, 65536)
                if not data:
                    self.rescue()
                    return
                self.hear(data)
            elif self.aborted:
                self.say_why()
            elif self.scratch_runs_low():
                self.stop_in_time()

    def hear(self, data: bytes) -> None:
        *lines, self.pending = (self.pending + data).split(b"\n")
        for line in lines:
            event = json.loads(line)
            self.frozen = {"freeze": True, "thawed": False}.get(event, self.frozen)
            self.beginning = {"begin": True, "begun": False}.get(event, self.beginning)
            self.done = event == "done"

    def scratch_runs_low(self) -> bool:
        try:
            found = os.statvfs(self.folder)
        except OSError:
            return False
        return found.f_bavail * found.f_frsize < self.reserve

    def stop_in_time(self) -> None:
        """The export is lost, the guest is not: with a full scratch its own writes would fail."""
        import libvirt

        try:
            self.undo()
        except libvirt.libvirtError:
            return  # the next tick tries again
        self.aborted = True
        self.say_why()

    def say_why(self) -> None:
        with suppress(OSError):  # there may be no room for it before libvirt has removed the scratch files
            (self.folder / "stopped").touch()

    def rescue(self) -> None:
        import libvirt

        self.orphaned = True
        deadline = time.monotonic() + RESCUE_PATIENCE
        quiet_since = None
        while time.monotonic() < deadline:
            try:
                if self.undo():
                    quiet_since = None
                elif quiet_since is None:
                    quiet_since = time.monotonic()
                if quiet_since is not None and self.is_over(time.monotonic() - quiet_since):
                    self.remove_files()
                    return
            except libvirt.libvirtError:
                quiet_since = None
                if not self.folder.exists():  # somebody else has cleaned up
                    return
            time.sleep(RESCUE_PAUSE if self.beginning or self.frozen else 0.2)

    def is_over(self, quiet_for: float) -> bool:
        """A request that was on its way when its sender died is still carried out by libvirtd."""
        if self.frozen and quiet_for < THAW_PATIENCE:
            return False
        return quiet_for >= (BEGIN_PATIENCE if self.beginning else 0.5)

    def undo(self) -> bool:
        """Abort our job, thaw, resume. True where there was a job to abort."""
        import libvirt

        connection = libvirt.open(self.uri)
        try:
            try:
                domain = connection.lookupByUUIDString(self.uuid)
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    return False
                raise
            if domain.state()[0] in (SHUT_OFF, CRASHED):
                return False
            if self.frozen and self.orphaned:
                self.thaw(domain)
            was_ours = self.job_is_ours(domain)
            if was_ours:
                domain.abortJob()
                self.beginning = False
            if domain.state() == [PAUSED, PAUSED_BY_IO_ERROR]:
                domain.resume()
            return was_ours
        finally:
            connection.close()

    def thaw(self, domain: libvirt.virDomain) -> None:
        import libvirt

        try:
            domain.agentSetResponseTimeout(AGENT_TIMEOUT)
            try:
                domain.fsThaw()
            finally:
                domain.agentSetResponseTimeout(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK)
            self.frozen = False
        except libvirt.libvirtError as error:
            if error.get_error_code() not in (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_AGENT_UNSYNCED):
                self.frozen = False  # it is not frozen, or has no agent any more; asking again would not help

    def job_is_ours(self, domain: libvirt.virDomain) -> bool:
        import libvirt

        try:
            root = ET.fromstring(domain.backupGetXMLDesc())
        except libvirt.libvirtError as error:
            if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN_BACKUP, libvirt.VIR_ERR_OPERATION_INVALID):
                return False
            raise
        server = root.find("server")
        return server is not None and server.get("socket") == self.socket

    def remove_files(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(FileNotFoundError):
            Path(self.socket).unlink()


def first_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            raise SystemExit(0)
        line += byte
    return line


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # the end of the pipe decides, and nothing else
        signal.signal(number, signal.SIG_IGN)
    settings = json.loads(first_line())
    sys.path[:0] = settings["path"]
    os.umask(0o077)
    import libvirt

    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    sign = Path(settings["folder"], "watchdog")
    sign.with_suffix(".new").write_text(str(os.getpid()), encoding="utf-8")
    sign.with_suffix(".new").replace(sign)
    Watchdog(settings).watch()


if __name__ == "__main__":
    main()
