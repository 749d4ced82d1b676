# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Encrypted images: with the passphrase the same disk to QEMU and to us, and without it nothing of the disk."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from random import Random

import numpy
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent, Kind
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images import luks
from ansible_collections.vmferry.migrate.plugins.module_utils._images.luks import HEADER_SIZE, make_header, unlock
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.decrypted import open_with_passphrase
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.encrypted import EncryptedQcow2
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.packed import packed_bound
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.reader import Qcow2Reader
from ansible_collections.vmferry.migrate.plugins.module_utils._images.xts import SectorCipher

from .disks import (
    FEW,
    GIB,
    MIB,
    FileOutput,
    RangedFile,
    assert_tiled,
    content,
    content_of,
    feed,
    reference,
    run,
    runs_of,
    sizes,
)

PASSPHRASE = "correct horse ÄÖ"
KEYS = [Random(number).randbytes(64) for number in range(4)]
KINDS: tuple[Kind, ...] = ("data", "zero", "unchanged")
FAST = 1000  # iterations


def image_of(
    path: Path, size: int, runs: list[Extent], *, seed: int = 1, backing: str = "", content_seed: int = 0
) -> Path:
    bound = sum(-(-extent.length // LEAF) * LEAF for extent in runs if extent.kind == "data")
    output = FileOutput(path)
    writer = EncryptedQcow2(
        size, output, KEYS[seed], PASSPHRASE.encode(), data_bound=bound, backing=backing, iterations=FAST
    )
    assert writer.size_bound == packed_bound(size, bound, HEADER_SIZE)
    output.at = writer.head_size
    feed(writer, size, runs, content_seed or seed)
    output.finish(writer)
    return path


def opened(image: Path, layers: int = 1) -> str:
    """The options by which QEMU opens an image and so many below it."""
    keys = "".join(f",{'backing.' * level}encrypt.key-secret=key" for level in range(layers))
    return f"driver=qcow2,file.driver=file,file.filename={image}{keys}"


def secret(folder: Path, passphrase: str = PASSPHRASE) -> str:
    (folder / "passphrase").write_text(passphrase)
    return f"secret,id=key,file={folder / 'passphrase'}"


def judge(image: Path, expected: Path, layers: int = 1) -> None:
    asked = ("--object", secret(image.parent), "--image-opts")
    found = json.loads(run("qemu-img", "check", "--output=json", *asked, opened(image, layers)))
    assert not {name for name in ("corruptions", "leaks", "check-errors") if found.get(name)}, found
    assert found["image-end-offset"] == image.stat().st_size
    raw = f"driver=raw,file.driver=file,file.filename={expected}"
    run("qemu-img", "compare", *asked, opened(image, layers), raw)


@FEW
@given(st.data())
def test_chains_of_any_disk_are_the_same_to_qemu_and_to_us(data: st.DataObject) -> None:
    size, backing, layers, reader = data.draw(sizes()), "", [], None
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, data.draw(st.integers(1, 3)) + 1):
            runs = data.draw(runs_of(size, KINDS if backing else KINDS[:2]))
            image = image_of(Path(folder) / f"layer-{number}", size, runs, seed=number, backing=backing)
            layers.append((runs, number))
            backing = image.name
            expected = reference(Path(folder) / "reference", size, *layers)
            judge(image, expected, len(layers))
            file = RangedFile(image)
            reader = Qcow2Reader(file, file.size, size=size, backing=reader, key=KEYS[number])
            assert content_of(reader) == expected.read_bytes()
            assert_tiled(list(reader.extents()), size)
            offset = data.draw(st.integers(0, size - 1))
            length = data.draw(st.integers(0, size - offset))
            assert content_of(reader, offset, length) == expected.read_bytes()[offset : offset + length]


def test_a_disk_of_several_tables_is_the_same_to_qemu(tmp_path: Path) -> None:
    size = 3 * GIB + 512
    runs = [Extent(0, LEAF, "data"), Extent(GIB, MIB, "data"), Extent(3 * GIB, 512, "data")]
    judge(image_of(tmp_path / "image", size, runs), reference(tmp_path / "reference", size, (runs, 1)))


def test_an_image_has_nothing_of_the_disk_in_it(tmp_path: Path) -> None:
    stored = image_of(tmp_path / "image", MIB, [Extent(0, MIB, "data")], content_seed=0xC0FFEE).read_bytes()
    plain = content(0, MIB, 0xC0FFEE)
    assert not any(plain[at : at + 16] in stored for at in range(0, MIB, 4096))
    assert PASSPHRASE.encode() not in stored
    assert KEYS[1][:16] not in stored


def test_qemu_refuses_another_passphrase(tmp_path: Path) -> None:
    image = image_of(tmp_path / "image", MIB, [Extent(0, MIB, "data")])
    asked = ["qemu-img", "check", "--object", secret(tmp_path, "wrong"), "--image-opts", opened(image)]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert found.returncode
    assert "Invalid password" in found.stderr


def test_the_key_is_found_by_the_passphrase_alone(tmp_path: Path) -> None:
    file = RangedFile(image_of(tmp_path / "image", MIB, [Extent(0, MIB, "data")]))
    assert open_with_passphrase(file, file.size, PASSPHRASE.encode()) == KEYS[1]
    with pytest.raises(VmferryError, match="does not open") as found:
        open_with_passphrase(file, file.size, b"wrong")
    assert found.value.kind == "unauthenticated"


@pytest.mark.parametrize("key", [None, KEYS[2]])
def test_an_image_is_not_read_without_its_own_key(tmp_path: Path, key: bytes | None) -> None:
    file = RangedFile(image_of(tmp_path / "image", MIB, [Extent(0, MIB, "data")]))
    with pytest.raises(VmferryError) as found:
        Qcow2Reader(file, file.size, size=MIB, key=key)
    assert found.value.kind == "invalid_config"


def test_a_plain_image_in_the_place_of_an_encrypted_one_is_refused(tmp_path: Path) -> None:
    run("qemu-img", "create", "-f", "qcow2", tmp_path / "image", "1M")
    file = RangedFile(tmp_path / "image")
    with pytest.raises(VmferryError):
        Qcow2Reader(file, file.size, size=MIB, key=KEYS[1])


@pytest.mark.parametrize("place", [0, 6, 8, 40, 72, 104, 111, 112, 140, 167, 208, 215, 216, 248, 255, 256, 300, 9000])
def test_a_damaged_header_is_an_error_and_nothing_else(place: int) -> None:
    header = bytearray(make_header(KEYS[1], PASSPHRASE.encode(), FAST))
    header[place] ^= 4
    with pytest.raises(VmferryError) as found:
        unlock(bytes(header), PASSPHRASE.encode())
    assert found.value.kind in ("invalid_config", "unauthenticated")


@pytest.mark.parametrize("iterations", [luks.ITERATIONS + 1, (1 << 32) - 1])
def test_a_header_that_asks_for_more_work_than_is_ever_written_is_refused(iterations: int) -> None:
    header = bytearray(make_header(KEYS[1], PASSPHRASE.encode(), FAST))
    header[212:216] = iterations.to_bytes(4, "big")
    with pytest.raises(VmferryError, match="more work"):
        unlock(bytes(header), PASSPHRASE.encode())


def test_an_export_that_is_gone_on_with_writes_the_same_header() -> None:
    assert make_header(KEYS[1], b"one", FAST) == make_header(KEYS[1], b"one", FAST)
    assert make_header(KEYS[1], b"one", FAST) != make_header(KEYS[2], b"one", FAST)


class _OfAnotherHost:
    """numpy as a host has it whose own words begin with the highest byte."""

    def __init__(self) -> None:
        self.uint64 = _Word()

    def __getattr__(self, name: str) -> object:
        return getattr(numpy, name)


class _Word:
    dtype = numpy.dtype(">u8")

    def __call__(self, value: int) -> numpy.uint64:
        return numpy.uint64(value)


@pytest.mark.parametrize("ours", [numpy, _OfAnotherHost()], ids=["this host", "big-endian"])
def test_it_is_xts_on_every_host(ours: object) -> None:
    sectors, first = 700, 128
    plain = Random(1).randbytes(sectors * 512)
    cipher = SectorCipher(KEYS[1])
    cipher._numpy = ours  # type: ignore[assignment]
    found = memoryview(bytearray(len(plain)))
    cipher.encrypt(first * 512, memoryview(bytearray(plain)), found)
    for number in (0, 1, 511, 512, 699):
        tweak = modes.XTS((first + number).to_bytes(16, "little"))
        theirs = Cipher(algorithms.AES(KEYS[1]), tweak).encryptor()
        assert found[number * 512 : number * 512 + 512] == theirs.update(plain[number * 512 : number * 512 + 512])
    cipher.decrypt(first * 512, found, found)
    assert found == plain
