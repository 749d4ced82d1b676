# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A private libvirt with its own socket, state and machines, beside whatever libvirt the host already runs.

    with LibvirtRig() as rig:
        rig.uri           # "qemu:///session?socket=/tmp/vmferry-lv-…/run/libvirt/libvirt-sock", usable from any process
        rig.environment   # variables for such a process
        rig.directory     # room for disks and sockets; removed by stop()
        rig.connect()     # the rig's own libvirt.virConnect, reopened after a restart
        rig.kill()        # SIGKILL to libvirtd; the machines live on
    rig.cut_power()   # everything ends as when the host loses its power; start() is the next boot
        rig.hang()        # a context in which libvirtd accepts connections and answers nobody
        rig.start()       # a new libvirtd finds them again

libvirtd keeps everything under the XDG directories when it is not root. Run by root, it is put into a user namespace
in which root has another number: it then behaves as an ordinary user's daemon, yet still owns what root owns. No
systemd, D-Bus, virtlogd or change to the host is involved, and rigs can run side by side.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rigs import guests

if TYPE_CHECKING:
    import libvirt

START_SECONDS = 30
STOP_SECONDS = 20
ACCELERATOR_SECONDS = 1.5  # a useful accelerator boots a boot sector in a tenth of that
EMULATOR = "/usr/bin/qemu-system-x86_64"
QEMU_CONF = 'stdio_handler = "file"\nsecurity_driver = "none"\n'


class LibvirtRig:
    """One libvirtd. Not started until start() or `with`."""

    def __init__(self) -> None:
        self.directory = Path()
        self.uri = ""
        self.environment: dict[str, str] = {}
        self._started_in = dict(os.environ)  # a daemon that a test starts again is no child of that test
        self._daemon: subprocess.Popen[bytes] | None = None
        self._connection: libvirt.virConnect | None = None

    def __enter__(self) -> LibvirtRig:
        self.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start libvirtd and wait until it answers. After kill(), continue with the same machines."""
        if self._daemon is not None:
            raise RuntimeError("this libvirt already runs")
        if not self.uri:
            self._lay_out()
        log = (self.directory / "libvirtd.log").open("ab")
        with log:
            self._daemon = subprocess.Popen(
                [*_as_ordinary_user(), "/usr/sbin/libvirtd"],
                env={**self._started_in, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )
        self._wait_until_answering(self._daemon)
        self.connect().getDomainCapabilities(EMULATOR)  # probes QEMU now, not within the first test

    def connect(self) -> libvirt.virConnect:
        """The rig's own connection. Do not close it."""
        import libvirt

        if self._connection is None or not self._connection.isAlive():
            self._connection = libvirt.open(self.uri)
        return self._connection

    def kill(self) -> None:
        """End libvirtd as a crash would. Machines and NBD exports stay; existing connections break."""
        if self._daemon is None:
            raise RuntimeError("this libvirt does not run")
        self._daemon.kill()
        self._daemon.wait()
        self._daemon = None
        self._disconnect()

    def shut_down(self) -> None:
        """End libvirtd as a host that shuts down does, once all machines are off. start() is the next boot."""
        if self._daemon is None:
            raise RuntimeError("this libvirt does not run")
        self._disconnect()
        self._daemon.terminate()
        self._daemon.wait(STOP_SECONDS)
        self._daemon = None
        self._lose_run_directory()

    def cut_power(self) -> None:
        self.kill()
        _end_machines_of(self.directory)
        self._lose_run_directory()

    def _lose_run_directory(self) -> None:
        """It is in memory."""
        run = self.directory / "run"
        shutil.rmtree(run)
        run.mkdir(mode=0o700)

    @contextlib.contextmanager
    def hang(self) -> Iterator[None]:
        if self._daemon is None:
            raise RuntimeError("this libvirt does not run")
        self._daemon.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._daemon.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the daemon and every machine, and remove all files. Does nothing when already stopped."""
        atexit.unregister(self.stop)
        if not self.uri:
            return
        self._disconnect()
        if self._daemon is not None:
            self._daemon.terminate()
            try:
                self._daemon.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
            self._daemon = None
        _end_machines_of(self.directory)
        shutil.rmtree(self.directory)
        self.uri = ""

    def _lay_out(self) -> None:
        # Not below $TMPDIR: a unix socket's path has at most 107 bytes, and QEMU's lie deep below this directory.
        self.directory = Path(tempfile.mkdtemp(prefix="vmferry-lv-", dir="/tmp"))
        atexit.register(self.stop)
        variables = {
            "HOME": "home",
            "XDG_RUNTIME_DIR": "run",
            "XDG_CONFIG_HOME": "config",
            "XDG_CACHE_HOME": "cache",
            "XDG_DATA_HOME": "data",
        }
        for name in variables.values():
            (self.directory / name).mkdir(mode=0o700)
        self.environment = {variable: str(self.directory / name) for variable, name in variables.items()}
        self.environment["LIBVIRT_AUTOSTART"] = "0"  # a client must not bring a killed daemon back
        configuration = self.directory / "config" / "libvirt" / "qemu.conf"
        configuration.parent.mkdir()
        configuration.write_text(QEMU_CONF)
        probed = self.directory / "cache" / "libvirt" / "qemu" / "cache" / "capabilities"
        probed.parent.mkdir(parents=True)
        probed.symlink_to(guests.cache_directory("capabilities"))
        self.uri = f"qemu:///session?socket={self.directory}/run/libvirt/libvirt-sock"

    def _wait_until_answering(self, daemon: subprocess.Popen[bytes]) -> None:
        import libvirt

        libvirt.registerErrorHandler(lambda _context, _error: None, None)  # it would print every refused attempt
        deadline = time.monotonic() + START_SECONDS
        socket = self.directory / "run" / "libvirt" / "libvirt-sock"
        while True:
            reason = "no socket yet"
            if socket.exists():
                try:
                    self._connection = libvirt.open(self.uri)
                    return
                except libvirt.libvirtError as error:
                    reason = str(error)
            if daemon.poll() is not None or time.monotonic() > deadline:
                log = (self.directory / "libvirtd.log").read_text()[-2000:]
                raise RuntimeError(f"libvirtd does not answer ({reason}); its log ends:\n{log}")
            time.sleep(0.05)

    def _disconnect(self) -> None:
        import libvirt

        if self._connection is not None:
            with contextlib.suppress(libvirt.libvirtError):  # the daemon may be gone already
                self._connection.close()
            self._connection = None


def _as_ordinary_user() -> list[str]:
    if os.geteuid() != 0:
        return []
    return ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]


def _end_machines_of(directory: Path) -> None:
    """QEMU processes carry the rig's own directory in their arguments, so none but the rig's can match."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile
        machine = b"qemu-system" in arguments[0] and any(os.fsencode(f"{directory}/") in part for part in arguments)
        if machine:
            _end(int(process.name))


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":  # dead; its parent collects it
            return
        time.sleep(0.01)
    raise RuntimeError(f"QEMU process {pid} does not end")


@functools.cache
def best_accelerator() -> str:
    """`kvm` or `tcg`, by booting a boot sector: /dev/kvm may exist and yet be slower than no acceleration."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    answer = guests.cache_directory("accelerator") / boot
    if not answer.exists():
        fresh = answer.with_name(f"{boot}.{os.getpid()}")
        fresh.write_text("kvm" if _boots_quickly_under_kvm() else "tcg")
        fresh.replace(answer)
    return answer.read_text()


def _boots_quickly_under_kvm() -> bool:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    with tempfile.TemporaryDirectory() as directory:
        disk = Path(directory) / "disk.raw"
        console = Path(directory) / "console"
        guests.mbr_disk(disk, "probe")
        command = ["qemu-system-x86_64", "-accel", "kvm", "-m", "64", "-nodefaults", "-display", "none"]
        command += ["-drive", f"file={disk},if=virtio,format=raw", "-serial", f"file:{console}"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as machine:
            deadline = time.monotonic() + ACCELERATOR_SECONDS
            marker = guests.boot_marker("probe")
            found = False
            while not found and machine.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
                found = console.exists() and marker in console.read_text(errors="replace")
            machine.kill()
        return found
