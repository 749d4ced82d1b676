# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`qemu-nbd` as a child process: any image that qemu knows, as an NBD export on a private unix socket."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import ContextManager, Iterator, Sequence, Tuple

from .._errors import Kind, VmferryError
from .child_server import MAX_SOCKET_PATH, ChildServer, Server, program
from .transport import Address

SHARED = 64  # connections at once; one per reading thread and disk
START_TIMEOUT = 60.0  # seconds: a qcow2 that was not closed is repaired first
WRITE_BACK_TIMEOUT = 3600.0  # seconds: the caches of a written image are flushed last, onto a disk that may be slow
STOP_TIMEOUT = 15.0  # seconds, where nothing that is written matters
UTIL_LINUX, QEMU_UTILS = "util-linux", "qemu-utils (Debian, Ubuntu) or qemu-img (Fedora, RHEL, SUSE)"  # packages

Layer = Tuple[Path, str]  # an image and its format

# qemu says these in English whatever the locale is; the tails come from strerror, hence LC_ALL=C.
_COMPLAINTS: tuple[tuple[str, Kind, str], ...] = (
    ('Failed to get shared "', "busy", "is in use: a VM runs on it, or another program has it open"),
    ('Failed to get "', "busy", "is in use: a VM runs on it, or another program has it open"),
    ("is inconsistent and cannot be used", "conflict", "has a bitmap that was not closed properly"),
    ("' is not found", "not_found", "has no such bitmap"),
    ("No such file or directory", "not_found", "does not exist, or a file it stands on does not"),
    ("Permission denied", "permission_denied", "may not be opened by this user"),
    ("Unknown driver", "unsupported", "has a format that this qemu does not know"),
    ("Could not load snapshot", "not_found", "has no such snapshot"),
    ("mage is not in", "invalid_config", "is not in the format it was said to have"),
    ("No space left on device", "no_space", "has no space left"),
)


def serve(
    image: Path,
    format: str,
    *,
    read_only: bool,
    socket_dir: Path,
    bitmap: str | None = None,
    allocation_depth: bool = False,
    backing: Sequence[Layer] | None = None,
    snapshot_id: str = "",
    cache: str = "writeback",
    discard: str = "unmap",
    detect_zeroes: str = "off",
) -> ContextManager[Server]:
    """Export `image`, whose format is never guessed, until the context is left; then a written image is closed cleanly.

    `backing` spells out the layers below, from the next one down: empty means that there are none, whatever the
    image's header says; None trusts that header. `bitmap` and `allocation_depth` add the contexts
    `qemu:dirty-bitmap:<bitmap>` and `qemu:allocation-depth`. `cache`, `discard` and `detect_zeroes` are qemu's.

    `snapshot_id` is that of an internal snapshot, which is served in the place of the disk's present. The image is not
    locked then, so that a VM may go on writing to it; the caller has to see to it that the snapshot stays.

    Otherwise the image is locked as qemu locks it: it cannot be opened while a VM writes to it (`busy`), and no VM can
    start on it for as long as it is served, also read-only; other read-only users, such as VMs that have it as a
    backing file, go on. The socket lies in a fresh folder below `socket_dir` that only this user can enter.

    The child ends with this process, however that ends: `setpriv` sees to it between fork and exec; Python code there
    (preexec_fn) can deadlock in a process with threads. The alternative, `qemu-nbd` that ends with its last client,
    leaves a server behind whenever we die before the first client has connected.

    Raises VmferryError `not_found`, `permission_denied`, `busy`, `conflict` (inconsistent bitmap), `unsupported`,
    `invalid_config`, `no_space` or `internal`, with qemu's own words.
    """
    command = [
        program("setpriv", UTIL_LINUX),
        "--pdeathsig=TERM",
        program("qemu-nbd", QEMU_UTILS),
        "--persistent",
        f"--shared={SHARED}",
        f"--format={format}",
        f"--cache={cache}",
        f"--discard={discard}",
        f"--detect-zeroes={detect_zeroes}",
        *(["--read-only"] if read_only else []),
        *([f"--bitmap={bitmap}"] if bitmap else []),
        *(["--allocation-depth"] if allocation_depth else []),
        *([f"--load-snapshot=snapshot.id={snapshot_id}"] if snapshot_id else []),
    ]
    node = _node(image, format, backing, shared=bool(snapshot_id))
    return run([*command, "--", node], image, socket_dir, STOP_TIMEOUT if read_only else WRITE_BACK_TIMEOUT)


@contextmanager
def run(
    command: Sequence[str], image: Path, socket_dir: Path, patience: float, inherited: Sequence[int] = ()
) -> Iterator[Server]:
    """`command`: a `qemu-nbd` that serves `image`, but for the option that names its socket, which goes before `--`.
    `patience`: seconds that it has to end, once it need not serve any more. `inherited`: descriptors that it gets.
    """
    folder = Path(tempfile.mkdtemp(prefix="nbd-", dir=socket_dir))
    try:
        path = folder / "s"
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise VmferryError("invalid_config", f"{socket_dir} is too long a path for a unix socket.")
        address = Address.unix(path)
        at = len(command) - 1 - command[::-1].index("--")
        whole = [*command[:at], f"--socket={path}", *command[at:]]
        child = ChildServer("qemu-nbd", whole, partial(complaint, image), inherited)
        try:
            child.wait_until_serving(address, str(image), START_TIMEOUT)
            yield Server(address, child.pid)
        except BaseException:
            child.stop(STOP_TIMEOUT)
            raise
        child.stop(patience)
        child.demand_success()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def complaint(image: Path | str, said: str) -> VmferryError:
    for needle, kind, meaning in _COMPLAINTS:
        if needle in said:
            hint = "Shut the VM down, or export it while it runs." if kind == "busy" else ""
            return VmferryError(kind, f"The image {image} {meaning} ({said}).", hint)
    return VmferryError("internal", f"qemu-nbd failed on {image}: {said}.")


def _node(image: Path, format: str, backing: Sequence[Layer] | None, shared: bool = False) -> str:
    """What to open, as qemu's command line takes it: a path, or every layer spelled out. `shared`: without locks."""
    if backing is None:
        _check_readable(image)
        return str(image.absolute())  # an absolute path is never taken for a protocol such as `nbd:`
    return node_of([(image, format), *backing], shared=shared)


def node_of(layers: Sequence[Layer], *, shared: bool = False) -> str:
    """Every layer spelled out, newest first: nothing is opened because a header names it. `shared`: without locks."""
    for path, _unused in layers:
        _check_readable(path)
    node: dict[str, object] | None = None
    for path, its_format in reversed(layers):
        above: dict[str, object] = {"driver": its_format, "file": _file(path)}
        if its_format != "raw":
            above["backing"] = node
        elif node is not None:
            raise VmferryError("invalid_config", f"{path} is raw and cannot stand on another image.")
        node = above
    if shared and node is not None:
        node["force-share"] = True
    return "json:" + json.dumps(node)


def _file(path: Path) -> dict[str, object]:
    driver = "host_device" if stat.S_ISBLK(path.stat().st_mode) else "file"
    return {"driver": driver, "filename": str(path.absolute())}


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise VmferryError("not_found", f"The image {path} does not exist.") from error
    except PermissionError as error:
        raise VmferryError("permission_denied", f"The image {path} may not be opened by this user.") from error
    except OSError as error:
        raise VmferryError("internal", f"The image {path} cannot be opened: {error.strerror}.") from error
