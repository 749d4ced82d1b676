# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is fuzzed: the readers of bytes that somebody else may have written.

A target is a strategy and what is done with what it draws. It may end, or raise our own error, within a second and a
bounded memory; whatever else happens is a defect.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import signal
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Union

import zstandard
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._appliances import stored_gzip
from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.gzip_reader import GzipReader
from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.ovf_writer import write_descriptor
from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.qm_reader import read_config
from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.qm_writer import write_config
from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent, Part, PartReceipt
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.artifacts import FORMATS as ARTIFACT_FORMATS
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.artifacts import is_of_others, read_artifacts
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import Intent, read_intent
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import Manifest, read_manifest
from ansible_collections.vmferry.migrate.plugins.module_utils._images.inspect.approved_node import approved_node
from ansible_collections.vmferry.migrate.plugins.module_utils._images.inspect.image import FORMATS, inspect_image
from ansible_collections.vmferry.migrate.plugins.module_utils._images.joined_disks import JoinedDisks, Run
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.codecs import codec_named
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.decrypted import open_with_passphrase
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.format import backing_name_in
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.reader import Qcow2Reader
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.snapshots import internal_snapshots
from ansible_collections.vmferry.migrate.plugins.module_utils._images.raw_tar_gz.reader import RawTarGzReader
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vhd.reader import VhdReader
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vhdx.reader import VhdxReader
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vma.packed import unpacked
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vma.reader import VmaArchive, vma_disk
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vma.stream import VmaStream
from ansible_collections.vmferry.migrate.plugins.module_utils._images.vmdk.reader import VmdkReader
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.attempts.attempt_journal import AttemptState
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.journal import SMALL, DiskJournal, KnownDisk
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.journal_entries import JournalHeader
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import Limits
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.object_journal import VERSION, ObjectJournal
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.part_sizes import PartSizes
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.windows import ExtentMap

from ..appliances import archives
from ..appliances.test_qm_config import DEVICES
from ..appliances.test_qm_config import WHOLE as CONFIG
from ..exports.samples import UUID, manifest
from ..images import hostile_archives, vma_archives
from ..images import hostile_images as hostile
from ..images.disks import MIB, RangedFile, islands, mixed, packed
from ..images.other_formats import written
from ..images.vhdx_layers import Layer, linked, write_layer
from .damage import damaged, damaged_json

OtherReader = Callable[[RangedFile, int], Union[VmdkReader, VhdReader, VhdxReader, RawTarGzReader]]


@dataclass(frozen=True)
class Target:
    draws: Callable[[], st.SearchStrategy[Any]]
    check: Callable[[Any], object]


def _inspected(drawn: tuple[bytes, str, bool]) -> None:
    data, expected, header_only = drawn
    file = RangedFile(data)
    found = inspect_image(file, file.size, expected=expected, header_only=header_only)
    assert sum(length for _offset, length in file.requests) < 2 * len(data) + 4 * MIB
    node = approved_node(found, "/image", "it")
    assert found.format in FORMATS
    assert (found.backing_file, found.data_file, found.extents) == ("", "", ())
    assert set(json.dumps(node).split('"filename": "')) - {"/image"}


@cache
def _images() -> tuple[bytes, ...]:
    kinds = (
        ("qcow2",), ("qcow2", "compat=0.10"), ("qcow2", "compression_type=zstd", "-c"), ("qcow2", "extended_l2=on"),
        ("qcow",), ("qed",), ("vdi",), ("vmdk",), ("vmdk", "subformat=streamOptimized"),
    )  # fmt: skip
    text = hostile.descriptor('RW 8192 FLAT "a-flat.vmdk" 0')
    return (*(hostile.image(*kind) for kind in kinds), text, _archive_of_ours())


@st.composite
def _sealed(draw: st.DrawFn) -> bytes:
    """VHD and VHDX, whose checksums are made right again: otherwise they would end each example."""
    change = draw(damaged_patch)
    if draw(st.booleans()):
        kinds = (hostile.vhd, hostile.vhd_header)
        return draw(st.sampled_from(kinds))(change)(hostile.image("vpc", "force_size=on"))
    kinds = (hostile.vhdx_headers, hostile.vhdx_regions)
    return draw(st.sampled_from(kinds))(change)(hostile.image("vhdx", "block_size=1M"))


damaged_patch = st.lists(
    st.tuples(st.sampled_from((">I", "<I", ">Q", "<Q", "B")), st.integers(8, 120), st.integers(0, (1 << 64) - 1)),
    min_size=1,
    max_size=3,
).map(lambda changes: hostile.at_once(*(hostile.put(form, at, _fit(form, value)) for form, at, value in changes)))


def _fit(form: str, value: int) -> int:
    return int(value & ((1 << 8 * struct.calcsize(form)) - 1))


def _inspections() -> st.SearchStrategy[Any]:
    images = damaged(_images(), (0x40, 0x154, 0x200, 20 * 512, 65536, 3 * 65536))
    data = images | _sealed() | _archives() | _damaged_vmas() | st.binary(max_size=600)
    return st.tuples(data, st.sampled_from(("", "", *FORMATS)), st.booleans())


SIZE = 5 * LEAF


@cache
def _own_image(compression: str) -> bytes:
    with TemporaryDirectory() as folder:
        codec = codec_named(compression) if compression else None
        return packed(Path(folder) / "image", SIZE, [Extent(0, 3 * LEAF, "data")], codec=codec).read_bytes()


def _read_image(data: bytes) -> None:
    file = RangedFile(data)
    with contextlib.suppress(VmferryError):
        backing_name_in(data[:LEAF])
    reader = Qcow2Reader(file, file.size, size=SIZE)
    extents = list(reader.extents())
    assert sum(extent.length for extent in extents) == SIZE
    reader.read_into([(0, memoryview(bytearray(SIZE)))])


def _own_images() -> st.SearchStrategy[Any]:
    return damaged([_own_image(kind) for kind in ("", "zlib", "zstd")], (LEAF, 3 * LEAF, 6 * LEAF))


def _read_other(
    drawn: tuple[bytes, type[VmdkReader] | type[VhdReader] | type[VhdxReader] | type[RawTarGzReader]],
) -> None:
    data, reader = drawn
    file = RangedFile(data)
    source = reader(file, file.size)
    total = 0
    for extent in islice(source.extents(), 10_000):
        total += extent.length
        if extent.kind == "data":
            length = min(extent.length, MIB)
            source.read_into([(extent.offset, memoryview(bytearray(length)))])
    assert total <= source.size


def _other_images() -> st.SearchStrategy[Any]:
    vmdk = damaged([hostile.image("vmdk"), hostile.image("vmdk", "subformat=streamOptimized")], (512, 20 * 512, 65536))
    vhd = _sealed().filter(lambda data: not data.startswith(b"vhdxfile"))
    vhdx = _sealed().filter(lambda data: data.startswith(b"vhdxfile"))
    return st.one_of(
        st.tuples(vmdk, st.just(VmdkReader)), st.tuples(vhd, st.just(VhdReader)), st.tuples(vhdx, st.just(VhdxReader))
    )


@cache
def _archive_of_ours() -> bytes:
    with TemporaryDirectory() as folder:
        return written(
            "raw_tar_gz", Path(folder) / "image", 9 * MIB, islands(9 * MIB, [0, 2 * MIB, 8 * MIB])
        ).read_bytes()


@st.composite
def _archives(draw: st.DrawFn) -> bytes:
    """Gzipped, with sums that are right: otherwise they would end each example."""
    sparse = hostile_archives.sparse((0, MIB), (2 * MIB, 2 * MIB), size=4 * MIB)
    runs = hostile_archives.sealed(*([sparse] if draw(st.booleans()) else []))
    change = draw(
        st.lists(st.tuples(st.integers(100, 511), st.sampled_from((b"7", b"\x80", b"\0", b"9", b"\xff", b"S"))))
    )
    changes = [hostile_archives.put(at, value) for at, value in change]
    return hostile_archives.of_disk(lambda data: hostile_archives.sealed(*changes)(runs(data)), level=0)


def _disk_archives() -> st.SearchStrategy[Any]:
    ours = damaged([_archive_of_ours()], (10, len(_archive_of_ours()) - 120))
    return st.tuples(ours | _archives(), st.just(RawTarGzReader))


@st.composite
def _vmas(draw: st.DrawFn) -> bytes:
    """With sums that are right: otherwise they would end each example."""
    sizes = draw(st.lists(st.integers(1, 300_000), min_size=1, max_size=3))
    devices = [(number, f"drive-scsi{number}", size // 512 * 512 + 512) for number, size in enumerate(sizes, 1)]
    clusters = [
        one for number, _name, size in devices for one in vma_archives.clusters_of(number, b"x" * 70_000 + bytes(size))
    ]
    archive = vma_archives.Archive(
        devices,
        draw(st.permutations(clusters)),
        in_header=_lie(draw, (4, 48, 2044, 3068, 4120, 4136)),
        in_extent=_lie(draw, (0, 6, 40, 48, 64)),
    )
    return archive.whole(draw(st.sampled_from((59, 2))))


def _lie(draw: st.DrawFn, places: tuple[int, ...]) -> vma_archives.Change:
    """Numbers near these places; none, as often as not."""
    near = st.sampled_from(places).flatmap(lambda at: st.integers(at, at + 12))
    number = st.tuples(st.sampled_from(("B", ">H", ">I", ">Q")), near, st.integers(0, (1 << 64) - 1))
    drawn = draw(st.just([]) | st.lists(number, max_size=2))
    changes = [vma_archives.put(form, at, _fit(form, value)) for form, at, value in drawn]

    def change(data: bytearray) -> None:
        for one in changes:
            one(data)

    return change


def _damaged_vmas() -> st.SearchStrategy[Any]:
    whole = vma_archives.Archive([(1, "drive-scsi0", LEAF)], [(1, 0, b"x" * LEAF)]).whole()
    return _vmas() | damaged([whole], (4096, 12288, len(whole) - LEAF - 512))


def _read_vma(data: bytes) -> None:
    file = RangedFile(data)
    with contextlib.suppress(VmferryError):
        archive = VmaArchive(file, file.size)
        for disk in archive.disks.values():
            assert sum(extent.length for extent in disk.extents()) == disk.size
            disk.read_into([(0, memoryview(bytearray(min(disk.size, MIB))))])
    with contextlib.suppress(VmferryError):
        _read_extents(data[13312:])  # behind the headers of most of them
    stream = VmaStream(io.BytesIO(data).read)
    told = sum(one.length for one in stream.runs())
    assert told == sum(disk.size for disk in stream.header.disks)


def _read_extents(data: bytes) -> None:
    """As those of an export's disk."""
    disk = vma_disk(RangedFile(data), len(data), LEAF)
    assert sum(extent.length for extent in disk.extents()) == LEAF
    disk.read_into([(0, memoryview(bytearray(LEAF)))])


@st.composite
def _packed_streams(draw: st.DrawFn) -> bytes:
    pieces = [piece * 50 for piece in draw(st.lists(st.binary(max_size=300), min_size=1, max_size=3))]
    gzipped = b"".join(gzip.compress(piece) for piece in pieces)
    return draw(damaged([gzipped, b"".join(zstandard.compress(piece) for piece in pieces)]))


def _read_packed(data: bytes) -> None:
    read = unpacked(io.BytesIO(data).read)
    while read(4096):
        pass


def _configs() -> st.SearchStrategy[Any]:
    """Of lines that mean something, in any order, and damaged."""
    more = ("bios: ovmf", "machine: q35", "tpmstate0: a:b", "boot: order=;;", "net1: ,")
    known = [*CONFIG.decode().splitlines(), *more]
    lines = st.lists(st.sampled_from(known) | st.text(max_size=40), max_size=40)
    return lines.map(lambda found: "\n".join(found).encode("utf-8", "replace")) | damaged([CONFIG])


def _read_config(text: bytes) -> None:
    found = read_config(text, DEVICES, "name", "here")
    disks = sorted(disk.file for disk in found.disks)
    assert len(set(disks)) == len(disks) > 0
    assert set(disks) <= DEVICES.keys()
    write_config(found).decode("ascii")


@cache
def _layer() -> bytes:
    with TemporaryDirectory() as folder:
        layer = Layer(3 * MIB, whole={0: bytes(MIB)}, sectors={2050: b"x" * 512}, empty={2: 2})
        return write_layer(Path(folder) / "layer", layer, linked("base.vhdx", bytes(16))).read_bytes()


def _layers() -> st.SearchStrategy[Any]:
    return damaged([_layer()], (2 * MIB, 2 * MIB + 65536, 3 * MIB, 3 * MIB + 8 * 4096, 4 * MIB))


def _read_layer(data: bytes) -> None:
    file = RangedFile(data)
    inspect_image(file, file.size, expected="vhdx")
    reader = VhdxReader(file, file.size, layer=True)
    if reader.parent is not None:
        assert reader.parent.names
        reader.stand_on(JoinedDisks([Run(reader.size)]))
    extents = list(islice(reader.extents(), 10_000))
    assert sum(extent.length for extent in extents) <= reader.size
    reader.read_into([(0, memoryview(bytearray(min(reader.size, 3 * MIB))))])


def _snapshot_images() -> st.SearchStrategy[Any]:
    image = bytearray(hostile.image("qcow2"))
    at = len(image)
    entry = struct.pack(">QIHHIIQII", LEAF, 1, 1, 4, 1, 2, 3, 0, 16) + struct.pack(">QQ", 0, SIZE) + b"1then"
    struct.pack_into(">IQ", image, 60, 1, at)
    return damaged([bytes(image) + entry + bytes(64)], (60, at))


def _read_snapshots(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        path.write_bytes(data)
        for one in internal_snapshots(str(path)):
            assert len(one.name) < 1 << 16


def _encrypted_images() -> st.SearchStrategy[Any]:
    from ..images.test_qcow2_encrypted import image_of

    with TemporaryDirectory() as folder:
        image = image_of(Path(folder) / "image", LEAF, [Extent(0, LEAF, "data")]).read_bytes()
    return damaged([image], (112, 3 * LEAF))


def _read_encrypted(data: bytes) -> None:
    file = RangedFile(data)
    open_with_passphrase(file, file.size, b"whatever")


def _read_manifest(text: bytes) -> None:
    found = read_manifest(text, "https://store/vm/manifest.json")
    for path in (file.path for file in found.files):
        assert not path.startswith("/")
        assert ".." not in path.split("/")
    again = found.to_json(lambda name: f"/x/{name}")
    assert isinstance(read_manifest(again, "here"), Manifest)


def _manifests() -> st.SearchStrategy[Any]:
    increment = manifest(mode="incremental", parent="20261120T063000Z-1a2b3c4d")
    seeds = [one.to_json(lambda name: f"/x/{name}") for one in (manifest(), increment)]
    return st.one_of(*map(damaged_json, seeds), damaged(seeds))


def _read_artifacts(text: bytes) -> None:
    is_of_others(text)
    found = read_artifacts(text, "https://store/vm/manifest.json")
    assert found.disks
    for disk in found.disks:
        assert not set(disk.file) & {"/", "\\"}
        assert disk.format in ARTIFACT_FORMATS


def _artifacts() -> st.SearchStrategy[Any]:
    disk = {"id": "disk-0", "source_format": "vmdk", "bytes": 4096, "local_path": "/srv/web.vmdk"}
    more = {**disk, "id": "disk-1", "checksum": f"sha256:{'a' * 64}", "boot_order_hint": 1, "disk_type": "data"}
    vm = {"cpu": 2, "mem_gb": 4, "firmware": "uefi", "secureboot": True, "os_version": "RHEL 9"}
    nic = {"id": "nic-0", "mac": "00:50:56:aa:bb:cc", "network": "lan"}
    whole = {"source": {"vm_name": "web"}, "vm": vm, "disks": [disk, more], "nics": [nic]}
    seed = json.dumps({"manifest_version": "1.0", **whole, "pipeline": {"fix": {"enabled": True}}})
    return damaged_json(seed.encode()) | damaged([seed.encode()])


def _intents() -> st.SearchStrategy[Any]:
    owner = {"host": "kvm1", "boot": "x", "pidns": 1, "pid": 2, "started": 3}
    seed = Intent("20261121T063000Z-1a2b3c4d", "job", UUID, "web01", 1.0, 2.0, owner, window=60.0).to_json()
    return damaged_json(seed) | damaged([seed])


def _read_intent(text: bytes) -> None:
    found = read_intent(text, "here")
    assert isinstance(read_intent(found.renewed(5.0, {}).to_json(), "here"), Intent)


def _states() -> st.SearchStrategy[Any]:
    state = AttemptState(
        chain="0badc0de", started=1.0, taken_at=2.0, consistency="quiesced", format="qcow2", compression="none",
        compression_level=None, encryption=None, tracked=True, name="n", tags=("a",), purpose="p",
        disks=(("disk-0", "vda"),), parent="", reason="", fell_back=False, reference={"a": "b"}, files=(), warnings=(),
        mark="5eed",
    )  # fmt: skip
    assert AttemptState.parse(state.to_json(), "here") == state
    return damaged_json(state.to_json()) | damaged([state.to_json()])


def _read_state(text: bytes) -> None:
    with contextlib.suppress(TypeError, IndexError, KeyError):  # as whoever reads them does
        AttemptState.parse(text, "here")


LIMITS = Limits(workers=1, window=2 * MIB, part=8 * MIB, part_budget=32 * MIB)


@cache
def _journal() -> Mapping[str, bytes]:
    """Of one disk, as it is written."""
    written: dict[str, bytes] = {}

    def write(name: str, data: bytes) -> None:
        written[name] = data

    journal = DiskJournal(write, "disk-0", "binding", "token")
    journal.begin(SIZE, LIMITS, PartSizes(LIMITS.part, LIMITS.part), ExtentMap([Extent(0, SIZE, "data")], SIZE))
    journal.window([sha256(b"a").digest(), None, sha256(b"b").digest()], 3 * LEAF)
    journal.received(PartReceipt(Part(1, 0, 3 * LEAF), bytes(32), "etag"))
    journal.close(5 * LEAF, SMALL)
    return written


@st.composite
def _journals(draw: st.DrawFn) -> Mapping[str, bytes]:
    """With seals that are right: they keep out accidents, and whoever writes a journal can make them."""
    files = dict(_journal())
    head, chapter, extents = sorted(
        files, key=lambda name: (not files[name].startswith(b"{"), files[name][:4] != b"VFJ1")
    )
    broken = draw(st.sampled_from((head, chapter, extents)))
    if broken == extents:
        files[extents] = draw(damaged([files[extents]]))
        files[head] = json.dumps({**json.loads(files[head]), "extents": sha256(files[extents]).hexdigest()}).encode()
    elif broken == head:
        files[head] = draw(damaged_json(files[head]))
    payload = files[chapter][8:-32]
    if broken == chapter:
        payload = draw(damaged([payload]))
    header = JournalHeader.parse(files[head])
    if header is not None:
        seal = sha256(header.seal + payload).digest()
        files[chapter] = struct.pack("<4sI", b"VFJ1", len(payload)) + payload + seal
    return files


def _read_journal(files: Mapping[str, bytes]) -> None:
    for data in files.values():
        JournalHeader.parse(data)
    known = KnownDisk.read(files.get, "disk-0")
    if known is not None:
        known.fits("binding", SIZE, LIMITS)
        assert sum(1 for _window in known.windows()) == known.count


def _object_journals() -> st.SearchStrategy[Any]:
    head = {"version": VERSION, "binding": "b", "token": "t", "part": 5, "store": "s", "key": "k", "job": "j"}
    return st.lists(
        damaged_json(json.dumps(head).encode()) | damaged_json(b'[1, 0, 5, "00", "etag"]') | st.binary(max_size=30),
        min_size=1,
        max_size=3,
    )


def _read_object_journal(lines: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "objects" / "one.jsonl"
        path.parent.mkdir()
        path.write_bytes(b"\n".join(lines))
        journal = ObjectJournal.at(path, "s3://b/k")
        try:
            journal.begun("b", 60.0)
        finally:
            journal.close()


def _maps() -> st.SearchStrategy[Any]:
    whole = ExtentMap([Extent(0, LEAF, "zero"), Extent(LEAF, SIZE - LEAF, "data")], SIZE).packed() or b""
    return st.tuples(damaged([whole]), st.sampled_from((SIZE, 0, 1, 1 << 60)))


def _read_map(drawn: tuple[bytes, int]) -> None:
    data, size = drawn
    found = ExtentMap.unpacked(data, size)
    assert sum(extent.length for extent in found) == size


@st.composite
def _appliances(draw: st.DrawFn) -> bytes:
    """An OVA, of which the archive's headers, the descriptor or the checksums are damaged."""
    files = {"a.ovf": archives.descriptor([("d.vmdk", "d", "1048576"), ("", "e", "512")]), "d.vmdk": bytes(700)}
    files["a.mf"] = archives.sums(files)
    which = draw(st.sampled_from(["archive", *files]))
    if which != "archive":
        files[which] = draw(damaged([files[which]]))
        if which != "a.mf" and draw(st.booleans()):
            files["a.mf"] = archives.sums({name: data for name, data in files.items() if name != "a.mf"})
    whole = archives.archive(files, draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])))
    return draw(damaged([whole], range(0, len(whole), 512))) if which == "archive" else whole


def _read_appliance(data: bytes) -> None:
    appliance = archives.opened(data)
    for disk in appliance.machine.disks:
        if disk.file:
            appliance.watched(disk).check()
    assert write_descriptor(appliance.machine)


@st.composite
def _compressed(draw: st.DrawFn) -> bytes:
    """One gzip, or several in a row, damaged."""
    pieces = draw(st.lists(st.binary(max_size=300), min_size=1, max_size=3))
    return draw(damaged([b"".join(gzip.compress(piece * 50, 1) for piece in pieces)]))


def _read_compressed(data: bytes) -> None:
    def read_at(offset: int, buffer: memoryview) -> None:
        assert 0 <= offset <= offset + len(buffer) <= len(data)
        buffer[:] = data[offset : offset + len(buffer)]

    reader = GzipReader(read_at, len(data), "here")
    found = bytearray(reader.size)
    reader(0, memoryview(found))
    assert bytes(found).startswith(zlib.decompressobj(31).decompress(data))


@st.composite
def _stored(draw: st.DrawFn) -> bytes:
    """A gzip of stored blocks, damaged where these begin, or anywhere."""
    content = mixed(0, 3 * stored_gzip.BLOCK, 1)
    blocks = b"".join(stored_gzip.framed(0, memoryview(content)))
    whole = stored_gzip.START + blocks + stored_gzip.file_end(zlib.crc32(content), len(content))
    starts = range(len(stored_gzip.START), len(whole), len(blocks) // 3)
    return draw(damaged([whole], starts))


def _read_stored(data: bytes) -> None:
    """What is read is what anybody unpacks, who finds nothing wrong with all of it."""
    reader = stored_gzip.StoredGzip(archives.reading(data), len(data), "here")
    found = bytearray(reader.size)
    reader(0, memoryview(found))
    with contextlib.suppress(zlib.error):
        assert bytes(found) == zlib.decompressobj(31).decompress(data)


TARGETS: dict[str, Target] = {
    "appliance": Target(_appliances, _read_appliance),
    "compressed_appliance": Target(_compressed, _read_compressed),
    "stored_appliance": Target(_stored, _read_stored),
    "inspect": Target(_inspections, _inspected),
    "qcow2": Target(_own_images, _read_image),
    "vmdk_vhd_vhdx": Target(_other_images, _read_other),
    "raw_tar_gz": Target(_disk_archives, _read_other),
    "vma": Target(_damaged_vmas, _read_vma),
    "packed_vma": Target(_packed_streams, _read_packed),
    "proxmox_config": Target(_configs, _read_config),
    "vhdx_layers": Target(_layers, _read_layer),
    "qcow2_snapshots": Target(_snapshot_images, _read_snapshots),
    "qcow2_encrypted": Target(_encrypted_images, _read_encrypted),
    "manifest": Target(_manifests, _read_manifest),
    "artifacts": Target(_artifacts, _read_artifacts),
    "intent": Target(_intents, _read_intent),
    "attempt": Target(_states, _read_state),
    "journal": Target(_journals, _read_journal),
    "object_journal": Target(_object_journals, _read_object_journal),
    "extent_map": Target(_maps, _read_map),
}


CPU_SECONDS = 5.0  # for one example; LUKS keys take half of one
MEMORY = 256 * MIB  # that the process may grow by meanwhile


class Hang(AssertionError):
    """It still ran after CPU_SECONDS."""


def demand(check: Callable[[Any], object], drawn: Any) -> None:
    """That it ends, or raises our own error, which says in a sentence what is wrong."""
    Path("/proc/self/clear_refs").write_text("5")  # from here on, the peak is this example's
    before = _peak()
    said = ""
    try:
        with _within(CPU_SECONDS):
            check(drawn)
    except VmferryError as error:
        said = error.message
    assert said.endswith(".") or not said, said
    assert len(said) < 10_000
    grown = _peak() - before
    assert grown < MEMORY, f"{grown} bytes of memory"


def _peak() -> int:
    """Bytes that this process held at the most."""
    told = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(told["VmHWM"].split()[0]) * 1024


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    def ring(_number: int, _frame: object) -> None:
        raise Hang(f"it ran for more than {seconds} s")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def fuzz(name: str, how: settings, number: int = 0) -> None:
    """As many examples as `how` says, out of those that begin with this number."""
    target = TARGETS[name]

    @seed(number)
    @how
    @given(target.draws())
    def examples(drawn: Any) -> None:
        demand(target.check, drawn)

    examples()
