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
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import libvirt

TICK = 1.0  # seconds between two looks at the free space
HEIR_PATIENCE = 30.0  # seconds that whoever takes over may take to start a watchdog of its own
HOLD_PAUSE = 5.0  # seconds between two looks whether there is still something to hold
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
        self.reserve, self.held_reserve = settings["reserve"], settings["held_reserve"]
        self.token, self.images = settings["token"], settings["images"]
        self.frozen = self.beginning = self.done = self.aborted = self.orphaned = self.paused = False
        self.hold, self.pending = settings["hold"], b""
        self.owner = self.owner_of_folder()

    def watch(self) -> None:
        while not self.done:
            ready, _unused, _unused = select.select([0], [], [], TICK)
            if ready:
                data = os.read(0, 65536)
                if not data:
                    if not self.is_inherited():
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
            if isinstance(event, dict):
                self.hold = event["hold"]
                continue
            self.frozen = {"freeze": True, "thawed": False}.get(event, self.frozen)
            self.beginning = {"begin": True, "begun": False}.get(event, self.beginning)
            self.token = "" if event == "kept" else self.token
            self.done = event == "done"

    def owner_of_folder(self) -> Any:
        try:
            return json.loads((self.folder / "owner.json").read_text(encoding="utf-8"))["owner"]
        except (OSError, ValueError, KeyError):
            return None

    def is_inherited(self) -> bool:
        """What the dead exporter left is held for a while. True once another watchdog holds it, or it was removed."""
        self.reserve = self.held_reserve
        ends, looked_at = time.monotonic() + (0 if self.beginning else self.hold), 0.0
        while not self.aborted and time.monotonic() < ends + (HEIR_PATIENCE if self.has_heir() else 0):
            if self.is_relieved():
                return True
            if self.frozen or time.monotonic() - looked_at > HOLD_PAUSE:
                looked_at = time.monotonic()
                if not self.is_worth_holding():
                    break
            time.sleep(TICK)
            self.aborted = self.scratch_runs_low()
        return self.is_relieved()

    def has_heir(self) -> bool:
        found = self.owner_of_folder()
        return found != self.owner and isinstance(found, dict) and Path(f"/proc/{found.get('pid')}").exists()

    def is_relieved(self) -> bool:
        """An heir alone is no relief: it may die before it has a watchdog."""
        try:
            return (self.folder / "watchdog").read_text(encoding="utf-8") != str(os.getpid())
        except OSError as error:
            return isinstance(error, FileNotFoundError)

    def is_worth_holding(self) -> bool:
        """Also thaws: a guest does not wait for the next run. While libvirt is away nobody can tell."""
        import libvirt

        try:
            connection = libvirt.open(self.uri)
        except libvirt.libvirtError:
            return True
        try:
            domain = connection.lookupByUUIDString(self.uuid)
            if self.frozen:
                self.thaw(domain)
            return not self.socket or (bool(domain.isActive()) and self.job_is_ours(domain))
        except libvirt.libvirtError as error:
            return error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN
        finally:
            connection.close()

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
            (self.folder / "stopped").write_text("paused" if self.paused else "", encoding="utf-8")

    def rescue(self) -> None:
        import libvirt

        self.orphaned = True
        deadline = time.monotonic() + RESCUE_PATIENCE
        quiet_since = heir_since = None
        while time.monotonic() < deadline:
            if not (self.frozen or self.beginning):  # which nobody else sees to
                if self.is_relieved():
                    return
                heir_since = (heir_since or time.monotonic()) if self.has_heir() and not self.aborted else None
                if heir_since is not None and time.monotonic() < heir_since + HEIR_PATIENCE:
                    time.sleep(0.2)
                    continue
            try:
                if self.undo():
                    quiet_since = None
                elif quiet_since is None:
                    quiet_since = time.monotonic()
                if quiet_since is not None and self.is_over(time.monotonic() - quiet_since):
                    self.remove_files()
                    return
            except (libvirt.libvirtError, OSError, subprocess.SubprocessError):
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
        """Abort our job, thaw, resume, forget. True where there was a job to abort."""
        import libvirt

        connection = libvirt.open(self.uri)
        try:
            try:
                domain = connection.lookupByUUIDString(self.uuid)
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
                self.forget_bitmaps()
                return False
            if domain.state()[0] in (SHUT_OFF, CRASHED):
                self.forget_token(domain, runs=False)
                return False
            if self.frozen and self.orphaned:
                self.thaw(domain)
            was_ours = self.job_is_ours(domain)
            if was_ours:
                domain.abortJob()
                self.beginning = False
            if domain.state() == [PAUSED, PAUSED_BY_IO_ERROR]:
                domain.resume()
                self.paused = True
            self.forget_token(domain, runs=True)
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

    def forget_token(self, domain: libvirt.virDomain, runs: bool) -> None:
        """What began to record the changes since an export that never came to be."""
        import libvirt

        if not (self.token and self.orphaned):
            return
        if not runs:
            self.forget_bitmaps()
        only_metadata = libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY
        try:
            checkpoint = domain.checkpointLookupByName(self.token)
            try:
                checkpoint.delete(0 if runs else only_metadata)
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_INTERNAL_ERROR:  # "bitmap not found in backing chain"
                    raise
                checkpoint.delete(only_metadata)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT:
                raise

    def forget_bitmaps(self) -> None:
        """Out of the images of a VM that is off, or that was gone as soon as it was."""
        for image in self.images if self.token and self.orphaned else ():
            remove_bitmap(image, self.token)

    def remove_files(self) -> None:
        told = self.aborted and self.hold  # whoever would go on is to hear why there is nothing left to go on with
        shutil.rmtree(self.folder / "qemu" if told else self.folder, ignore_errors=True)
        if told:
            self.say_why()
        if self.socket:
            with suppress(FileNotFoundError):
                Path(self.socket).unlink()


def remove_bitmap(image: str, name: str) -> None:
    """Raises where the image is in use; one that is gone, or that has no such bitmap, is done with."""
    found = qemu_img("info", "-U", "--output=json", "-f", "qcow2", image)
    details = json.loads(found.stdout)["format-specific"]["data"] if found.returncode == 0 else {}
    if any(bitmap["name"] == name for bitmap in details.get("bitmaps", ())):
        qemu_img("bitmap", "--remove", "-f", "qcow2", image, name).check_returncode()


def qemu_img(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # pylint: disable=ansible-bad-function
        ["qemu-img", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False
    )


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
