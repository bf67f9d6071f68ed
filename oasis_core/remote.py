"""Sources behind URLs (s3, gs, http, ...): what a source needs of a path, through fsspec.

Needs fsspec (the extra `url`) and the protocol's own package, s3fs for s3 and so on. A URL is read
only: results are written to a folder.
"""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

from .extras import MissingExtraError, install_hint, need

logger = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 20
"""Asked for at once; the next block is fetched while one is read."""
END_BYTES = 1 << 20
ATTEMPTS = 4
"""Of a read that fails: networks hiccup, and a film takes hours."""
FIRST_PAUSE_S = 0.5
# Two letters at least: `C:\` is a drive.
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# In a message: scheme, user and password, address, query.
_URL_PARTS = re.compile(
    r"([a-z][a-z0-9+.-]+://)(?:[^\s/@'\"]*@)?([^\s?#'\"]*)(?:[?#][^\s'\"]*)?", re.IGNORECASE
)
_EXTRAS = {"http": "url", "https": "url", "s3": "s3"}
_VERSION_KEYS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")


class RemoteError(OSError):
    """A URL cannot be read; one sentence that says why."""


def is_url(name: object) -> bool:
    """Whether a name is a URL and no path."""
    return isinstance(name, RemoteFile) or _URL.match(str(name)) is not None


def as_source(name: Any) -> Any:
    """What a user named as a source: a path, or a file behind a URL.

    Args:
        name: Text, a path, or what is a source itself, such as what this function returned.
    """
    if not isinstance(name, (str, os.PathLike)):
        return name
    if isinstance(name, str) and is_url(name):
        scheme, _, rest = name.partition("://")
        if scheme.lower() == "local":
            return Path(rest)
        return _local(rest) if scheme.lower() == "file" else RemoteFile(name)
    return Path(name)


def _local(rest: str) -> Path:
    """The path of a file URL: `%20` is a space, and `/C:/films` a drive on Windows."""
    from urllib.request import url2pathname  # slow to import

    return Path(url2pathname(rest.removeprefix("localhost")))


def no_result(name: object) -> str:
    """The sentence for a result that was named by a URL."""
    return (
        f"results are written to a folder, got {str(RemoteFile(str(name)))!r}; write to a disk or "
        "a mounted bucket and copy the finished file"
    )


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file behind a URL, with the part of `pathlib.Path` that sources need.

    As text it is the URL without what may be secret: a signature in the query, a password.
    """

    url: str

    def __str__(self) -> str:
        address = urlsplit(self.url)
        host = address.netloc.rpartition("@")[2]
        return f"{address.scheme}://{host}{address.path}"

    def __repr__(self) -> str:
        return f"RemoteFile({str(self)!r})"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return unquote(PurePosixPath(urlsplit(self.url).path).name) or urlsplit(self.url).netloc

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return PurePosixPath(self.name).stem

    def absolute(self) -> RemoteFile:
        """Itself: a URL means the same everywhere."""
        return self

    def is_dir(self) -> bool:
        """Never: folders of pictures must be on a disk."""
        return False

    def exists(self) -> bool:
        """Whether it can be found.

        Raises:
            RemoteError: It cannot be asked for.
        """
        try:
            self._info()
        except FileNotFoundError:
            return False
        return True

    is_file = exists

    def stat(self) -> Any:
        """An object with `st_size`.

        Raises:
            FileNotFoundError: It does not exist.
            RemoteError: It cannot be asked for.
        """
        size = self._info().get("size")
        if size is None:
            raise self._error("its server does not tell its size; download it first")
        return SimpleNamespace(st_size=int(size))

    def open(self, mode: str = "rb") -> RemoteReader:
        """Open it for reading bytes.

        Raises:
            FileNotFoundError: It does not exist.
            RemoteError: It cannot be read, or not from any place in it.
        """
        if mode != "rb":
            raise ValueError(f"a URL is opened with mode 'rb', got {mode!r}")
        return RemoteReader(self)

    def fingerprint(self) -> dict[str, Any]:
        """What identifies it without reading all of it: size, version, and a hash of both ends.

        Raises:
            OSError: It cannot be read.
        """
        info, digest = self._info(), hashlib.sha256()
        with self.open() as file:
            digest.update(file.read(END_BYTES))
            file.seek(max(0, file.size - END_BYTES))
            digest.update(file.read(END_BYTES))
            size = file.size
        version = next((str(info[key]) for key in _VERSION_KEYS if info.get(key)), "")
        return {"size": size, "version": version, "sha256_of_ends": digest.hexdigest()}

    def matches(self) -> list[RemoteFile]:
        """The files that a URL with `*` stands for, sorted.

        Raises:
            RemoteError: They cannot be listed.
        """
        with self._as_one_sentence():
            system, path = self._system()
            found = sorted(system.glob(path))
            return [RemoteFile(system.unstrip_protocol(name)) for name in found]

    def _system(self) -> tuple[Any, str]:
        try:
            fsspec = need("fsspec", extra="url", purpose="reading from a URL")
            return fsspec.core.url_to_fs(self.url)
        except MissingExtraError as error:
            raise self._error(str(error)) from error
        except ImportError as error:  # the protocol's own package
            extra = _EXTRAS.get(self.url.partition("://")[0])
            remedy = install_hint(extra) if extra else "install it"
            raise self._error(f"its protocol needs another package ({error}): {remedy}") from error
        except ValueError as error:
            raise self._error(f"{error}; use s3://, gs://, https:// or a path") from error

    def _info(self) -> dict[str, Any]:
        with self._as_one_sentence():
            system, path = self._system()
            return system.info(path)

    def _error(self, text: str) -> RemoteError:
        return RemoteError(f"{str(self)!r} cannot be read: {text}")

    @contextmanager
    def _as_one_sentence(self) -> Iterator[None]:
        """Turn whatever a protocol's package raises into a sentence.

        Its own error quotes the URL, often quoted anew or the one it was sent on to, so it is
        neither repeated nor chained as it is.
        """
        try:
            yield
        except RemoteError:
            raise
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self)) from None
        except Exception as error:
            words = str(error).strip().splitlines() or [type(error).__name__]
            text = words[0].replace(self.url, str(self))
            raise self._error(_URL_PARTS.sub(r"\1\2", text)) from None


class RemoteReader(io.RawIOBase):
    """An open remote file; a read that fails is tried again from the same place.

    Args:
        file: What to read.

    Raises:
        FileNotFoundError: It does not exist.
        RemoteError: It cannot be read, or not from any place in it.
    """

    def __init__(self, file: RemoteFile) -> None:
        super().__init__()
        self._remote = file
        self._raw = self._opened()
        # fsspec streams what is empty or has no range requests: a stream has no size.
        self.size = self._raw.size or 0
        """In bytes."""
        if self._raw.size is None and file.stat().st_size:
            raise file._error(
                "its server cannot begin in the middle (HTTP range requests); download it first"
            )
        self.name = str(file)

    def _opened(self) -> Any:
        with self._remote._as_one_sentence():
            system, path = self._remote._system()
            return system.open(path, "rb", block_size=BLOCK_BYTES, cache_type="background")

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Position in bytes."""
        return self._raw.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go somewhere; nothing is fetched yet."""
        return self._raw.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes, fewer only at the end.

        Raises:
            RemoteError: It failed several times.
        """
        place, pause_s = self._raw.tell(), FIRST_PAUSE_S
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._remote._as_one_sentence():
                    return self._raw.read(size)
            except OSError as error:
                if attempt == ATTEMPTS:
                    raise
                logger.info("%s; trying again in %g s", error, pause_s)
            time.sleep(pause_s)
            pause_s *= 2
            self._reopen(place)
        raise AssertionError("the loop returns or raises")

    def _reopen(self, place: int) -> None:
        try:
            before, self._raw = self._raw, self._opened()
            before.close()
        except OSError as error:
            logger.info("%s", error)
        self._raw.seek(place)

    def close(self) -> None:
        """Let go of the connection; calling it twice is harmless."""
        if not self.closed and hasattr(self, "_raw"):
            self._raw.close()
        super().close()
