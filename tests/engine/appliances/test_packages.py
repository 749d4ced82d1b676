# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of appliances are indexed by their headers alone, and what hides or moves a file is refused by name."""

from __future__ import annotations

import tarfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.packages import ova_package
from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.tar_headers import pack
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError

from ..images.disks import FEW
from .archives import END, archive, member, reading

FILES = {"app.ovf": b"<a/>", "disk-0.vmdk": bytes(range(256)) * 9, "empty.vmdk": b"", "notes.txt": b"x" * 512}


def found(data: bytes) -> dict[str, bytes]:
    package = ova_package(reading(data), len(data), "app.ova")
    return {name: one.whole(1 << 20, "app.ova") for name, one in package.members.items()}


def refusal(data: bytes) -> str:
    with pytest.raises(VmferryError) as raised:
        ova_package(reading(data), len(data), "app.ova")
    assert raised.value.kind == "invalid_config"
    return raised.value.message


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_dialect_of_tar_is_read(format_: int) -> None:
    files = {**FILES, f"{'long' * 40}.vmdk": b"1", "größe.vmdk": b"2"}
    if format_ == tarfile.USTAR_FORMAT:
        files.pop(f"{'long' * 40}.vmdk")
    assert found(archive(files, format_)) == files


def test_names_that_begin_with_this_folder_are_plain() -> None:
    assert list(found(member("./app.ovf", b"1") + END)) == ["app.ovf"]


@pytest.mark.parametrize("size", [(8 << 30) - 1, 8 << 30, 3 << 40])
@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, None])
def test_members_of_more_than_eight_gibibytes_are_found(size: int, format_: int | None) -> None:
    info = tarfile.TarInfo("big.vmdk")
    info.size = size
    head = info.tobuf(format_) if format_ is not None else pack("big.vmdk", size, 0)
    behind = len(head) + size + -size % 512
    places = {0: head, behind: member("last.txt", b"here"), behind + 1024: END}

    def read_at(offset: int, buffer: memoryview) -> None:
        start = max(at for at in places if at <= offset)
        buffer[:] = places[start][offset - start : offset - start + len(buffer)]

    package = ova_package(read_at, behind + 1024 + len(END), "app.ova")
    assert {name: one.size for name, one in package.members.items()} == {"big.vmdk": size, "last.txt": 4}
    assert package.members["last.txt"].whole(9, "") == b"here"


@given(st.integers(0, 1 << 50), st.integers(0, (1 << 33) - 1))
@FEW
def test_our_headers_are_what_tarfile_reads(size: int, modified: int) -> None:
    info = tarfile.TarInfo.frombuf(pack("disk-0.vmdk", size, modified), "utf-8", "strict")
    assert (info.name, info.size, info.mtime, info.isreg()) == ("disk-0.vmdk", size, modified, True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../etc/passwd", "leaves its folder"),
        ("disks/../../x.vmdk", "leaves its folder"),
        ("/etc/passwd", "absolute"),
        ("C:evil.vmdk", "absolute"),
        ("\\\\host\\share", "absolute"),
        ("disks/x.vmdk", "lie in no folder"),
        ("a\nb.vmdk", "lie in no folder"),
        (".", "lie in no folder"),
        ("..", "leaves its folder"),
    ],
)
def test_names_that_are_none_are_refused(name: str, said: str) -> None:
    message = refusal(member(name, b"1") + END)
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.CHRTYPE, "character device"),
        (tarfile.BLKTYPE, "block device"),
        (tarfile.FIFOTYPE, "pipe"),
        (tarfile.DIRTYPE, "folder"),
        (tarfile.GNUTYPE_SPARSE, "sparse"),
        (tarfile.GNUTYPE_LONGLINK, "link"),
        (tarfile.XGLTYPE, "for all members"),
        (b"Z", "of the kind 'Z'"),
    ],
)
def test_what_is_no_regular_file_is_refused(kind: bytes, said: str) -> None:
    assert said in refusal(member("x.vmdk", b"", type=kind, linkname="/etc/passwd") + END)


@pytest.mark.parametrize("other", ["disk.vmdk", "DISK.vmdk"])
def test_a_file_that_is_there_twice_is_refused(other: str) -> None:
    assert "twice" in refusal(member("disk.vmdk", b"1") + member(other, b"2") + END)


def extended(*records: bytes, data: bytes = b"12345") -> bytes:
    lines = b"".join(b"%d %s\n" % (len(record) + 4, record) for record in records)  # two digits each
    return member("ext", lines, type=tarfile.XHDTYPE) + member("x.vmdk", data) + END


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([b"size=9999999"], "two sizes"),
        ([b"size=-10000"], "no number"),
        ([b"size=0x1000"], "no number"),
        ([b"GNU.sparse.major=1"], "'GNU.sparse.major'"),
        ([b"linkpath=/etc/x"], "'linkpath'"),
        ([b"hdrcharset=BINARY"], "'hdrcharset'"),
        ([b"path=../../etc/x"], "leaves its folder"),
        ([b"path=aaaaaa", b"path=bbbbbb"], "twice"),
        ([b"path=a\0\0\0\0b"], "behind the end"),
        ([b"no equals sign"], "which no appliance needs"),
    ],
)
def test_tricks_of_extended_headers_are_refused(records: list[bytes], said: str) -> None:
    assert said in refusal(extended(*records))


@pytest.mark.parametrize("line", [b"x path=a\n", b"99 path=a\n", b"9 path=ab\n", b"007 a=b\n"])
def test_damaged_extended_headers_are_refused(line: bytes) -> None:
    assert "damaged" in refusal(member("ext", line, type=tarfile.XHDTYPE) + member("x", b"") + END)


def test_extended_headers_of_nothing_and_too_many_are_refused() -> None:
    one = member("ext", b"", type=tarfile.XHDTYPE)
    assert "without a member" in refusal(3 * one + member("x", b"") + END)
    path = member("ext", b"10 path=a\n", type=tarfile.XHDTYPE)
    assert "without a member" in refusal(path + END)
    assert "two extended headers" in refusal(2 * path + member("x", b"") + END)
    assert "bytes" in refusal(member("ext", bytes(70_000), type=tarfile.XHDTYPE) + member("x", b"") + END)


def test_an_archive_that_is_cut_anywhere_is_refused() -> None:
    whole = archive(FILES)[: -(10240 - 512 * 12)]
    sizes = [*range(0, 6 * 512, 256)]
    for size in sizes:
        assert refusal(whole[:size])


def test_a_damaged_header_and_one_that_is_none_are_refused() -> None:
    data = bytearray(archive(FILES))
    data[0] ^= 1
    assert "damaged header" in refusal(bytes(data))
    assert "no tar archive" in refusal(b"not an archive".ljust(4096, b"."))
    negative = tarfile.TarInfo("x")
    negative.size = -1
    assert "number that is none" in refusal(negative.tobuf(tarfile.GNU_FORMAT) + END)


def test_more_members_than_any_appliance_has_are_refused() -> None:
    made = b"".join(member(f"{number}.txt", b"") for number in range(1025))
    assert "more than 1024" in refusal(made + END)


@given(st.data())
@FEW
def test_damage_of_headers_is_refused_or_does_no_harm(data: st.DataObject) -> None:
    """No other error than our own, and never a byte from outside of the archive."""
    made = bytearray(archive(FILES, tarfile.PAX_FORMAT))
    for _unused in range(data.draw(st.integers(1, 4))):
        made[data.draw(st.integers(0, 4 * 512))] = data.draw(st.integers(0, 255))
    with suppress(VmferryError):
        found(bytes(made))


def test_a_file_is_read_within_its_bounds() -> None:
    data = archive(FILES)
    one = ova_package(reading(data), len(data), "app.ova").members["disk-0.vmdk"]
    for offset, count in ((one.size, 1), (one.size - 1, 2), (-1, 1)):
        with pytest.raises(VmferryError, match="ends before"):
            one.read_at(offset, memoryview(bytearray(count)))
