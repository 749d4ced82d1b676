# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stores of the comparison, each a real server of its own, and what people use to reach it.

Every peer sends as many streams as the modules do, and otherwise has its defaults: size of parts, checksums. Few of
them know the SHA-256 of what they moved, wait for the medium, or read back what a server does not vouch for, as the
modules do: beside each that does not stands what it takes to have that by hand.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.export import s3_bucket, s3_environment, s3_settings, s5cmd_program
from benchmarks.measure import Command
from rigs.azurite import azurite
from rigs.gcs import fake_gcs_server
from rigs.mounting import mounted_tmpfs
from rigs.nfs import nfs_mount, nfs_server
from rigs.webdav import nginx_dav

STREAMS = 4
BUCKET = "bench"
_PEERS = Path(__file__).parent


@dataclass(frozen=True)
class Place:
    url: str
    settings: Mapping[str, Any]
    clear: Callable[[], object]  # removes every object
    uploads: Callable[[Path], Mapping[str, Command]]  # by the peer's name; each to an object of its own
    downloads: Callable[[Path], Mapping[str, Command]]  # of what that peer has sent
    environment: dict[str, str] = field(default_factory=dict)


@contextmanager
def path(home: Path) -> Iterator[Place]:
    (home / "store").mkdir()
    yield _folder(home / "store", f"file://{home}/store")


@contextmanager
def nfs(home: Path) -> Iterator[Place]:
    """The server's folder is in memory: it flushes every write that it answers."""
    exported, point = home / "exported", home / "mount"
    exported.mkdir()
    point.mkdir()
    with mounted_tmpfs(exported, "size=4g"), nfs_server(exported) as server, nfs_mount(server, point):
        (point / "store").mkdir()
        yield _folder(point / "store", f"nfs://{point}/store")


def _folder(store: Path, url: str) -> Place:
    theirs = store / "theirs"

    def copies(source: Path, target: Path) -> Mapping[str, Command]:
        """`cp`, which promises nothing; and what it takes to have the promises of the modules."""
        proved = 'cp "$0" "$1" && sync "$1" && openssl dgst -sha256 "$0" "$1"'
        return {
            "cp": ["cp", str(source), str(target)],
            "cp, sync, openssl dgst": ["sh", "-c", proved, str(source), str(target)],
        }

    return Place(
        url,
        {},
        lambda: _clear(store),
        lambda source: copies(source, theirs),
        lambda target: copies(theirs, target),
    )


def _with_proof(name: str, command: Command, target: Path) -> Mapping[str, Command]:
    """A download that is on its medium, and whose checksum is known, as the module's is."""
    proved = 'file=$1; shift; "$@" && sync "$file" && openssl dgst -sha256 "$file"'
    return {name: command, f"{name}, sync, openssl dgst": ["sh", "-c", proved, "sh", str(target), *command]}


def _clear(folder: Path) -> None:
    for file in folder.iterdir():
        shutil.rmtree(file) if file.is_dir() else file.unlink()


@contextmanager
def s3(home: Path) -> Iterator[Place]:
    with s3_bucket() as server:
        client = server.client()

        def clear() -> None:
            for found in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
                client.delete_object(Bucket=BUCKET, Key=found["Key"])

        s5cmd = [str(s5cmd_program()), "--endpoint-url", server.endpoint_url, "cp", f"--concurrency={STREAMS}"]
        remote = f":s3,provider=Other,env_auth=true,no_check_bucket=true,endpoint='{server.endpoint_url}':{BUCKET}"
        yield Place(
            f"s3://{BUCKET}",
            s3_settings(server),
            clear,
            lambda source: {
                "s5cmd cp": [*s5cmd, str(source), f"s3://{BUCKET}/s5cmd"],
                "rclone copyto": [*_rclone(), "copyto", str(source), f"{remote}/rclone"],
                **_aws(home, [str(source), f"s3://{BUCKET}/aws"]),
            },
            lambda target: {
                **_with_proof("s5cmd cp", [*s5cmd, f"s3://{BUCKET}/s5cmd", str(target)], target),
                "rclone copyto": [*_rclone(), "copyto", f"{remote}/rclone", str(target)],
                **_aws(home, [f"s3://{BUCKET}/aws", str(target)]),
            },
            {**s3_environment(server), "AWS_CONFIG_FILE": str(_aws_configuration(home))},
        )


def _rclone() -> list[str]:
    return ["rclone", "--config=/dev/null", f"--multi-thread-streams={STREAMS}", f"--s3-upload-concurrency={STREAMS}"]


def _aws(home: Path, arguments: list[str]) -> Mapping[str, Command]:
    """Where it is installed. It asks for older packages than this project's other tools, so that is done apart."""
    program = shutil.which("aws")
    return {} if program is None else {"aws s3 cp": [program, "s3", "cp", "--only-show-errors", *arguments]}


def _aws_configuration(home: Path) -> Path:
    file = home / "aws.conf"
    file.write_text(f"[default]\ns3 =\n  max_concurrent_requests = {STREAMS}\n  addressing_style = path\n")
    return file


@contextmanager
def azure(home: Path) -> Iterator[Place]:
    with azurite() as server, server.client() as account:
        container = account.create_container(BUCKET)

        def clear() -> None:
            for name in list(container.list_blob_names()):
                container.delete_blob(name)

        connection = (
            f"DefaultEndpointsProtocol=http;AccountName={server.account};AccountKey={server.key};"
            f"BlobEndpoint={server.endpoint_url}"
        )
        peer = [sys.executable, str(_PEERS / "azure_peer.py")]
        yield Place(
            f"azblob://{BUCKET}",
            server.settings,
            clear,
            lambda source: {"upload_blob": [*peer, "upload", connection, BUCKET, "sdk", str(source)]},
            lambda target: _with_proof(
                "download_blob", [*peer, "download", connection, BUCKET, "sdk", str(target)], target
            ),
        )


@contextmanager
def gcs(home: Path) -> Iterator[Place]:
    with fake_gcs_server() as server:
        server.make_bucket(BUCKET)

        def clear() -> None:
            for found in server.objects(BUCKET, ""):
                server.remove(BUCKET, found["name"])

        peer = [sys.executable, str(_PEERS / "gcs_peer.py")]
        rest = [server.endpoint_url, BUCKET, "sdk"]
        yield Place(
            f"gs://{BUCKET}",
            server.settings,
            clear,
            lambda source: {"upload_from_filename": [*peer, "upload", *rest, str(source)]},
            lambda target: _with_proof("download_chunks_concurrently", [*peer, "download", *rest, str(target)], target),
        )


@contextmanager
def http(home: Path) -> Iterator[Place]:
    """Over TLS, as both do it; curl has the bearer token from a file."""
    with nginx_dav() as server:
        token = home / "token"
        token.touch(mode=0o600)
        token.write_text(f"Authorization: Bearer {server.settings['token']}\n")
        curl = ["curl", "-fsS", "--cacert", server.settings["ca_path"], "--header", f"@{token}"]
        theirs = f"{server.url}/store/theirs"
        read_back = 'to=$1; shift; "$@" -T "$0" "$to" && "$@" "$to" | openssl dgst -sha256 && openssl dgst -sha256 "$0"'
        store = server.data / "store"
        store.mkdir()
        yield Place(
            f"{server.url}/store",
            server.settings,
            lambda: _clear(store),
            lambda source: {
                "curl -T": [*curl, "-T", str(source), theirs],
                "curl -T, openssl dgst of both": ["sh", "-c", read_back, str(source), theirs, *curl],
            },
            lambda target: _with_proof("curl -o", [*curl, "-o", str(target), theirs], target),
        )


PLACES: Mapping[str, Callable[[Path], AbstractContextManager[Place]]] = {
    "path": path,
    "NFS": nfs,
    "S3": s3,
    "Azure": azure,
    "GCS": gcs,
    "HTTP": http,
}
