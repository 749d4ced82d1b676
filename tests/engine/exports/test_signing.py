# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A signature is over all that a reader relies on, and says which manifest it belongs to."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.checksums import with_checksums
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.ed25519 import (
    read_public_key,
    read_signing_key,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.locations import with_locations
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import read_manifest
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.seals import UNCHECKED, IfSigned, Seals
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.signing import Lenient, Untrusted, signed_text

from .keys import key, pem, signing, trusting
from .samples import disk, manifest

WHERE = "file:///srv/manifest.json"
DOCS = Path(__file__).parents[3] / "docs"
PLAIN = manifest(warnings=("Grüße",), statistics={"duration": 0.1, "rate": 1e-7, "disks": {}}).to_json(str)
SIGNED = signing(1).seal(PLAIN)
Path_ = tuple[Any, ...]


def changed(how: Callable[[dict[str, Any]], object], text: bytes = SIGNED) -> bytes:
    document = json.loads(text)
    how(document)
    return json.dumps(document).encode()


def places(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Of everything in a document."""
    yield path
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, below in steps:
        yield from places(below, (*path, step))


def is_signed(path: Path_) -> bool:
    return path[:2] != ("x_vmferry", "signatures") and not (path[:1] == ("disks",) and path[2:] == ("local_path",))


FIELDS = [path for path in places(json.loads(SIGNED)) if path and is_signed(path)]


def at(document: Any, path: Path_) -> Any:
    for step in path:
        document = document[step]
    return document


def another(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return f"{value}x" if isinstance(value, str) else [value]


def test_what_is_signed_is_read_as_what_was_written() -> None:
    read = read_manifest(SIGNED, WHERE, trusting(1))
    assert read == read_manifest(PLAIN, WHERE)
    assert (read.signature, [one.by for one in read.signatures]) == ("valid", ["key"])
    schema = json.loads((DOCS / "schema" / "manifest-1.json").read_text())
    jsonschema.validate(json.loads(SIGNED), schema)


def test_no_field_can_be_changed_or_taken_away() -> None:
    for path in FIELDS:
        document = json.loads(SIGNED)
        holder, last = at(document, path[:-1]), path[-1]
        holder[last] = another(holder[last])
        assert is_refused(document) == ("unlike" if path == ("x_vmferry",) else "untrusted"), path
        del holder[last]
        assert is_refused(document) == ("unlike" if path == ("x_vmferry",) else "untrusted"), path


def is_refused(document: dict[str, Any]) -> str:
    try:
        read_manifest(json.dumps(document).encode(), WHERE, trusting(1))
    except Untrusted as error:
        return "untrusted" if "was changed since it was signed by" in str(error) else "for another reason"
    except VmferryError:
        return "unlike"  # a manifest of ours
    return ""


def test_nothing_can_be_added() -> None:
    for path in [(), *(one for one in FIELDS if isinstance(at(json.loads(SIGNED), one), dict))]:
        with pytest.raises(Untrusted):
            read_manifest(changed(lambda document, path=path: at(document, path).update(new=1)), WHERE, trusting(1))


def test_every_class_of_fields_was_changed_above() -> None:
    told = {".".join(map(str, path)) for path in FIELDS}
    wanted = {
        "export_id",
        "chain_id",
        "mode",
        "parent",
        "taken_at",
        "disks.0.digest_root",
        "disks.0.file",
        "files.0.sha256",
    }
    wanted |= {
        "disks.0.digests.sha256",
        "disks.0.object_proof.parts.0.sha256",
        "machine.id",
        "change_token",
        "verified",
    }
    assert {f"x_vmferry.{one}" for one in wanted} <= told
    assert {"source.vm_id", "nics.0.mac", "disks.0.bytes", "warnings.0.message"} <= told


def test_what_a_copy_and_a_later_look_change_leaves_the_signature_valid() -> None:
    moved = with_locations(SIGNED, lambda file: f"s3://elsewhere/{file}")
    filled = with_checksums(moved, {"disk-0": "ab" * 32})
    assert filled is not None
    document = json.loads(filled)
    assert document["disks"][0]["local_path"] == "s3://elsewhere/disk-0.qcow2"
    assert document["disks"][0]["checksum"] == f"sha256:{'ab' * 32}"
    assert read_manifest(filled, WHERE, trusting(1)).signature == "valid"


def test_what_a_newer_version_wrote_is_signed_and_moved_as_it_is() -> None:
    newer = signing(1).seal(changed(lambda document: document["x_vmferry"].update(later={"a": [1]}), PLAIN))
    moved = with_locations(newer, str)
    assert json.loads(moved)["x_vmferry"]["later"] == {"a": [1]}
    assert read_manifest(moved, WHERE, trusting(1)).signature == "valid"


def test_order_and_white_space_are_not_signed() -> None:
    document = json.loads(SIGNED)
    turned = json.dumps(dict(reversed(document.items())), ensure_ascii=False, separators=(",", ":")).encode()
    assert read_manifest(turned, WHERE, trusting(1)).signature == "valid"
    assert signed_text(json.loads(turned)) == signed_text(document)


def test_another_key_is_not_trusted() -> None:
    with pytest.raises(Untrusted, match=f"is signed by {key(1).public_key[:16]}..., which is not trusted"):
        read_manifest(SIGNED, WHERE, trusting(2))
    assert read_manifest(SIGNED, WHERE, trusting(2, 1)).signature == "valid"


def test_another_key_that_claims_to_be_the_trusted_one_is_found() -> None:
    def lie(document: dict[str, Any]) -> None:
        document["x_vmferry"]["signatures"][0]["public_key"] = key(1).public_key

    with pytest.raises(Untrusted, match="was changed since"):
        read_manifest(changed(lie, signing(2).seal(PLAIN)), WHERE, trusting(1))


@pytest.mark.parametrize("gone", [lambda own: own.pop("signatures"), lambda own: own.update(signatures=[])])
def test_a_signature_that_was_taken_away_is_missed(gone: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(Untrusted, match="is not signed") as refused:
        read_manifest(changed(lambda document: gone(document["x_vmferry"])), WHERE, trusting(1))
    assert refused.value.kind == "checksum_mismatch"
    assert "trusted_keys" in refused.value.hint


def test_a_signature_of_another_export_is_of_no_use() -> None:
    other = json.loads(signing(1).seal(manifest("20261122T063000Z-5e6f7a8b").to_json(str)))

    def replay(document: dict[str, Any]) -> None:
        document["x_vmferry"]["signatures"] = other["x_vmferry"]["signatures"]

    with pytest.raises(Untrusted, match="was changed since"):
        read_manifest(changed(replay), WHERE, trusting(1))


def test_one_of_several_signatures_is_enough_and_an_unknown_one_is_passed_over() -> None:
    both = Seals((key(2), key(1))).seal(PLAIN)
    for number in (1, 2):
        assert read_manifest(both, WHERE, trusting(number)).signature == "valid"

    def unknown(document: dict[str, Any]) -> None:
        document["x_vmferry"]["signatures"][0].update(algorithm="of-tomorrow")

    assert read_manifest(changed(unknown, both), WHERE, trusting(1)).signature == "valid"
    with pytest.raises(Untrusted):
        read_manifest(changed(unknown, both), WHERE, trusting(2))


def test_all_that_is_asked_for_must_hold() -> None:
    asked = Seals(trusts=(*trusting(1).trusts, *trusting(2).trusts))
    with pytest.raises(Untrusted):
        read_manifest(SIGNED, WHERE, asked)
    assert read_manifest(Seals((key(1), key(2))).seal(PLAIN), WHERE, asked).signature == "valid"


@pytest.mark.parametrize(
    "signatures",
    ["yes", [1], [{}], [{"by": "key", "algorithm": "ed25519", "public_key": "zz", "signature": "zz"}], [{"by": 1}]],
)
def test_signatures_of_another_shape_are_lies(signatures: Any) -> None:
    text = changed(lambda document: document["x_vmferry"].update(signatures=signatures))
    for trust in (UNCHECKED, trusting(1)):
        with pytest.raises(VmferryError) as refused:
            read_manifest(text, WHERE, trust)
        assert refused.value.kind == "invalid_config"


def test_more_signatures_than_anybody_needs_are_not_verified() -> None:
    def many(document: dict[str, Any]) -> None:
        document["x_vmferry"]["signatures"] *= 1000

    with pytest.raises(VmferryError, match="more signatures"):
        read_manifest(changed(many), WHERE, trusting(1))


@pytest.mark.parametrize("depth", [50, 200, 900, 993, 2000, 20000, 200000])
@pytest.mark.parametrize("of", ["[]", "{}"])
def test_what_nests_deeper_than_anything_that_is_written_is_a_lie(depth: int, of: str) -> None:
    first, last = ("[", "]") if of == "[]" else ('{"a":', "}")
    text = SIGNED.replace(b"{", b'{"z": ' + (first * depth + "1" + last * depth).encode() + b",", 1)
    for trust in (UNCHECKED, trusting(1)):
        with pytest.raises(VmferryError) as refused:
            read_manifest(text, WHERE, trust)
        assert refused.value.kind == "invalid_config"


def test_without_trusted_keys_all_manifests_are_read_as_ever() -> None:
    assert read_manifest(PLAIN, WHERE).signature == "none"
    assert read_manifest(SIGNED, WHERE).signature == "unchecked"


def test_a_list_tells_what_would_be_refused() -> None:
    lenient = Lenient(trusting(1))
    assert read_manifest(PLAIN, WHERE, lenient).signature == "none"
    assert read_manifest(SIGNED, WHERE, lenient).signature == "valid"
    assert read_manifest(signing(2).seal(PLAIN), WHERE, lenient).signature == "invalid"


def test_what_is_signed_must_be_signed_well_where_the_rest_need_not_be() -> None:
    trust = IfSigned(trusting(1), UNCHECKED)
    assert read_manifest(PLAIN, WHERE, trust).signature == "none"
    with pytest.raises(Untrusted):
        read_manifest(signing(2).seal(PLAIN), WHERE, trust)


def test_whoever_signs_anew_trusts_itself_or_those_who_are_named() -> None:
    only_key = Seals((key(1),))
    assert read_manifest(SIGNED, WHERE, only_key.strict()).signature == "valid"
    with pytest.raises(Untrusted):
        read_manifest(PLAIN, WHERE, only_key.strict())
    with pytest.raises(Untrusted):
        read_manifest(SIGNED, WHERE, Seals((key(1),), trusting(2).trusts).strict())


def test_to_sign_again_is_no_second_signature() -> None:
    assert signing(1).seal(SIGNED) == SIGNED
    assert [one.public_key for one in read_manifest(signing(2).seal(SIGNED), WHERE).signatures] == [key(2).public_key]


def test_an_increment_names_its_parent_and_what_that_holds_in_what_is_signed() -> None:
    parent, root = "20261120T063000Z-00000001", "ab" * 32
    made = manifest(
        mode="incremental", parent=parent, disks=(disk(0).__class__(**{**vars(disk(0)), "parent_root": root}),)
    )
    text = signed_text(json.loads(signing(1).seal(made.to_json(str)))).decode()
    assert f'"parent":"{parent}"' in text
    assert f'"parent_root":"{root}"' in text


@pytest.mark.parametrize("public", ["pem", "ssh", "hex"])
def test_a_key_of_openssl_or_ssh_signs_and_is_trusted(tmp_path: Path, public: str) -> None:
    private = tmp_path / "key"
    if public == "ssh":
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", private], check=True)
        told = (tmp_path / "key.pub").read_text()
    else:
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
        shown = subprocess.run(
            ["openssl", "pkey", "-in", private, "-pubout"], check=True, capture_output=True, text=True
        )
        told = shown.stdout
    signer = read_signing_key(private.read_bytes().strip(), "signing.key")
    told = signer.public_key.upper() if public == "hex" else told
    assert read_public_key(told, "trusted_keys") == signer.public_key


def test_a_key_is_in_no_message_and_no_repr() -> None:
    secret = Ed25519PrivateKey.generate()
    locked = secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a passphrase"))
    ssh = secret.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    other = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    told = []
    for text, why in [
        (locked, "locked by a passphrase"),
        (other, "not an Ed25519 key"),
        (b"hunter2", "not a private key"),
    ]:
        with pytest.raises(VmferryError, match=why) as refused:
            read_signing_key(text, "signing.key")
        told.append(f"{refused.value} {refused.value.hint}")
    told.append(repr(Seals((read_signing_key(ssh, "signing.key"),))))
    assert not [line for line in told if "hunter2" in line or "MC4" in line or "PRIVATE KEY-" in line]


def test_a_public_key_of_another_kind_is_refused() -> None:
    other = X25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for text, why in [
        (other.decode(), "not an Ed25519 key"),
        ("abc", "no public key"),
        (pem(1).decode(), "private key"),
    ]:
        with pytest.raises(VmferryError, match=why):
            read_public_key(text, "trusted_keys")


def test_openssl_alone_verifies_as_the_page_says(tmp_path: Path) -> None:
    (recipe,) = re.findall(r"```bash\n(.*?)```", (DOCS / "signing.md").read_text(), re.DOTALL)
    made = re.findall(r"^\$ (openssl .*)$", (DOCS / "signing.md").read_text(), re.MULTILINE)
    for command in made:
        subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    signer = Seals((read_signing_key((tmp_path / "signing.pem").read_bytes(), "signing.key"),))
    filled = with_checksums(
        with_locations(signer.seal(PLAIN), lambda file: f"/elsewhere/{file}"), {"disk-0": "ab" * 32}
    )
    assert filled is not None

    def verified(text: bytes) -> subprocess.CompletedProcess[str]:
        (tmp_path / "manifest.json").write_bytes(text)
        return subprocess.run(["bash", "-c", recipe], cwd=tmp_path, capture_output=True, text=True, check=False)

    good = verified(filled)
    assert (good.returncode, good.stdout.strip()) == (0, "Signature Verified Successfully"), good.stderr
    assert verified(filled.replace(b'"name": "vda"', b'"name": "vdz"')).returncode != 0
