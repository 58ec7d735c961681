"""Where the bytes of versions lie: content-addressed by sha256, in a store named by URL.

`file:artefacts` is relative to the process, `file:///srv/artefacts` absolute. Relative URLs are
published as they were configured, so all processes must share their working directory, or the
setting must be absolute. A further kind of store is one more row in `SCHEMES`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote, unquote, urlsplit

DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def nothing_of(model: str, version: int) -> bytes:
    """What is kept in place of a version's bytes that are elsewhere: nobody can load it."""
    return json.dumps({"model": model, "version": version}, separators=(",", ":")).encode()


class ArtefactError(ValueError):
    """An artefact is absent, too big, or not what its digest names; or its URL is wrong."""


class Store(Protocol):
    """Keeps bytes for ever under their sha256 (64 hex digits)."""

    def put(self, data: bytes) -> str:
        """Keep `data`; when this returns they are on disk, whole. Returns the digest.

        Raises OSError when the disk is full or may not be written.
        """

    def get(self, digest: str) -> bytes:
        """The bytes of `digest`, checked. Raises ArtefactError."""

    def url(self, digest: str) -> str:
        """Where `fetch` finds them."""


class FileStore:
    """A directory: `<root>/<first two digits>/<digest>`."""

    def __init__(self, url: str) -> None:
        self._root = _path(url)
        self._url = url.rstrip("/")

    def put(self, data: bytes) -> str:
        digest = digest_of(data)
        with contextlib.suppress(ArtefactError):
            self.get(digest)
            return digest
        # Absent, or damaged on disk: write it (again).
        folder = self._file(digest).parent
        folder.mkdir(parents=True, exist_ok=True)
        _write_whole(self._file(digest), data)
        _sync_directory(folder)
        _sync_directory(self._root)
        return digest

    def get(self, digest: str) -> bytes:
        # A local store holds what this program wrote, so its size needs no limit here.
        return _checked(_read(self._file(digest), None), digest, self.url(digest))

    def url(self, digest: str) -> str:
        return f"{self._url}/{check_digest(digest)[:2]}/{digest}"

    def _file(self, digest: str) -> Path:
        return self._root / check_digest(digest)[:2] / digest


@dataclass(frozen=True, slots=True)
class Scheme:
    """How URLs of one scheme are opened as a store, and read one at a time.

    Attributes:
        read: (URL, most bytes to read) -> bytes; raises ArtefactError if absent or bigger.
    """

    open: Callable[[str], Store]
    read: Callable[[str, int], bytes]


SCHEMES: Final[dict[str, Scheme]] = {
    "file": Scheme(open=FileStore, read=lambda url, max_bytes: _read(_path(url), max_bytes)),
}


def open_store(url: str) -> Store:
    """Raises:
    ArtefactError: no such kind of store, or the URL does not fit it.
    """
    return _scheme(url).open(url)


def fetch(url: str, digest: str, max_bytes: int) -> bytes:
    """The exact bytes at `url`, whose sha256 is `digest`: hand these on, never open the URL again.

    Raises:
        ArtefactError: absent, more than `max_bytes`, or other bytes than the digest names.
    """
    check_digest(digest)
    return _checked(_scheme(url).read(url, max_bytes), digest, url)


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def check_digest(digest: str) -> str:
    """Digests become file names, so nothing else may pass for one."""
    if not DIGEST.fullmatch(digest):
        raise ArtefactError(f"not a sha256 digest: {digest[:100]!r}")
    return digest


def _checked(data: bytes, digest: str, url: str) -> bytes:
    found = digest_of(data)
    if found != digest:
        raise ArtefactError(f"{url}: sha256 is {found}, expected {digest}")
    return data


def _scheme(url: str) -> Scheme:
    name = url.partition(":")[0] if ":" in url else ""
    if name not in SCHEMES:
        known = ", ".join(f"{scheme}:" for scheme in SCHEMES)
        raise ArtefactError(f"artefact URL {url!r}: must begin with one of {known}")
    return SCHEMES[name]


def _path(url: str) -> Path:
    """
    >>> str(_path("file:artefacts/v%201")), str(_path("file:///srv/a"))
    ('artefacts/v 1', '/srv/a')
    """
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path or parts.query or parts.fragment:
        raise ArtefactError(f"artefact URL {url!r}: write file:folder or file:///folder")
    path = unquote(parts.path)
    if "\0" in path or ".." in path.split("/"):
        raise ArtefactError(f"artefact URL {url!r}: holds a null character, or `..`")
    return Path(path)


def file_url(path: Path) -> str:
    """The URL of a directory or file, whatever characters its name holds."""
    return f"file:{quote(str(path))}"


def _read(path: Path, max_bytes: int | None) -> bytes:
    """Read a regular file; links, pipes and devices are refused, and never block.

    The folder of a digest may be no link either; the store's own may lie behind one.
    """
    safe = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        folder = os.open(path.parent, safe | os.O_DIRECTORY)
        try:
            handle = os.open(path.name, safe | os.O_NONBLOCK, dir_fd=folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ArtefactError(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ArtefactError(f"{path}: not a regular file")
    with open(handle, "rb") as file:
        data = file.read() if max_bytes is None else file.read(max_bytes + 1)
    if max_bytes is not None and len(data) > max_bytes:
        raise ArtefactError(f"{path}: more than {max_bytes} bytes")
    return data


def _write_whole(path: Path, data: bytes) -> None:
    """Readers see the old file or the whole new one, also after a power cut."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(handle, 0o644)  # mkstemp's 0600 would shut out workers of another user
            os.fsync(handle)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
