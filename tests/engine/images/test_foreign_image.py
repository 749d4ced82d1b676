# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that nobody vouches for: good ones are read as they are, and of no other file is ever a byte seen."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.inspect.approved_node import approved_node
from ansible_collections.vmferry.migrate.plugins.module_utils._images.inspect.file import inspected_file
from ansible_collections.vmferry.migrate.plugins.module_utils._images.inspect.words import (
    Description,
    Limits,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.confined_nbd import inherited_file, serve_confined
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.foreign_image import open_foreign_image

from . import hostile_images as hostile
from .hostile_images import SIZE, descriptor, guest, image

OPENER = Path(__file__).with_name("open_images.py")
OPENS = re.compile(r'(?:open|openat|openat2|creat)\([^"]*"([^"]*)".* = (?:\d+|-1)')


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def content(path: Path, folder: Path, snapshot_id: str = "") -> bytes:
    with open_foreign_image(path, socket_dir=folder, snapshot_id=snapshot_id) as source:
        data = bytearray(source.size)
        source.read_into([(0, memoryview(data))])
        return bytes(data)


@pytest.mark.parametrize(
    "options",
    [
        ("qcow2", ""),
        ("qcow2", "compression_type=zstd", "-c"),
        ("qcow2", "cluster_size=2M,extended_l2=on"),
        ("qcow", ""),
        ("qed", ""),
        ("vdi", ""),
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=streamOptimized"),
        ("vpc", "force_size=on"),
        ("vpc", "subformat=fixed,force_size=on"),
        ("vhdx", ""),
        ("raw", ""),
    ],
)
def test_a_good_image_of_each_format_is_read_as_it_is(options: tuple[str, ...], tmp_path: Path) -> None:
    assert content(written(tmp_path, "one", image(*options)), tmp_path) == guest()
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_snapshot_inside_an_image_is_read_in_the_place_of_its_present(tmp_path: Path) -> None:
    path = written(tmp_path, "one", image("qcow2"))
    for command in (
        ["qemu-img", "snapshot", "-c", "then", path],
        ["qemu-io", "-f", "qcow2", "-c", "write 0 64k", path],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
    with pytest.raises(VmferryError, match="internal_snapshots"):
        content(path, tmp_path)
    assert content(path, tmp_path, snapshot_id="1") == guest()


def wanting(folder: Path, secret: Path) -> list[Path]:
    """Images that want that file. Their suffix is the format that QEMU is told."""
    qcow2, sparse = image("qcow2"), image("vmdk")
    want = {
        "backing.qcow2": hostile.qcow2_backed_by(str(secret)),
        "backing-beside.qcow2": hostile.qcow2_backed_by(secret.name),
        "backing-json.qcow2": hostile.qcow2_backed_by(f'json:{{"driver":"raw","file.filename":"{secret}"}}'),
        "backing-nbd.qcow2": hostile.qcow2_backed_by("nbd://127.0.0.1:1/x"),
    }
    empty = hostile.create(folder / "empty", "qcow2", SIZE).read_bytes()
    made = {name: change(empty) for name, change in want.items()}
    made["data-file.qcow2"] = data_file_image(folder, secret)
    made["polyglot.qcow2"] = made["backing.qcow2"] + image("vpc", "subformat=fixed,force_size=on")[-512:]
    made["absolute.vmdk"] = descriptor(f'RW 8 FLAT "{secret}" 0')
    made["relative.vmdk"] = descriptor(f'RW 8 FLAT "../{secret.parent.name}/{secret.name}" 0')
    made["beside.vmdk"] = descriptor(f'RW 8 FLAT "{secret.name}" 0')
    made["no-capacity.vmdk"] = no_capacity(sparse, secret)
    made["cut.qcow2"] = qcow2[:1000]
    (folder / "empty").unlink()
    return [written(folder, name, data) for name, data in made.items()]


def data_file_image(folder: Path, secret: Path) -> bytes:
    """As QEMU writes it, on a data file of the same name length that is then exchanged for the secret."""
    own = secret.with_name("s" * len(secret.name))
    path = hostile.create(folder / "made", "qcow2", SIZE, options=f"data_file={own},data_file_raw=on")
    data = path.read_bytes().replace(str(own).encode(), str(secret).encode())
    own.unlink()
    path.unlink()
    return data


def no_capacity(sparse: bytes, secret: Path) -> bytes:
    """A sparse extent of nothing, whose descriptor is that of a flat image: QEMU goes by the descriptor then."""
    text = descriptor(f'RW 8 FLAT "{secret}" 0').ljust(20 * 512, b"\0")
    return hostile.put(f"<{len(text)}s", 512, text)(hostile.put("<Q", 12, 0)(sparse))


def watched(folder: Path, mode: str, images: list[Path]) -> tuple[dict[str, dict[str, str]], str]:
    """What was told of each image, and every file and server that this took."""
    log = folder / "strace"
    calls = "trace=open,openat,openat2,creat,connect,execve"
    command = ["strace", "-f", "-qq", "-s", "512", "-e", calls, "-e", "signal=none", "-o", log]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [*map(str, command), sys.executable, str(OPENER), str(folder), mode, *map(str, images)],
        stdout=subprocess.PIPE,
        env=environment,
        check=True,
        timeout=120,
    )
    told: dict[str, dict[str, str]] = json.loads(done.stdout)
    return told, log.read_text(errors="replace")


@pytest.fixture
def secret(tmp_path: Path) -> tuple[Path, bytes]:
    folder = tmp_path / "private"
    folder.mkdir()
    return hostile.secret(folder)


def test_no_image_can_have_another_file_opened(tmp_path: Path, secret: tuple[Path, bytes]) -> None:
    path, _word = secret
    images = wanting(path.parent, path)
    told, log = watched(tmp_path, "foreign", images)
    assert {name: "is not opened (" in one.get("error", "") for name, one in told.items()} == dict.fromkeys(told, True)
    assert str(path) not in "\n".join(OPENS.findall(log))
    assert not [line for line in log.splitlines() if "execve(" in line and "qemu-nbd" in line]
    assert "AF_INET" not in log


def test_an_image_is_opened_without_what_it_stands_on(tmp_path: Path, secret: tuple[Path, bytes]) -> None:
    """Where the caller has an answer to `backing_file`, QEMU is told that there is none."""
    path, word = secret
    images = wanting(path.parent, path)
    told, log = watched(tmp_path, "despite", images)
    read = {name for name, one in told.items() if "head" in one}
    assert read == {name for name in told if name.startswith("backing")}
    assert all(one == {"head": "00" * 4096, "rest": "zeros"} for name, one in told.items() if name in read)
    assert word.hex() not in json.dumps(told)
    assert str(path) not in "\n".join(OPENS.findall(log))
    assert "AF_INET" not in log


def test_whoever_trusts_these_images_does_open_the_file(tmp_path: Path, secret: tuple[Path, bytes]) -> None:
    """Otherwise the tests above would watch nothing."""
    path, word = secret
    images = [one for one in wanting(path.parent, path) if one.name not in ("backing-nbd.qcow2", "cut.qcow2")]
    told, log = watched(tmp_path, "trusting", images)
    leaked = {name for name, one in told.items() if word.hex() in one.get("head", "")}
    assert leaked == {one.name for one in images}, told
    assert str(path) in "\n".join(OPENS.findall(log))


def test_qemu_opens_nothing_but_the_image_once_it_runs(tmp_path: Path) -> None:
    path = written(tmp_path, "good.qcow2", image("qcow2"))
    told, log = watched(tmp_path, "foreign", [path])
    assert told["good.qcow2"]["rest"] == "data"
    of_qemu = {line.split()[0] for line in log.splitlines() if "execve(" in line and "/qemu-nbd" in line}
    opened = {name for line in log.splitlines() if line.split()[0] in of_qemu for name in OPENS.findall(line)}
    system = (
        "/etc/ld.so.",
        "/lib/",
        "/usr/",
        "/proc/",
        "/sys/",
        "/dev/null",
        "/dev/urandom",
        "/etc/ssl/",
        "/etc/gnutls/",
    )
    others = {name for name in opened if not name.startswith(system)}
    assert others == set()
    assert any(re.fullmatch(r"/proc/self/fd/\d+", name) for name in opened)


def test_the_server_is_locked_down(tmp_path: Path) -> None:
    path = written(tmp_path, "one", image("qcow2"))
    with inspected_file(path) as found:
        node = approved_node(found.description, inherited_file(found.descriptor), "one")
        with serve_confined(node, path, found.descriptor, socket_dir=tmp_path) as server:
            limits = Path(f"/proc/{server.pid}/limits").read_text()
            status = Path(f"/proc/{server.pid}/status").read_text()
            network = Path(f"/proc/{server.pid}/ns/net").readlink()
            group = os.getpgid(server.pid)
    told = {line[:25].strip(): line[26:].split()[0] for line in limits.splitlines()}
    assert (told["Max file size"], told["Max core file size"]) == ("0", "0")
    assert (told["Max address space"], told["Max cpu time"], told["Max open files"]) == (str(2 << 30), "600", "256")
    assert "NoNewPrivs:\t1" in status
    assert group == server.pid
    assert network != Path("/proc/self/ns/net").readlink()


def test_many_readers_fit_into_its_memory(tmp_path: Path) -> None:
    path = written(tmp_path, "one", image("qcow2", "", "-c"))
    with open_foreign_image(path, socket_dir=tmp_path) as source, ThreadPoolExecutor(16) as pool:

        def read(_number: int) -> bool:
            data = bytearray(SIZE)
            source.read_into([(0, memoryview(data))])
            return bytes(data) == guest()

        assert all(pool.map(read, range(64)))


def test_a_file_that_is_exchanged_under_its_name_is_not_opened(tmp_path: Path, secret: tuple[Path, bytes]) -> None:
    """QEMU reads the very file that was inspected."""
    path = written(tmp_path, "one", image("qcow2"))
    with inspected_file(path) as found:
        node = approved_node(found.description, inherited_file(found.descriptor), "one")
        path.rename(tmp_path / "other")
        path.symlink_to(secret[0])
        with serve_confined(node, path, found.descriptor, socket_dir=tmp_path):
            pass


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    started = time.monotonic()
    for name, kind in {"pipe": "invalid_config", "folder": "invalid_config", "nothing": "not_found"}.items():
        with pytest.raises(VmferryError) as refused, inspected_file(tmp_path / name):
            pass
        assert refused.value.kind == kind
    assert time.monotonic() - started < 5


def test_a_limit_of_the_caller_holds(tmp_path: Path) -> None:
    path = written(tmp_path, "one", image("qcow2"))
    with (
        pytest.raises(VmferryError, match="virtual_size"),
        open_foreign_image(path, socket_dir=tmp_path, limits=Limits(virtual_size=SIZE - 1)),
    ):
        pass


def test_what_qemu_cannot_be_kept_from_following_is_never_approved() -> None:
    everything: Any = frozenset({"data_file", "extents", "outside"})
    for name in everything:
        found = Description("vmdk", size=1, objections=((name, "names a file"),))
        with pytest.raises(VmferryError, match=name):
            approved_node(found, "/image", "it", despite=everything)
