# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real NBD servers, `qemu-nbd` and `nbdkit`, started by hand: the product's own way to start one is under test too."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT = 20.0  # seconds


@contextmanager
def listening(command: Sequence[str], address: str | tuple[str, int]) -> Iterator[subprocess.Popen[bytes]]:
    """A server in the foreground, from when it greets until the context is left."""
    server = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not greets(address):
            if server.poll() is not None:
                raise RuntimeError(f"{command[0]} ended with status {server.returncode}: {command}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not serve on {address}")
            time.sleep(0.01)
        yield server
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextmanager
def qemu_nbd(image: Path, format: str, *options: str) -> Iterator[Path]:
    """Yields the socket."""
    with socket_path() as path:
        command = ["qemu-nbd", "--persistent", "--shared=64", f"--socket={path}", f"--format={format}", *options]
        with listening([*command, str(image)], str(path)):
            yield path


@contextmanager
def nbdkit(*words: str) -> Iterator[Path]:
    """`words` as on nbdkit's command line: options, plugin, parameters. Yields the socket."""
    with socket_path() as path, listening(nbdkit_command(f"--unix={path}", words), str(path)):
        yield path


@contextmanager
def nbdkit_tcp(*words: str) -> Iterator[int]:
    """On loopback. Yields the port."""
    port = free_port()
    command = nbdkit_command(f"--port={port}", ("--ipaddr=127.0.0.1", *words))
    with listening(command, ("127.0.0.1", port)):
        yield port


def nbdkit_command(where: str, words: Sequence[str]) -> list[str]:
    return ["nbdkit", "--foreground", "--exit-with-parent", where, *words]


@contextmanager
def socket_path() -> Iterator[Path]:
    """In a folder of its own directly below the temporary one: pytest's are too long for a unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="nbd-"))
    try:
        yield folder / "s"
    finally:
        shutil.rmtree(folder)


def greets(address: str | tuple[str, int]) -> bool:
    """`qemu-nbd` accepts before it has opened the image, and greets after."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as probe:
        probe.settimeout(START_TIMEOUT)
        return probe.connect_ex(address) == 0 and probe.recv(8) == b"NBDMAGIC"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def certificates(folder: Path, name: str = "localhost") -> Path:
    """A CA (ca-cert.pem) and a server's certificate for `name`, in the file names that nbdkit wants."""
    ca_key, ca_cert = folder / "ca-key.pem", folder / "ca-cert.pem"
    key, request, cert = folder / "server-key.pem", folder / "server.csr", folder / "server-cert.pem"
    extensions = folder / "server.ext"
    # Python 3.13 and later insist on all that RFC 5280 asks of a certificate.
    extensions.write_text(
        f"subjectAltName=DNS:{name}\nextendedKeyUsage=serverAuth\nkeyUsage=critical,digitalSignature\n"
        "basicConstraints=critical,CA:FALSE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *curve, *usage, "-subj", "/CN=Test CA", "-days", "2", "-keyout", ca_key, "-out", ca_cert)
    openssl("req", "-new", *curve, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
    signing = ["-CA", ca_cert, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", extensions]
    openssl("x509", "-req", "-in", request, *signing, "-out", cert)
    return folder


def openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def qemu_img(*words: object) -> str:
    return subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True, text=True).stdout


def qemu_io(image: Path, format: str, *commands: str) -> None:
    arguments = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-f", format, *arguments, str(image)], check=True, capture_output=True)
