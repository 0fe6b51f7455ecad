"""An S3 server that refuses what R2 refuses, and says so.

Refused: a signature that is not right to the last header; a body that is not the one signed (so UNSIGNED-PAYLOAD and
trailers, too); checksum headers other than SHA-256; parts of unequal size, and parts below 5 MiB; an existing key under
If-None-Match; tags. Everything else is kept in memory.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

SMALLEST_PART = 5 * 1024 * 1024
REFUSED_HEADERS = re.compile(r"x-amz-(checksum-(?!sha256)|sdk-checksum|trailer|decoded-content|tagging)")
STARTED = "%Y-%m-%dT%H:%M:%S.000Z"


class RefusedError(Exception):
    """What R2 would say."""

    def __init__(self, status: HTTPStatus, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


@dataclass(slots=True)
class Stored:
    """An object."""

    body: bytes
    etag: str
    modified: datetime


@dataclass(slots=True)
class Pending:
    """A multipart upload."""

    key: str
    initiated: datetime
    parts: dict[int, bytes] = field(default_factory=dict)


class StrictS3(ThreadingHTTPServer):
    """One bucket in memory.

    Attributes:
        objects: What is there.
        uploads: What is on its way.
        refusals: Codes of what was refused, in order.
    """

    daemon_threads = True
    bucket = "bitloot"

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self.uploads: dict[str, Pending] = {}
        self.refusals: list[str] = []
        self.lock = threading.RLock()
        self.access_key_id = secrets.token_hex(10)
        self.secret_access_key = secrets.token_hex(20)
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def endpoint(self) -> str:
        """The URL."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def strict_s3() -> Iterator[StrictS3]:
    """Run one."""
    server = StrictS3()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: StrictS3

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        try:
            self._admit(parts.path, parts.query, body)
            with self.server.lock:
                self._route(bucket, key, query, body)
        except RefusedError as refused:
            self.server.refusals.append(refused.code)
            self._answer(refused.status, f"<Error><Code>{refused.code}</Code></Error>".encode())

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 - the library's names

    def _admit(self, path: str, query: str, body: bytes) -> None:
        """Headers R2 knows, a signature that is right, the body that was signed."""
        for name in self.headers:
            if REFUSED_HEADERS.match(name.lower()):
                raise RefusedError(HTTPStatus.NOT_IMPLEMENTED, "NotImplemented")
        match = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, "
            r"SignedHeaders=([^,]+), Signature=(\w+)",
            self.headers.get("Authorization", ""),
        )
        if match is None or match[1] != self.server.access_key_id:
            raise RefusedError(HTTPStatus.FORBIDDEN, "InvalidAccessKeyId")
        _, day, region, names, signature = match.groups()
        payload = self.headers.get("x-amz-content-sha256", "")
        signed = "".join(f"{name}:{' '.join(self.headers.get(name, '').split())}\n" for name in names.split(";"))
        pairs = sorted(parse_qsl(query, keep_blank_values=True))
        canonical_query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)
        request = f"{self.command}\n{path}\n{canonical_query}\n{signed}\n{names}\n{payload}"
        scope = f"{day}/{region}/s3/aws4_request"
        digest = hashlib.sha256(request.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{self.headers.get('x-amz-date')}\n{scope}\n{digest}"
        key = f"AWS4{self.server.secret_access_key}".encode()
        for word in (day, region, "s3", "aws4_request", text):
            key = hmac.digest(key, word.encode(), "sha256")
        if key.hex() != signature:
            raise RefusedError(HTTPStatus.FORBIDDEN, "SignatureDoesNotMatch")
        if payload != hashlib.sha256(body).hexdigest():
            raise RefusedError(HTTPStatus.BAD_REQUEST, "XAmzContentSHA256Mismatch")

    def _route(self, bucket: str, key: str, query: dict[str, str], body: bytes) -> None:  # noqa: C901, PLR0912 - a table
        if bucket != self.server.bucket:
            raise RefusedError(HTTPStatus.NOT_FOUND, "NoSuchBucket")
        if "tagging" in query:
            raise RefusedError(HTTPStatus.NOT_IMPLEMENTED, "NotImplemented")
        name = f"{self.command} {'uploadId' if 'uploadId' in query else next(iter(query), '')}".strip()
        match name if key else f"BUCKET {name}":
            case "BUCKET GET list-type":
                self._list(query)
            case "BUCKET GET uploads":
                self._list_uploads(query)
            case "BUCKET POST delete":
                self._delete_many(body)
            case "GET" | "HEAD" | "GET x-id":
                self._read(key)
            case "PUT" | "PUT x-id":
                self._write(key, body)
            case "DELETE" | "DELETE x-id":
                self.server.objects.pop(key, None)
                self._answer(HTTPStatus.NO_CONTENT)
            case "POST uploads":
                identity = secrets.token_hex(8)
                self.server.uploads[identity] = Pending(key, datetime.now(UTC))
                self._xml("InitiateMultipartUploadResult", f"<UploadId>{identity}</UploadId>")
            case "PUT uploadId":
                self._upload(query).parts[int(query["partNumber"])] = body
                self._answer(HTTPStatus.OK, headers={"ETag": f'"{_md5(body)}"'})
            case "POST uploadId":
                self._complete(query, body)
            case "DELETE uploadId":
                self._upload(query)
                del self.server.uploads[query["uploadId"]]
                self._answer(HTTPStatus.NO_CONTENT)
            case _:
                raise RefusedError(HTTPStatus.NOT_IMPLEMENTED, "NotImplemented")

    def _upload(self, query: dict[str, str]) -> Pending:
        found = self.server.uploads.get(query["uploadId"])
        if found is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "NoSuchUpload")
        return found

    def _complete(self, query: dict[str, str], body: bytes) -> None:
        upload = self._upload(query)
        wanted = [
            (int(_text(part, "PartNumber")), _text(part, "ETag").strip('"')) for part in _parsed(body) if len(part)
        ]
        parts = [upload.parts.get(number) for number, _ in wanted]
        if [_md5(part) if part is not None else "" for part in parts] != [etag for _, etag in wanted]:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "InvalidPart")
        whole = [part for part in parts if part is not None]
        if len({len(part) for part in whole[:-1]}) > 1 or any(len(whole[-1]) > len(part) for part in whole[:-1]):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "InvalidPart")  # all but the last of one size
        if any(len(part) < SMALLEST_PART for part in whole[:-1]):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "EntityTooSmall")
        etag = f"{_md5(b''.join(bytes.fromhex(_md5(part)) for part in whole))}-{len(whole)}"
        self.server.objects[upload.key] = Stored(b"".join(whole), etag, datetime.now(UTC))
        del self.server.uploads[query["uploadId"]]
        self._xml("CompleteMultipartUploadResult", f"<Key>{escape(upload.key)}</Key><ETag>{etag}</ETag>")

    def _write(self, key: str, body: bytes) -> None:
        if self.headers.get("If-None-Match") == "*" and key in self.server.objects:
            raise RefusedError(HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed")
        source = self.headers.get("x-amz-copy-source")
        if source is not None:
            found = self.server.objects.get(unquote(source).lstrip("/").partition("/")[2])
            if found is None:
                raise RefusedError(HTTPStatus.NOT_FOUND, "NoSuchKey")
            body = found.body
        self.server.objects[key] = Stored(body, _md5(body), datetime.now(UTC))
        if source is None:
            self._answer(HTTPStatus.OK, headers={"ETag": f'"{_md5(body)}"'})
        else:
            self._xml("CopyObjectResult", f"<ETag>{_md5(body)}</ETag>")

    def _read(self, key: str) -> None:
        found = self.server.objects.get(key)
        if found is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "NoSuchKey")
        if self.headers.get("If-Match", f'"{found.etag}"').strip('"') != found.etag:
            raise RefusedError(HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed")
        headers = {"ETag": f'"{found.etag}"', "Last-Modified": format_datetime(found.modified, usegmt=True)}
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        if match:
            headers["Content-Range"] = f"bytes {start}-{len(found.body) - 1}/{len(found.body)}"
        self._answer(HTTPStatus.PARTIAL_CONTENT if match else HTTPStatus.OK, found.body[start:], headers)

    def _list(self, query: dict[str, str]) -> None:
        after, most = query.get("continuation-token", ""), int(query.get("max-keys", 1000))
        keys = sorted(key for key in self.server.objects if key.startswith(query.get("prefix", "")) and key > after)
        page, more = keys[:most], len(keys) > most
        contents = "".join(
            f"<Contents><Key>{escape(quote(key))}</Key><Size>{len(self.server.objects[key].body)}</Size>"
            f"<ETag>{self.server.objects[key].etag}</ETag>"
            f"<LastModified>{self.server.objects[key].modified:{STARTED}}</LastModified></Contents>"
            for key in page
        )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        self._xml(
            "ListBucketResult",
            f"<EncodingType>url</EncodingType><KeyCount>{len(page)}</KeyCount>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{contents}",
        )

    def _list_uploads(self, query: dict[str, str]) -> None:
        self._xml(
            "ListMultipartUploadsResult",
            "<IsTruncated>false</IsTruncated>"
            + "".join(
                f"<Upload><Key>{escape(one.key)}</Key><UploadId>{identity}</UploadId>"
                f"<Initiated>{one.initiated:{STARTED}}</Initiated></Upload>"
                for identity, one in self.server.uploads.items()
                if one.key.startswith(query.get("prefix", ""))
            ),
        )

    def _delete_many(self, body: bytes) -> None:
        if self.headers.get("Content-MD5") != base64.b64encode(bytes.fromhex(_md5(body))).decode():
            raise RefusedError(HTTPStatus.BAD_REQUEST, "InvalidDigest")
        for one in _parsed(body):
            if one.tag.endswith("Object"):
                self.server.objects.pop(_text(one, "Key"), None)
        self._xml("DeleteResult", "")

    def _xml(self, name: str, inside: str) -> None:
        space = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
        self._answer(HTTPStatus.OK, f'<?xml version="1.0"?><{name} {space}>{inside}</{name}>'.encode())

    def _answer(self, status: HTTPStatus, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _text(element: ET.Element, name: str) -> str:
    return next(child.text or "" for child in element if child.tag.endswith(name))


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def _parsed(body: bytes) -> ET.Element:
    return ET.fromstring(body)  # noqa: S314 - our own client wrote it
