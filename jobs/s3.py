"""A bucket as Django's storage: django-storages for its options, one boto3 client a process, objects read as they come.

Whatever boto3 raises becomes an OSError: `blobs.Passing` where asking again may help, FileNotFoundError where nothing
has that name. Its words go to users: they hold no key, address or bucket.
"""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError, IncompleteReadError
from django.core.files.base import File
from storages.backends.s3 import S3Storage
from storages.utils import clean_name
from urllib3.exceptions import HTTPError  # while a body is read boto3 lets some of them through: a broken TLS line

from .blobs import Blob, Passing

CONNECT, READ = 5, 20  # seconds to wait for a connection, and for the next bytes
THROTTLED = {"SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "Throttling", "ThrottlingException"}
PAGE = 1000  # objects of a listing that S3 tells at once, at most
PLAIN = "application/octet-stream"  # of every object: an open bucket shows nobody's file as a page


@contextmanager
def in_our_words() -> Iterator[None]:
    """Raise what boto3 raises as the OSError that it means."""
    try:
        yield
    except ClientError as error:
        raise _meant(error) from error
    except (ConnectionError, HTTPClientError, IncompleteReadError, HTTPError) as error:
        raise Passing(errno.EIO, f"S3 does not answer ({type(error).__name__})") from error
    except BotoCoreError as error:
        raise OSError(errno.EPROTO, f"S3 cannot be asked ({type(error).__name__})") from error


def _meant(error: ClientError) -> OSError:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = error.response.get("Error", {}).get("Code", "")
    if status >= 500 or status == 429 or code in THROTTLED:
        return Passing(errno.EIO, f"S3 answered {status} {code}")
    if status == 404 and code != "NoSuchBucket":
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return OSError(errno.EACCES if status == 403 else errno.EPROTO, f"S3 answered {status} {code}")


class Object(File):
    """A stored object, read as it comes over the line; `seek` asks for the rest from there (RFC 9110 Range)."""

    def __init__(self, client: Any, where: dict[str, str], name: str):
        super().__init__(None, name)
        self.mode = "rb"
        self._client, self._where = client, where
        self._body = None
        self._ask(0)

    def _ask(self, start: int) -> None:
        with in_our_words():
            answer = self._client.get_object(**self._where, **({"Range": f"bytes={start}-"} if start else {}))
        self._body, self._at = answer["Body"], start
        self._size = start + answer["ContentLength"]

    @property
    def size(self) -> int:
        return self._size

    @property
    def closed(self) -> bool:
        return self._body is None

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        wanted = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if wanted != self._at:
            self.close()
            self._ask(wanted)
        return wanted

    def read(self, most: int | None = None) -> bytes:
        with in_our_words():
            piece = self._body.read(None if most is None or most < 0 else most)
        self._at += len(piece)
        return piece

    def close(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None


class S3(S3Storage):
    """The bucket. Names are keys below its prefix; saving under a name that is taken replaces the object whole."""

    def __init__(self, *, public_endpoint: str | None = None, **options: Any):
        endpoint = options.get("endpoint_url")
        checks = "when_required" if endpoint else "when_supported"  # other servers do not know AWS's newer checksums
        options["client_config"] = Config(
            signature_version="s3v4",
            s3={"addressing_style": "path" if endpoint else "auto"},
            connect_timeout=CONNECT,
            read_timeout=READ,
            retries={"mode": "standard", "total_max_attempts": 2},  # one part of many; the whole call: blobs.call
            request_checksum_calculation=checks,
            response_checksum_validation=checks,
            max_pool_connections=20,
        )
        options["transfer_config"] = TransferConfig(max_concurrency=4)
        super().__init__(file_overwrite=True, **options)
        self._public = public_endpoint or endpoint
        self._lock = threading.Lock()
        self._clients: dict[tuple[int, str | None], Any] = {}

    def _client(self, endpoint: str | None) -> Any:
        """A client of this process: building one takes 0.1 s, and threads may share it, resources they may not."""
        with self._lock:
            known = (os.getpid(), endpoint)
            if known not in self._clients:
                self._clients[known] = self._create_session().client(
                    "s3", region_name=self.region_name, endpoint_url=endpoint, config=self.client_config
                )
            return self._clients[known]

    @property
    def client(self) -> Any:
        return self._client(self.endpoint_url)

    def _where(self, name: str) -> dict[str, str]:
        return {"Bucket": self.bucket_name, "Key": self._normalize_name(clean_name(name))}

    def _own(self, key: str) -> str:
        return key[len(self.location) :].lstrip("/") if self.location else key

    # --- what Django asks of a storage --------------------------------------------------------------------------------

    def _open(self, name: str, mode: str = "rb") -> Object:
        if mode != "rb":
            raise ValueError("An object is written whole, by save.")
        return Object(self.client, self._where(name), name)

    def _save(self, name: str, content: File) -> str:
        where = self._where(name)
        content.seek(0)
        with in_our_words():
            self.client.upload_fileobj(
                content, where["Bucket"], where["Key"], ExtraArgs={"ContentType": PLAIN}, Config=self.transfer_config
            )
        return clean_name(name)

    def delete(self, name: str) -> None:
        with in_our_words():
            self.client.delete_object(**self._where(name))

    def _head(self, name: str) -> dict[str, Any]:
        with in_our_words():
            return self.client.head_object(**self._where(name))

    def exists(self, name: str) -> bool:
        try:
            self._head(name)
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        return self._head(name)["ContentLength"]

    def get_modified_time(self, name: str) -> datetime:
        return self._head(name)["LastModified"]

    def listdir(self, name: str) -> tuple[list[str], list[str]]:
        below = [blob.key[len(name) :].lstrip("/") for blob in self.blobs(name)]
        return sorted({key.partition("/")[0] for key in below if "/" in key}), [key for key in below if "/" not in key]

    # --- what only a bucket can ---------------------------------------------------------------------------------------

    def blobs(self, folder: str) -> Iterator[Blob]:
        """Everything below `folder`, page by page."""
        pages = self.client.get_paginator("list_objects_v2")
        prefix = self._normalize_name(clean_name(folder)).rstrip("/") + "/"
        with in_our_words():
            for page in pages.paginate(Bucket=self.bucket_name, Prefix=prefix, PaginationConfig={"PageSize": PAGE}):
                for entry in page.get("Contents", ()):
                    yield Blob(self._own(entry["Key"]), entry["Size"], entry["LastModified"])

    def download_url(self, name: str, *, seconds: int, disposition: str, content_type: str) -> str:
        """An address that gives the object to whoever has it, for so long, as a file to keep."""
        says = {"ResponseContentDisposition": disposition, "ResponseContentType": content_type}
        return self._client(self._public).generate_presigned_url(
            "get_object", Params={**self._where(name), **says}, ExpiresIn=seconds
        )

    def begin_parts(self, name: str) -> str:
        """Begin an object that is sent in parts; its upload id."""
        with in_our_words():
            return self.client.create_multipart_upload(**self._where(name), ContentType=PLAIN)["UploadId"]

    def part_urls(self, name: str, upload_id: str, sizes: list[int], *, seconds: int) -> list[str]:
        """Where each part is to be PUT; each address takes exactly as many bytes as it was signed for."""
        about = {**self._where(name), "UploadId": upload_id}
        return [
            self._client(self._public).generate_presigned_url(
                "upload_part", Params={**about, "PartNumber": number, "ContentLength": size}, ExpiresIn=seconds
            )
            for number, size in enumerate(sizes, 1)
        ]

    def complete_parts(self, name: str, upload_id: str, etags: list[str]) -> None:
        """Put the parts together. FileNotFoundError if that upload is over; OSError if a part is not there."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        with in_our_words():
            self.client.complete_multipart_upload(
                **self._where(name), UploadId=upload_id, MultipartUpload={"Parts": parts}
            )

    def abort_parts(self, name: str, upload_id: str) -> None:
        """Throw the parts away that came so far."""
        try:
            with in_our_words():
                self.client.abort_multipart_upload(**self._where(name), UploadId=upload_id)
        except FileNotFoundError:
            return  # it is over already

    def unfinished(self) -> list[tuple[str, str, datetime]]:
        """(name, upload id, when it began) of what was begun in parts below the prefix and is not whole."""
        pages = self.client.get_paginator("list_multipart_uploads")
        with in_our_words():
            return [
                (self._own(entry["Key"]), entry["UploadId"], entry["Initiated"])
                for page in pages.paginate(Bucket=self.bucket_name, Prefix=f"{self.location}/".lstrip("/"))
                for entry in page.get("Uploads", ())
            ]
