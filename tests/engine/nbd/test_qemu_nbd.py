# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`qemu-nbd` as our child: what it serves, what it refuses, and that it never outlives us."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd import qemu_nbd
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.classification import changed_since, dirty_bitmap
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.protocol import BASE_ALLOCATION
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.qemu_nbd import serve
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.sink import NbdSink
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.source import NbdSource
from rigs import nbd
from rigs.nbd_images import MIB, Image, judged, made, read_all


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until_ended(pid: int) -> None:
    deadline = time.monotonic() + 5
    while not ended(pid):
        assert time.monotonic() < deadline, f"{pid} lives on"
        time.sleep(0.01)


def failure(image: Path, format: str, folder: Path, bitmap: str | None = None) -> VmferryError:
    reached = False
    with (
        pytest.raises(VmferryError) as caught,
        serve(image, format, read_only=True, socket_dir=folder, bitmap=bitmap),
    ):
        reached = True
    assert not reached
    assert not list(folder.glob("nbd-*"))
    return caught.value


def test_serves_an_image_and_leaves_nothing(islands: Image, tmp_path: Path) -> None:
    with serve(islands.path, "qcow2", read_only=True, socket_dir=tmp_path) as server:
        folder = Path(server.address.path).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        source = NbdSource(server.address)
        assert read_all(source) == islands.content
        source.close()
    assert ended(server.pid)
    assert not list(tmp_path.iterdir())


def test_the_format_is_never_guessed(islands: Image, tmp_path: Path) -> None:
    with serve(islands.path, "raw", read_only=True, socket_dir=tmp_path) as server:
        source = NbdSource(server.address)
        assert read_all(source) == islands.path.read_bytes()
        source.close()


def test_bitmap(tmp_path: Path) -> None:
    image = made(tmp_path / "disk.qcow2", "qcow2", 4 * MIB, "write -P 0xaa 0 4M").path
    nbd.qemu_img("bitmap", "--add", image, "since")
    nbd.qemu_io(image, "qcow2", "write -P 0xbb 1M 64k")
    with serve(image, "qcow2", read_only=True, socket_dir=tmp_path, bitmap="since") as server:
        contexts = (BASE_ALLOCATION, dirty_bitmap("since"))
        source = NbdSource(server.address, contexts=contexts, classify=changed_since("since"))
        assert Extent(MIB, 65536, "data") in list(source.extents())
        source.close()


def test_a_header_that_points_elsewhere_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.raw"
    secret.write_bytes(b"s" * MIB)
    base = made(tmp_path / "base.qcow2", "qcow2", MIB, "write -P 0x62 0 512k").path
    image = tmp_path / "image,with=odd:name.qcow2"
    nbd.qemu_img("create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", image)
    for backing, content in (
        (None, b"s" * MIB),
        ((), bytes(MIB)),
        (((base, "qcow2"),), b"b" * (MIB // 2) + bytes(MIB // 2)),
    ):
        with serve(image, "qcow2", read_only=True, socket_dir=tmp_path, backing=backing) as server:
            source = NbdSource(server.address)
            assert read_all(source) == content
            source.close()


def test_an_image_in_use_is_busy(islands: Image, tmp_path: Path) -> None:
    image = made(tmp_path / "disk.qcow2", "qcow2", MIB).path
    with serve(image, "qcow2", read_only=False, socket_dir=tmp_path):
        other = tmp_path / "other"
        other.mkdir()
        error = failure(image, "qcow2", other)
    assert (error.kind, error.retryable) == ("busy", True)
    assert str(image) in error.message


def test_readers_do_not_shut_each_other_out(islands: Image, tmp_path: Path) -> None:
    with (
        serve(islands.path, "qcow2", read_only=True, socket_dir=tmp_path) as one,
        serve(islands.path, "qcow2", read_only=True, socket_dir=tmp_path) as other,
    ):
        assert one.address != other.address


def test_a_missing_image(tmp_path: Path) -> None:
    assert failure(tmp_path / "none.qcow2", "qcow2", tmp_path).kind == "not_found"


def test_a_missing_backing_file(tmp_path: Path) -> None:
    base = made(tmp_path / "base.qcow2", "qcow2", MIB).path
    image = tmp_path / "disk.qcow2"
    nbd.qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", image)
    base.unlink()
    error = failure(image, "qcow2", tmp_path)
    assert error.kind == "not_found"
    assert "base.qcow2" in error.message


def test_a_missing_bitmap(islands: Image, tmp_path: Path) -> None:
    assert failure(islands.path, "qcow2", tmp_path, bitmap="lost").kind == "not_found"


def test_an_inconsistent_bitmap_is_a_conflict(tmp_path: Path) -> None:
    """As a crash leaves it: a writer that never closed the image."""
    image = made(tmp_path / "disk.qcow2", "qcow2", MIB).path
    nbd.qemu_img("bitmap", "--add", image, "since")
    with nbd.socket_path() as path:
        command = ["qemu-nbd", "--persistent", f"--socket={path}", "--format=qcow2", str(image)]
        with nbd.listening(command, str(path)) as server:
            server.kill()
    assert failure(image, "qcow2", tmp_path, bitmap="since").kind == "conflict"


def test_a_wrong_format(tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(MIB))
    assert failure(image, "qcow2", tmp_path).kind == "invalid_config"
    assert failure(image, "nonsense", tmp_path).kind == "unsupported"


def test_a_missing_program_says_which_package(islands: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = failure(islands.path, "qcow2", tmp_path)
    assert error.kind == "invalid_config"
    assert "util-linux" in error.hint
    (tmp_path / "setpriv").symlink_to("/usr/bin/setpriv")
    assert "qemu-utils" in failure(islands.path, "qcow2", tmp_path).hint


def test_the_folder_is_gone_after_an_error_within(islands: Image, tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        serve(islands.path, "qcow2", read_only=True, socket_dir=tmp_path) as server,
    ):
        raise ZeroDivisionError
    assert ended(server.pid)
    assert not list(tmp_path.iterdir())


def test_the_child_outlives_the_thread_that_asked_for_it(islands: Image, tmp_path: Path) -> None:
    context = serve(islands.path, "qcow2", read_only=True, socket_dir=tmp_path)
    servers = []
    thread = threading.Thread(target=lambda: servers.append(context.__enter__()))
    thread.start()
    thread.join()
    time.sleep(0.1)
    source = NbdSource(servers[0].address, retries=0)
    assert read_all(source) == islands.content
    source.close()
    context.__exit__(None, None, None)


def test_an_interrupt_at_the_terminal_reaches_us_alone(islands: Image, tmp_path: Path) -> None:
    with serve(islands.path, "qcow2", read_only=True, socket_dir=tmp_path) as server:
        assert os.getpgid(server.pid) != os.getpgid(0)


WAIT_WITH_A_SERVER = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from {package}.qemu_nbd import serve
with serve(Path(sys.argv[1]), "qcow2", read_only=False, socket_dir=Path(sys.argv[2])) as server:
    print(server.pid, flush=True)
    time.sleep(60)
"""


def test_the_child_ends_when_we_are_killed_and_closes_its_image(tmp_path: Path) -> None:
    image = made(tmp_path / "disk.qcow2", "qcow2", MIB).path
    nbd.qemu_img("bitmap", "--add", image, "since")
    script = WAIT_WITH_A_SERVER.format(path=sys.path, package=serve.__module__.rpartition(".")[0])
    command = [sys.executable, "-c", script, str(image), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not ended(pid)
        os.kill(parent.pid, signal.SIGKILL)
    wait_until_ended(pid)
    with serve(image, "qcow2", read_only=True, socket_dir=tmp_path, bitmap="since"):
        pass  # a killed qemu-nbd would have left the bitmap inconsistent


def test_written_data_is_in_the_image_when_the_context_is_left(tmp_path: Path) -> None:
    image = made(tmp_path / "disk.qcow2", "qcow2", MIB).path
    with serve(image, "qcow2", read_only=False, socket_dir=tmp_path) as server:
        sink = NbdSink(server.address)
        sink.write([(0, memoryview(b"w" * MIB))])
        sink.close()
    assert judged(image, "qcow2").content == b"w" * MIB


def test_a_slow_disk_is_waited_for_when_a_written_image_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_nbd, "STOP_TIMEOUT", 0.2)
    image = made(tmp_path / "disk.qcow2", "qcow2", MIB).path
    with serve(image, "qcow2", read_only=False, socket_dir=tmp_path) as server:
        sink = NbdSink(server.address)
        sink.write([(0, memoryview(b"w" * MIB))])
        sink.close()
        os.kill(server.pid, signal.SIGSTOP)
        threading.Timer(1.0, os.kill, (server.pid, signal.SIGCONT)).start()
    assert judged(image, "qcow2").content == b"w" * MIB


def test_a_server_that_hangs_is_ended_where_nothing_it_writes_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_nbd, "STOP_TIMEOUT", 0.2)
    image, pid = made(tmp_path / "disk.qcow2", "qcow2", MIB).path, 0
    with suppress(KeyError), serve(image, "qcow2", read_only=False, socket_dir=tmp_path) as server:
        pid = server.pid
        os.kill(pid, signal.SIGSTOP)
        raise KeyError
    assert ended(pid)


def test_a_folder_too_deep_for_a_socket(islands: Image, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    error = failure(islands.path, "qcow2", deep)
    assert error.kind == "invalid_config"
    assert "too long" in error.message
