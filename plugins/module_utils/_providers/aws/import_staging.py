# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where in S3 the images of an import lie until AWS has read them: one of each disk, and a note that says whose.

The note is there before anything else is, and goes last: of a run that was killed before its first task it is all that
tells. It says what tags say elsewhere.
"""

from __future__ import annotations

import json
from secrets import token_bytes
from threading import Lock
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

from ..._blocks import ImageOutput, ImageWriter
from ..._errors import VmferryError
from ..._images.vmdk.format import LARGEST_FILE
from ..._images.vmdk.stream_optimized import Deflate, StreamOptimizedVmdk, stream_optimized_bound
from ..._transfer.flow import Flow
from ..._transfer.limits import Limits
from ..._transfer.pipeline import export_disk
from ..._transfer.proved_digests import digests_of, output_for
from ..base import OpenStaging, ReadDisk, Staging
from .import_hardware import NewDisk
from .import_mark import ImportMark, mark_in
from .session import Session
from .staged_image import StagedPlace, split_staging

NOTE = "import.json"
_LONGEST_NOTE = 64 << 10  # bytes
_SWEEPS = 5


class S3Rules:
    """Plays PartRules: of AWS's own S3, which is all that VM Import/Export reads, so that nothing has to be tried.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html"""

    max_parts = 10_000
    min_part = 5 << 20
    max_part = 5 << 30
    max_object = 5 << 40
    joins_pieces = True


class ImportStaging:
    """`place`: of the attempt. `open_staging` is given its URL, and the provider's own credentials."""

    def __init__(self, session: Session, place: StagedPlace, flow: Flow, open_staging: OpenStaging) -> None:
        self.place = place
        self._session, self._flow, self._open_staging = session, flow, open_staging
        self._noting = Lock()
        self._over = False
        self._store: Optional[Staging] = None

    def note(self, tags: Mapping[str, str]) -> None:
        """From now on, unless it was cleared."""
        with self._noting:
            if self._over:
                return
            with self._session.doing(f"Writing to {self.place.url}"):
                self._session.client("s3").put_object(
                    Bucket=self.place.bucket, Key=f"{self.place.prefix}{NOTE}", Body=json.dumps(tags).encode()
                )

    def write(self, number: int, disk: ReadDisk, new: NewDisk, workers: Optional[int]) -> str:
        """The image of a disk, whole; its key below the place."""
        store, key = self._opened(), f"disk-{number}.vmdk"
        digests = digests_of(disk.source, disk.check)

        def image(output: ImageOutput, bound: int) -> ImageWriter:
            insist_on_image(new, bound)
            out = output_for(output, digests)
            return StreamOptimizedVmdk(new.size, out, Deflate(), data_bound=bound, identity=token_bytes(16))

        parts = store.open_parts(key)
        try:
            made = export_disk(
                disk.source,
                image,
                parts,
                digests,
                limits=Limits.of_transfer(False, workers).for_compression(),
                rules=S3Rules(),
                flow=self._flow,
                progress=disk.progress,
            )
            with disk.progress.rest():
                parts.complete(made.receipts, made.size)
        except BaseException:
            with self._flow.shielded():
                parts.abort()
            raise
        return key

    def end(self) -> None:
        """Nothing is noted any more."""
        with self._noting:
            self._over = True

    def close(self) -> None:
        if self._store is not None:
            self._store.close()

    def _opened(self) -> Staging:
        if self._store is None:
            settings = self._session.settings
            given: Dict[str, Any] = {**vars(settings.credentials), "region": self._session.region}
            for name in ("endpoint_url", "validate_certs", "ca_path"):
                given[name] = getattr(settings, name)
            self._store = self._open_staging(self.place.url.rstrip("/"), given)
        return self._store


def insist_on_image(disk: NewDisk, bound: int) -> None:
    """`bound`: bytes of data, at the most."""
    if stream_optimized_bound(disk.size, bound) > LARGEST_FILE:
        text = f"{disk.spec.id} may take an image of more than {LARGEST_FILE} bytes, and no VMDK has more."
        raise VmferryError("unsupported", text, "Leave method out, or set it to direct.")


def clear(session: Session, place: StagedPlace, vm: str) -> None:
    """Raises where anything stays, half an upload included. That the bucket is gone, and all with it, is no error."""
    try:
        for _unused in range(_SWEEPS):  # a part that was on its way may come behind the end of its upload
            if not _abort_uploads(session, place):
                break
        else:
            text = f"An upload to {place.url} goes on although it was aborted."
            raise VmferryError("conflict", text, "Look who writes there.", retryable=True)
    except VmferryError as error:
        if error.kind != "not_found":
            raise
    place.clear(session, vm, last=NOTE)


def _abort_uploads(session: Session, place: StagedPlace) -> int:
    """How many there were."""
    s3 = session.client("s3")
    with session.doing(f"Looking for uploads to {place.url}"):
        pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=place.bucket, Prefix=place.prefix)
        found = [(one["Key"], one["UploadId"]) for page in pages for one in page.get("Uploads") or ()]
    for key, upload in found:
        try:
            with session.doing(f"Aborting an upload to s3://{place.bucket}/{key}"):
                s3.abort_multipart_upload(Bucket=place.bucket, Key=key, UploadId=upload)
        except VmferryError as error:
            if error.kind != "not_found":
                raise
    return len(found)


def drop_note(session: Session, place: StagedPlace) -> None:
    """What else lies there is nobody's work any more."""
    with session.doing(f"Removing the note in {place.url}"):
        session.client("s3").delete_object(Bucket=place.bucket, Key=f"{place.prefix}{NOTE}")


def noted(session: Session, staging: str) -> Iterator[Tuple[StagedPlace, ImportMark]]:
    """All imports that have something there, whoever's."""
    bucket, prefix = split_staging(staging)
    doing = f"Looking for what imports left in {staging}"
    s3 = session.client("s3")
    with session.doing(doing):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}vmferry-", Delimiter="/")
        folders = [one["Prefix"] for page in pages for one in page.get("CommonPrefixes") or ()]
    for folder in folders:
        found = _read_note(session, doing, bucket, folder)
        if found is not None:
            yield found


def _read_note(session: Session, doing: str, bucket: str, folder: str) -> Optional[Tuple[StagedPlace, ImportMark]]:
    """None of what is no note of that very place: nothing is removed over it."""
    try:
        with session.doing(doing):
            body = session.client("s3").get_object(Bucket=bucket, Key=f"{folder}{NOTE}")["Body"]
            try:
                tags = json.loads(body.read(_LONGEST_NOTE))
            finally:
                body.close()
    except VmferryError as error:
        if error.kind != "not_found":
            raise
        return None  # an export's, or over by now
    except ValueError:
        return None
    if not isinstance(tags, dict) or not all(isinstance(one, str) for one in tags.values()):
        return None
    place, mark = StagedPlace.of_tags(tags), mark_in(tags)
    if mark is None or place != StagedPlace(bucket, folder):
        return None
    return place, mark
