# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Encrypted chains in a store: restored by us and by qemu-img, merged, verified; without a key nothing of a disk."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports import encryption
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.catalog import Catalog
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.encryption import Keyring
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import Limits, Protections
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.seals import Seals
from ansible_collections.vmferry.migrate.plugins.module_utils._images import luks
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.clean_up_exports import clean_up_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.cleaning import fold_export
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import PHASES_WITH_COPIES
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting.copy_export import ExportCopies
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    CleanupRequest,
    StoreSpec,
    TransferOptions,
    VerifyRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.verify_export import verify_export
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import open_filesystem

from .chains import HOME, LEAF, Chain, Guest, export, restored

DOCS = Path(__file__).resolve().parents[2] / "docs"
WORD, OTHER = b"correct horse battery", b"another one"


def sealed(passphrase: bytes = WORD, strict: bool = False) -> Seals:
    ring = Keyring(passphrase, strict)
    return Seals(signers=(ring,), keyring=ring)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(luks, "ITERATIONS", 1000)
    monkeypatch.setattr(encryption, "_COST", (1 << 10, 8, 1))


class Encrypted:
    """A chain of encrypted exports in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "store"
        self.spec = StoreSpec(self.root.as_uri())
        self.guest, self.chain = Guest(), Chain()

    def make(self, passphrase: bytes = WORD, **options: Any) -> dict[str, Any]:
        told = export(self.spec, self.guest, self.folder / "state", seals=sealed(passphrase), **options)
        if told["changed"]:
            self.chain.add(told["export"]["id"], self.guest.now)
        return told

    def increments(self, count: int) -> None:
        self.make()
        for _unused in range(count):
            self.guest.write_some()
            self.make(mode="incremental")

    def export_folder(self, number: int = -1) -> Path:
        return self.root / HOME / self.chain.ids[number]

    def restored(self, number: int = -1, passphrase: bytes = WORD) -> dict[str, bytes]:
        with closing(open_filesystem(self.spec.url, {})) as store:
            return restored(store, self.chain.ids[number], sealed(passphrase, strict=True))

    def verify(self, level: str = "content", seals: Seals | None = None, **options: Any) -> list[dict[str, Any]]:
        transfer = TransferOptions(state_dir=str(self.folder / "state"))
        asked = VerifyRequest(self.spec, level, seals=seals or sealed(strict=True), transfer=transfer, **options)  # type: ignore[arg-type]
        problems: list[dict[str, Any]] = verify_export(asked, False)["problems"]
        return problems

    def clean_up(self, seals: Seals, keep: int = 1) -> dict[str, Any]:
        limits, protections = Limits(max_count=keep), Protections(keep_last=1, min_retention=0)
        return clean_up_exports(CleanupRequest(self.spec, limits, protections, merge=True, seals=seals), False)

    def opened_by_qemu(self, number: int, disk: str, layers: int) -> bytes:
        (self.folder / "passphrase").write_bytes(WORD)
        image = self.export_folder(number) / f"{disk}.qcow2"
        keys = "".join(f",{'backing.' * level}encrypt.key-secret=key" for level in range(layers))
        asked = ["--object", f"secret,id=key,file={self.folder / 'passphrase'}", "--image-opts"]
        opened = f"driver=qcow2,file.driver=file,file.filename={image}{keys}"
        subprocess.run(["qemu-img", "check", "-q", *asked, opened], check=True)
        target = self.folder / "flat.raw"
        subprocess.run(["qemu-img", "convert", *asked, "-O", "raw", opened, str(target)], check=True)
        return target.read_bytes()


@pytest.fixture
def encrypted(tmp_path: Path) -> Encrypted:
    return Encrypted(tmp_path)


def assert_restored(encrypted: Encrypted, number: int, layers: int) -> None:
    held = encrypted.chain.held[encrypted.chain.ids[number]]
    assert encrypted.restored(number) == held
    for disk, data in held.items():
        flat = encrypted.opened_by_qemu(number, disk, layers)
        assert flat[: len(data)] == data
        assert not any(flat[len(data) :])


def test_a_chain_is_restored_verified_and_merged_and_qemu_opens_all_of_it(encrypted: Encrypted) -> None:
    encrypted.increments(3)
    for number in range(4):
        assert_restored(encrypted, number, number + 1)
    for level in ("manifest", "stored", "content"):
        assert encrypted.verify(level) == []
    assert len(encrypted.clean_up(sealed(), keep=2)["merged"]) == 1
    assert_restored(encrypted, 2, 1)
    assert_restored(encrypted, 3, 2)
    assert encrypted.verify() == []
    encrypted.guest.write_some()
    assert encrypted.make(mode="incremental")["export"]["parent"] == encrypted.chain.ids[3]
    assert_restored(encrypted, 4, 3)


def test_later_chains_of_a_vm_are_opened_by_one_derivation_and_share_no_image_key(
    encrypted: Encrypted, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _unused in range(3):
        encrypted.guest.write_some()
        encrypted.make(mode="full")
    asked: list[bytes] = []
    stretched = encryption._stretched
    monkeypatch.setattr(encryption, "_stretched", lambda word, salt: asked.append(salt) or stretched(word, salt))
    assert encrypted.restored() == encrypted.guest.now
    assert len(asked) == 1
    headers = {(encrypted.export_folder(number) / "disk-0.qcow2").read_bytes()[3 * LEAF :][:592] for number in range(3)}
    assert len(headers) == 3


def test_the_exports_of_other_vms_are_not_opened(encrypted: Encrypted) -> None:
    encrypted.make()
    other = json.loads((encrypted.export_folder() / "manifest.json").read_text())
    home = encrypted.root / HOME.replace("web01", "web02") / encrypted.chain.ids[0]
    home.mkdir(parents=True)
    other["x_vmferry"]["machine"].update(name="web02", id="0" * 8)
    (home / "manifest.json").write_text(json.dumps(other))
    with closing(open_filesystem(encrypted.spec.url, {})) as store:
        whole, broken = Catalog(store, sealed(strict=True)).read("web01")
        assert ([entry.manifest.export_id for entry in whole], broken) == (encrypted.chain.ids, [])
        assert len(Catalog(store, sealed(strict=True)).read()[1]) == 1


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_commands_of_the_documentation_restore_it(encrypted: Encrypted, layers: int) -> None:
    recipes = re.findall(r"```bash\n(.*?)```", (DOCS / "encryption.md").read_text(), re.DOTALL)
    encrypted.increments(layers - 1)
    work = encrypted.folder / "work"
    work.mkdir()
    given = {**os.environ, "PASSPHRASE": WORD.decode(), "EXPORT": str(encrypted.export_folder())}
    subprocess.run(["bash", "-euc", recipes[layers - 1]], cwd=work, env=given, check=True)
    assert (work / "disk-0.raw").read_bytes() == encrypted.guest.now["disk-0"]


def test_its_manifest_is_what_the_schema_says(encrypted: Encrypted) -> None:
    encrypted.make()
    schema = json.loads((DOCS / "schema/manifest-1.json").read_text())
    jsonschema.validate(json.loads((encrypted.export_folder() / "manifest.json").read_text()), schema)


def test_a_copy_is_opened_by_the_passphrase_of_the_export(encrypted: Encrypted) -> None:
    encrypted.increments(1)
    copies = StoreSpec((encrypted.folder / "copies").as_uri())
    transfer = TransferOptions(state_dir=str(encrypted.folder / "state"))
    with (
        RunningJob.start("export", transfer, "web01", encrypted.spec.url, PHASES_WITH_COPIES, False) as job,
        closing(job.open_store(encrypted.spec)) as store,
        closing(open_filesystem(copies.url, {})) as there,
    ):
        entry = Catalog(store, sealed()).find(encrypted.chain.ids[-1])
        assert ExportCopies(job, store, entry).copy_to(copies)["holds"]
        assert restored(there, encrypted.chain.ids[-1], sealed(strict=True)) == encrypted.guest.now


def test_nothing_of_the_disk_nor_of_the_passphrase_is_in_any_file(encrypted: Encrypted) -> None:
    encrypted.increments(1)
    files = [path.read_bytes() for path in encrypted.folder.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert not any(WORD in text for text in files)
    for disks in encrypted.chain.held.values():
        for data in disks.values():
            probes = [data[at : at + 16] for at in range(0, len(data) - 16, LEAF // 2)]
            assert not any(probe in text for text in files for probe in probes if any(probe))


def test_leaves_that_are_alike_have_digests_that_are_not(encrypted: Encrypted) -> None:
    for leaf in range(20):
        encrypted.guest.disks["disk-0"][leaf * LEAF : (leaf + 1) * LEAF] = b"a" * LEAF
    encrypted.make()
    digests = (encrypted.export_folder() / "disk-0.digests").read_bytes().partition(b"\n")[2][24:]
    assert len({digests[at : at + 32] for at in range(0, 20 * 32, 32)}) == 20
    assert (
        json.loads((encrypted.export_folder() / "disk-0.digests").read_bytes().partition(b"\n")[0])["algorithm"]
        == "hmac-sha256"
    )


def test_two_full_exports_of_one_disk_have_no_digest_in_common(encrypted: Encrypted) -> None:
    encrypted.make()
    encrypted.make(mode="full")
    texts = [(encrypted.export_folder(number) / "disk-0.digests").read_bytes() for number in range(2)]
    bodies = [text.partition(b"\n")[2][24:] for text in texts]
    first, second = ({body[at : at + 32] for at in range(0, 20 * 32, 32)} for body in bodies)
    assert len(first) == len(second) == 20
    assert not first & second


def test_what_did_not_change_is_not_exported_again(encrypted: Encrypted) -> None:
    encrypted.increments(1)
    assert encrypted.make()["unchanged_since"] == encrypted.chain.ids[-1]
    encrypted.guest.write("disk-0", 3)
    made = encrypted.make(mode="incremental")["export"]
    assert made["encryption"] == "luks"
    assert made["signature"] == "valid"
    assert sum(disk["bytes_changed"] for disk in made["disks"]) == LEAF


def test_another_passphrase_begins_a_new_chain_and_says_so(encrypted: Encrypted) -> None:
    encrypted.increments(1)
    encrypted.guest.write_some()
    with pytest.raises(VmferryError, match="another passphrase") as told:
        encrypted.make(OTHER, mode="incremental")
    assert told.value.kind == "conflict"
    made = encrypted.make(OTHER)["export"]
    assert (made["mode"], made["reason"]) == ("full", "the chain is encrypted with another passphrase")
    assert "another passphrase" in made["fell_back"]
    assert encrypted.restored(-1, OTHER) == encrypted.guest.now


def test_a_chain_is_encrypted_as_a_whole_or_not_at_all(encrypted: Encrypted) -> None:
    export(encrypted.spec, encrypted.guest, encrypted.folder / "state")
    encrypted.guest.write_some()
    with pytest.raises(VmferryError, match="the chain is not encrypted"):
        encrypted.make(mode="incremental")
    assert encrypted.make()["export"]["mode"] == "full"
    assert encrypted.restored() == encrypted.guest.now


class Tracked(Guest):
    """Each export has a change token, and a disk is known by those that are left."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[str] = []

    def forget(self, vm: Any, tokens: Any) -> list[str]:
        self.tokens = [token for token in self.tokens if token not in tokens]
        return []

    @contextmanager
    def open_export(self, *_unused: object) -> Iterator[Any]:
        with super().open_export() as session:
            session.token = f"vmferry-{len(self.tokens)}-{secrets.token_hex(4)}"
            session.keep_token = lambda: self.tokens.append(session.token)
            yield session


def test_tasks_with_passphrases_and_without_go_on_with_a_chain_of_their_own(encrypted: Encrypted) -> None:
    encrypted.guest = guest = Tracked()
    state, modes, parents, last = encrypted.folder / "state", [], [], {}
    for number in range(6):
        guest.write_some()
        made = (encrypted.make() if number % 2 else export(encrypted.spec, guest, state))["export"]
        modes.append(made["mode"])
        parents.append(made["parent"] == last.get(number % 2, ""))
        last[number % 2] = made["id"]
        assert made["change_token"] in guest.tokens
    assert modes == ["full", "full", *["incremental"] * 4]
    assert parents == [True] * 6
    assert len(guest.tokens) == 2
    assert encrypted.restored() == guest.now


def test_no_increment_stands_on_a_chain_whose_full_export_was_forged_as_plain(encrypted: Encrypted) -> None:
    encrypted.increments(2)

    def as_plain(own: dict[str, Any]) -> None:
        own.pop("encryption")
        own.pop("signatures")
        for disk in own["disks"]:
            disk.pop("key_nonce")
            path = encrypted.export_folder(0) / disk["digests"]["path"]
            path.write_bytes(path.read_bytes().replace(b'"hmac-sha256"', b'"sha256"'))
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            disk["digests"].update(algorithm="sha256", size=path.stat().st_size, sha256=found)

    of_manifest(as_plain, 0)(encrypted)
    encrypted.guest.write_some()
    with pytest.raises(VmferryError, match="the chain is not encrypted"):
        encrypted.make(mode="incremental")
    assert encrypted.make()["export"]["mode"] == "full"
    assert encrypted.restored() == encrypted.guest.now


def test_an_export_that_is_not_encrypted_does_not_do_for_one_that_is(encrypted: Encrypted) -> None:
    export(encrypted.spec, encrypted.guest, encrypted.folder / "state", name="monthly")
    with pytest.raises(VmferryError, match="no encryption") as told:
        encrypted.make(name="monthly")
    assert told.value.kind == "conflict"
    assert encrypted.make(max_age=3600.0)["changed"]
    assert not encrypted.make(max_age=3600.0)["changed"]


@pytest.mark.parametrize("options", [{"compression": "zstd"}, {"format": "raw"}])
def test_what_cannot_be_encrypted_is_told_before_the_first_byte(encrypted: Encrypted, options: dict[str, Any]) -> None:
    with pytest.raises(VmferryError, match="encrypted") as told:
        encrypted.make(**options)
    assert told.value.kind == "invalid_config"
    assert not encrypted.root.exists()


def test_without_the_passphrase_bytes_are_verified_and_content_is_not(encrypted: Encrypted) -> None:
    encrypted.increments(1)
    assert encrypted.verify("stored", Seals()) == []
    with pytest.raises(VmferryError, match="no passphrase") as told:
        encrypted.verify("content", Seals())
    assert told.value.kind == "invalid_config"


def test_another_passphrase_opens_nothing(encrypted: Encrypted) -> None:
    encrypted.increments(1)
    for act in (lambda: encrypted.restored(-1, OTHER), lambda: encrypted.verify("manifest", sealed(OTHER, True))):
        with pytest.raises(VmferryError, match="does not open") as told:
            act()
        assert told.value.kind == "unauthenticated"


def test_a_name_that_another_passphrase_may_open_is_not_said_to_be_missing(encrypted: Encrypted) -> None:
    encrypted.make(name="monthly")
    with pytest.raises(VmferryError, match="does not open") as told:
        encrypted.verify("manifest", sealed(OTHER, True), export="monthly")
    assert told.value.kind == "unauthenticated"


def test_an_export_that_is_not_encrypted_is_not_taken_for_one_that_is(encrypted: Encrypted) -> None:
    told = export(encrypted.spec, encrypted.guest, encrypted.folder / "state")
    encrypted.chain.add(told["export"]["id"], encrypted.guest.now)
    with pytest.raises(VmferryError, match="not encrypted") as error:
        encrypted.restored()
    assert error.value.kind == "checksum_mismatch"


def test_merges_need_the_passphrase_and_say_so(encrypted: Encrypted) -> None:
    encrypted.increments(2)
    for seals in (Seals(), sealed(OTHER)):
        told = encrypted.clean_up(seals)
        assert told["merged"] == []
        assert {one["rule"] for one in told["exports"]} >= {"encrypted"}
    assert_restored(encrypted, 2, 3)


def test_a_cleanup_with_the_passphrase_decides_nothing_by_what_was_changed(encrypted: Encrypted) -> None:
    encrypted.make()
    encrypted.guest.write_some()
    encrypted.make(mode="full")
    of_manifest(lambda own: own.update(taken_at="2020-01-01T00:00:00Z"))(encrypted)
    told = encrypted.clean_up(sealed(), keep=1)
    assert [one["url"].rpartition("/")[2] for one in told["broken"]] == [encrypted.chain.ids[-1]]
    assert not [one for one in told["exports"] if one["action"] == "delete"]
    assert all(encrypted.export_folder(number).exists() for number in (0, 1))


def test_a_plain_export_is_not_merged_into_an_encrypted_one(encrypted: Encrypted) -> None:
    encrypted.increments(2)
    path = encrypted.export_folder(0) / "manifest.json"
    document = json.loads(path.read_text())
    for name in ("encryption", "signatures"):
        document["x_vmferry"].pop(name)
    for disk in document["x_vmferry"]["disks"]:
        disk.pop("key_nonce")
        disk["digests"]["algorithm"] = "sha256"
    path.write_text(json.dumps(document))
    with pytest.raises(VmferryError, match="is not encrypted, and a passphrase was given"):
        encrypted.clean_up(sealed())


class StoppedError(Exception):
    """In the place of a kill."""


@pytest.mark.parametrize("step", ["fold_recorded", "fold_replaced", "fold_verified"])
def test_a_merge_that_stopped_is_read_as_before_and_finished(
    encrypted: Encrypted, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    encrypted.increments(3)

    def stop(name: str) -> None:
        if name == step:
            raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(fold_export, "failpoint", stop)
        with pytest.raises(StoppedError):
            encrypted.clean_up(sealed(), keep=2)
    for number in (2, 3):
        assert encrypted.restored(number) == encrypted.chain.held[encrypted.chain.ids[number]]
    encrypted.clean_up(sealed(), keep=2)
    assert_restored(encrypted, 2, 1)
    assert_restored(encrypted, 3, 2)
    assert encrypted.verify() == []


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def of_manifest(change: Callable[[dict[str, Any]], object], number: int = -1) -> Callable[[Encrypted], None]:
    def apply(encrypted: Encrypted) -> None:
        path = encrypted.export_folder(number) / "manifest.json"
        document = json.loads(path.read_text())
        change(document["x_vmferry"])
        path.write_text(json.dumps(document))

    return apply


def swap(one: str, other: str) -> Callable[[Encrypted], None]:
    def apply(encrypted: Encrypted) -> None:
        folder = encrypted.export_folder()
        (folder / one).rename(folder / "aside")
        (folder / other).rename(folder / one)
        (folder / "aside").rename(folder / other)

    return apply


def swapped_leaves(encrypted: Encrypted) -> None:
    path = encrypted.export_folder(0) / "disk-0.qcow2"
    data = bytearray(path.read_bytes())
    first, second = slice(10 * LEAF, 11 * LEAF), slice(11 * LEAF, 12 * LEAF)
    data[first], data[second] = data[second], data[first]
    path.write_bytes(data)


def as_of(number: int) -> Callable[[Encrypted], None]:
    """An older export in the place of the newest one."""

    def apply(encrypted: Encrypted) -> None:
        for path in encrypted.export_folder(number).iterdir():
            if path.is_file():
                (encrypted.export_folder() / path.name).write_bytes(path.read_bytes())

    return apply


TAMPERED: dict[str, Callable[[Encrypted], None]] = {
    "data": lambda one: flip(one.export_folder(0) / "disk-0.qcow2", 12 * LEAF + 77),
    "tables": lambda one: flip(one.export_folder(0) / "disk-0.qcow2", LEAF + 6),
    "crypto header": lambda one: flip(one.export_folder(0) / "disk-0.qcow2", 3 * LEAF + 120),
    "digests": lambda one: flip(one.export_folder(0) / "disk-0.digests", -40),
    "digests of the increment": lambda one: flip(one.export_folder() / "disk-0.digests", -1),
    "leaves": swapped_leaves,
    "images": swap("disk-0.qcow2", "disk-1.qcow2"),
    "digest files": swap("disk-0.digests", "disk-1.digests"),
    "disks": of_manifest(lambda own: own["disks"].reverse()),
    "a root": of_manifest(lambda own: own["disks"][0].update(digest_root="0" * 64)),
    "the time": of_manifest(lambda own: own.update(taken_at="2020-01-01T00:00:00Z")),
    "the parent": of_manifest(lambda own: own.update(parent="", mode="full")),
    "no signature": of_manifest(lambda own: own.pop("signatures")),
    "no encryption": of_manifest(lambda own: own.pop("encryption")),
    "the nonce": of_manifest(lambda own: own["disks"][0].update(key_nonce="0" * 32)),
    "an older export": as_of(0),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_whatever_was_changed_is_found(encrypted: Encrypted, what: str) -> None:
    encrypted.increments(1)
    TAMPERED[what](encrypted)
    with pytest.raises(VmferryError) as told:
        encrypted.restored(passphrase=WORD)
    assert told.value.kind in ("checksum_mismatch", "invalid_config", "conflict", "not_found")
    with pytest.raises(VmferryError):
        encrypted.verify()


@pytest.mark.parametrize("number", [0, 1])
def test_an_image_that_qemu_cannot_open_any_more_is_found(encrypted: Encrypted, number: int) -> None:
    encrypted.increments(1)
    image = encrypted.export_folder(number) / "disk-0.qcow2"
    data = image.read_bytes()
    flip(image, data.index(b"LUKS\xba\xbe") + 8 * 4096)  # in the key slot's material
    assert encrypted.restored() == encrypted.guest.now
    with pytest.raises(VmferryError, match="qemu-img") as told:
        encrypted.verify("content")
    assert told.value.kind == "checksum_mismatch"
    (problem,) = told.value.done["problems"]
    assert (problem["export"], problem["disk"], problem["object"]) == (
        encrypted.chain.ids[number],
        "disk-0",
        "disk-0.qcow2",
    )


@pytest.mark.parametrize("file", ["disk-0.qcow2", "disk-0.digests", "manifest.json"])
def test_what_was_cut_off_is_found(encrypted: Encrypted, file: str) -> None:
    encrypted.increments(1)
    path = encrypted.export_folder() / file
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(VmferryError):
        encrypted.verify("stored")


def test_a_manifest_that_asks_for_too_much_work_is_refused(encrypted: Encrypted) -> None:
    encrypted.make()
    for change in ({"n": 1 << 30}, {"p": 1 << 20}, {"n": 1000}, {"kdf": "none"}, {"salt": "zz"}):
        before = (encrypted.export_folder() / "manifest.json").read_bytes()
        of_manifest(lambda own, change=change: own["encryption"].update(change))(encrypted)  # type: ignore[misc]
        with pytest.raises(VmferryError) as told:
            encrypted.restored()
        assert told.value.kind == "invalid_config"
        (encrypted.export_folder() / "manifest.json").write_bytes(before)
