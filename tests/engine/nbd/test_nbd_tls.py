# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS: verified by default, demanded when configured, never half."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.connection import list_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.handshake import Security
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.sink import NbdSink
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.source import NbdSource
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.transport import Address
from rigs import nbd
from rigs.nbd_images import MIB, read_all


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nbd.certificates(tmp_path_factory.mktemp("pki"))


def trusting(pki: Path) -> Security:
    return Security(ssl.create_default_context(cafile=str(pki / "ca-cert.pem")))


def tls(pki: Path, *words: str) -> tuple[str, ...]:
    return ("--tls=require", f"--tls-certificates={pki}", *words)


def test_reading_over_tls(pki: Path, pattern: bytes) -> None:
    with nbd.nbdkit_tcp(*tls(pki, "pattern", "4M")) as port:
        source = NbdSource(Address.tcp("localhost", port), security=trusting(pki))
        assert read_all(source) == pattern
        assert sum(extent.length for extent in source.extents()) == 4 * MIB
        source.close()
        assert list_exports(Address.tcp("localhost", port), security=trusting(pki)) == [""]


def test_tls_on_a_unix_socket_with_simple_replies(pki: Path, pattern: bytes) -> None:
    with nbd.nbdkit(*tls(pki, "--no-sr", "pattern", "4M")) as path:
        source = NbdSource(Address.unix(path), security=trusting(pki))
        assert read_all(source) == pattern
        source.close()


def test_writing_over_tls(pki: Path, tmp_path: Path, pattern: bytes) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(4 * MIB))
    with nbd.nbdkit_tcp(*tls(pki, "file", f"file={image}")) as port:
        sink = NbdSink(Address.tcp("localhost", port), security=trusting(pki))
        sink.write([(0, memoryview(pattern))])
        sink.flush()
        sink.close()
    assert image.read_bytes() == pattern


def refused(port: int, security: Security, host: str = "localhost") -> VmferryError:
    with pytest.raises(VmferryError) as caught:
        NbdSource(Address.tcp(host, port), security=security, retries=0, idle_timeout=5)
    return caught.value


def test_a_stranger_is_not_trusted(pki: Path) -> None:
    with nbd.nbdkit_tcp(*tls(pki, "pattern", "4M")) as port:
        error = refused(port, Security(ssl.create_default_context()))
    assert (error.kind, error.retryable) == ("unauthenticated", False)
    assert "CA" in error.hint


def test_a_certificate_for_another_name_is_not_trusted(pki: Path) -> None:
    with nbd.nbdkit_tcp(*tls(pki, "pattern", "4M")) as port:
        assert refused(port, trusting(pki), "127.0.0.1").kind == "unauthenticated"
        named = Security(trusting(pki).context, "localhost")
        NbdSource(Address.tcp("127.0.0.1", port), security=named).close()


def test_a_server_that_demands_tls_gets_a_clear_error(pki: Path) -> None:
    with nbd.nbdkit_tcp(*tls(pki, "pattern", "4M")) as port:
        error = refused(port, Security())
    assert error.kind == "invalid_config"
    assert "TLS" in error.message


@pytest.mark.parametrize("old", ["--tls=off", "--mask-handshake=0"])
def test_no_fallback_to_clear_text(pki: Path, old: str) -> None:
    with nbd.nbdkit_tcp(old, "pattern", "4M") as port:
        error = refused(port, trusting(pki))
    assert error.kind == "invalid_config"
    assert "does not offer TLS" in error.message


def test_a_silent_server_is_a_timeout_over_tls_too(pki: Path) -> None:
    with nbd.nbdkit_tcp(*tls(pki, "--filter=delay", "pattern", "4M", "rdelay=5")) as port:
        source = NbdSource(Address.tcp("localhost", port), security=trusting(pki), idle_timeout=0.5, retries=0)
        with pytest.raises(VmferryError) as caught:
            source.read_into([(0, memoryview(bytearray(512)))])
        assert caught.value.kind == "timeout"
        source.close()
