# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The serial port of a guest: what it prints, and commands for the Linux guests of rigs.guests.

console = Console(path)                          # the unix socket of a virtual serial port
console.wait_for("GUEST-READY", 60)              # -> everything printed up to and with the marker
console.run("dd if=/dev/zero of=/dev/vda bs=1M count=1 seek=5 conv=fsync")  # -> output, or CommandFailed
console.type("x")                                # for the guests of mbr_disk, which power off at that
with console.writing("/dev/vda", 0, 64 << 20):   # the guest writes, zeroes and discards all the while
    ...
"""

from __future__ import annotations

import base64
import contextlib
import re
import shlex
import socket
import time
from pathlib import Path
from typing import Iterator

CONNECT_SECONDS = 10
# The guest's terminal buffers 4096 bytes; a serial port without flow control drops what does not fit.
LINE_BYTES = 3000
WRITER = """\
n=0
while [ ! -e /run/writer.stop ]; do
  at=$((first + (RANDOM * 32768 + RANDOM) % blocks))
  case $((n % 8)) in
  5) dd if=/dev/zero of=$device bs=65536 count=1 seek=$at conv=notrunc,fsync ;;
  6) /sbin/blkdiscard -f -o $((at * 65536)) -l 65536 $device ;;
  *) dd if=/dev/urandom of=$device bs=65536 count=1 seek=$at conv=notrunc,fsync ;;
  esac || { echo failed > /run/writer.stop; exit 1; }
  n=$((n + 1))
  echo $n > /run/writer.next && mv /run/writer.next /run/writer.count
done
"""


class CommandFailed(RuntimeError):
    """A command in the guest ended with a status other than 0."""


class Console:
    """One connection to a serial port. QEMU drops what a machine prints while nobody is connected."""

    def __init__(self, path: Path) -> None:
        self.transcript = ""
        self._seen = 0  # how much of the transcript earlier waits have consumed
        self._number = 0
        self._socket = _connect(path)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    def wait_for(self, marker: str, timeout: float = 60) -> str:
        """Everything printed since the last wait, up to the marker's end; TimeoutError says what came instead."""
        return self._wait_for(re.compile(re.escape(marker)), timeout)

    def type(self, text: str) -> None:
        """Send it as it is."""
        self._socket.sendall(text.encode())

    def run(self, command: str, timeout: float = 60) -> str:
        """Run shell commands in the guest; their output, stripped. CommandFailed has it if the last one fails."""
        self._number += 1
        encoded = base64.b64encode(command.encode()).decode()
        if len(encoded) > LINE_BYTES:
            raise ValueError("the command is too long for one line of the serial port")
        self._socket.settimeout(timeout)
        self._socket.sendall(f"{self._number} {encoded}\n".encode())
        self._wait_for(re.compile(f"<<{self._number}\r?\n"), timeout)
        answer = self._wait_for(re.compile(f">>{self._number} (\\d+)\r?\n"), timeout)
        output, _unused, status = answer.rpartition(f">>{self._number} ")
        output = output.replace("\r", "").strip()
        if int(status):
            raise CommandFailed(f"{command!r} ended with {int(status)}: {output}")
        return output

    def start_writer(self, device: str, offset: int, length: int) -> None:
        """Put random data, zeros and discards on random 64 KiB blocks of a range, each flushed, until stop_writer()."""
        region = f"device={shlex.quote(device)} first={offset // 65536} blocks={length // 65536}\n"
        self.run("rm -f /run/writer.stop; echo 0 > /run/writer.count")
        script = base64.b64encode((region + WRITER).encode()).decode()
        self.run(f"echo {script} | base64 -d > /run/writer")
        self.run("sh /run/writer > /run/writer.log 2>&1 & echo $! > /run/writer.pid")
        self.run("while [ $(cat /run/writer.count) = 0 ] && [ ! -e /run/writer.stop ]; do sleep 0.05; done")

    def stop_writer(self) -> int:
        """End the writer after its current block; how many blocks it has written."""
        failed = self.run("cat /run/writer.stop 2>/dev/null || touch /run/writer.stop")
        if failed:
            raise CommandFailed(f"the writer ended by itself: {self.run('tail -n 3 /run/writer.log')}")
        self.run("while [ -d /proc/$(cat /run/writer.pid) ]; do sleep 0.05; done; sync")
        return int(self.run("cat /run/writer.count"))

    @contextlib.contextmanager
    def writing(self, device: str, offset: int, length: int) -> Iterator[None]:
        self.start_writer(device, offset, length)
        try:
            yield
        finally:
            self.stop_writer()

    def _wait_for(self, pattern: re.Pattern[str], timeout: float) -> str:
        deadline = time.monotonic() + timeout
        while not (match := pattern.search(self.transcript, self._seen)):
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no {pattern.pattern!r} within {timeout} s; last came: {self.transcript[-500:]!r}")
            self._socket.settimeout(left)
            try:
                received = self._socket.recv(65536)
            except TimeoutError:
                continue
            if not received:
                raise EOFError(f"the machine is gone before {pattern.pattern!r}; last came: {self.transcript[-500:]!r}")
            self.transcript += received.decode("latin-1")
        start, self._seen = self._seen, match.end()
        return self.transcript[start : match.end()]


def _connect(path: Path) -> socket.socket:
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            return connection
        except OSError:
            connection.close()
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)
