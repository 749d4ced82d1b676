# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real sshd with keys, configuration and home of its own, for the user who runs it; on loopback, if not elsewhere.

with sshd() as server:
    server.variables          # of an inventory's host that is reached through it
    server.drop()             # every session dies, as with a network that breaks
    with server.away():       # nor does anybody answer meanwhile
        ...
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .ports import free_port

SSHD = "/usr/sbin/sshd"  # it starts itself again for every session, and so must be named by its whole path
START_SECONDS = 10.0
CONFIGURATION = """
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
"""


class SshServer:
    """`variables` reach it from a play, without anybody's own ssh configuration."""

    def __init__(
        self,
        folder: Path,
        address: str = "127.0.0.1",
        enter: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """`enter`: a command that runs another where the address is, such as in a network namespace. `variables`: of
        the environment of sessions.
        """
        self._folder, self.port, self._address, self._enter = folder, free_port(), address, tuple(enter)
        self._daemon: subprocess.Popen[bytes] | None = None
        for name in ("host", "user"):
            _make_key(folder / name)
        authorized = folder / "authorized"
        shutil.copy(folder / "user.pub", authorized)
        (folder / "home").mkdir()
        paths = f"ListenAddress {address}\nPort {self.port}\nHostKey {folder}/host\nAuthorizedKeysFile {authorized}\n"
        # The user's own shell start-up is no part of the test. sshd minds no second line of these.
        session = {"HOME": f"{folder}/home", **(variables or {})}
        paths += f"SetEnv {' '.join(f'{name}={value}' for name, value in session.items())}\n"
        (folder / "sshd_config").write_text(paths + CONFIGURATION)
        kind, key = (folder / "host.pub").read_text().split()[:2]
        (folder / "known").write_text(f"[{address}]:{self.port} {kind} {key}\n")

    @property
    def private_key(self) -> Path:
        return self._folder / "user"

    @property
    def known_hosts(self) -> Path:
        return self._folder / "known"

    @property
    def variables(self) -> dict[str, Any]:
        known = f"-o UserKnownHostsFile={self._folder}/known -o GlobalKnownHostsFile=/dev/null"
        return {
            "ansible_connection": "ssh",
            "ansible_host": self._address,
            "ansible_port": self.port,
            "ansible_user": getpass.getuser(),
            "ansible_ssh_private_key_file": str(self._folder / "user"),
            "ansible_ssh_common_args": f"-F none -o StrictHostKeyChecking=yes {known}",
            "ansible_control_path_dir": str(self._folder / "cp"),
        }

    def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's empty root directory, which systemd makes
        with (self._folder / "log").open("ab") as log:
            self._daemon = subprocess.Popen(
                [*self._enter, SSHD, "-D", "-e", "-f", str(self._folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self._answers():
                return
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"sshd does not answer:\n{(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        scan = ["ssh-keyscan", "-T", "1", "-p", str(self.port), self._address]
        return bool(subprocess.run([*self._enter, *scan], capture_output=True, check=False).stdout)

    def stop(self) -> None:
        """With its sessions."""
        if self._daemon is None:
            return
        self._daemon.send_signal(signal.SIGSTOP)  # no new session while the old ones are ended
        os.waitid(os.P_PID, self._daemon.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self.drop()
        self._daemon.kill()
        self._daemon.wait()
        self._daemon = None

    def drop(self) -> None:
        """End the sessions, not what was started in them and detached itself."""
        if self._daemon is None:
            raise RuntimeError("this sshd does not run")
        children = Path(f"/proc/{self._daemon.pid}/task/{self._daemon.pid}/children").read_text().split()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)

    @contextmanager
    def away(self) -> Iterator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()


@contextmanager
def sshd() -> Iterator[SshServer]:
    # Not below $TMPDIR: the control path is that of a unix socket, which has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="vmferry-ssh-", dir="/tmp") as folder:
        server = SshServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _make_key(path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
