"""Files of other machines, and of whatever else fsspec has a file system for."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any, Final, TypeVar, cast

from run_task._extras import need
from run_task.errors import ConfigError
from run_task.observe._format import shown
from run_task.observe._url import redacted, secrets_in, url_shown
from run_task.sources.files._compression import TELLING_BYTES, compression_of
from run_task.sources.files._lines import WholeLines
from run_task.sources.files._place import by_name, is_hidden

R = TypeVar("R")

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+(?:::|://)")
"""With two letters at least, since one is a drive of Windows."""

_MAGIC: Final = re.compile(r"[*?\[]")
_HTTP: Final = frozenset({"http", "https"})
_DRIVERS: Final = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
    "adl": "adlfs",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "smb": "smbprotocol",
    "github": "requests",
}
"""What to install, by how URLs begin."""

_WHOLE: Final = (
    "it is not read from its start to its end, and its server gives no parts of a file: copy it to "
    "this machine first"
)
_SKIPPED_BYTES: Final = 1 << 20
_SILENT_S: Final = 300
"""For how long a server may say nothing, in seconds."""


class _WholeOnlyError(OSError):
    """A web server gives a file as a whole only."""


def remote_url(given: object) -> str | None:
    """A path that is a URL of something else than a file of this machine; None: it is none."""
    if not isinstance(given, str) or _URL.match(given) is None:
        return None
    return None if _scheme(given) == "file" else given


def local_path(given: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """A path, also where it is a ``file://`` URL."""
    if isinstance(given, str) and _URL.match(given) and _scheme(given) == "file":
        from urllib.request import url2pathname  # which brings all of http

        return url2pathname(given[len("file://") :])
    return given


def remote_files(url: str, where: str, options: Mapping[str, Any]) -> list[RemoteFile]:
    """The files that a URL names, or those of the folder or pattern that it is.

    :param where: the source, for messages
    :param options: what the file system takes
    :raises ConfigError: if there is none, it cannot be asked, or what it takes is not installed
    """
    server = _FileSystem(url, where, options)
    try:
        found = server.files()
    except OSError as error:
        raise ConfigError(f"{where}: {error}") from None
    return [RemoteFile(server, path) for path in found]


class RemoteFile:
    """A file that fsspec opens.

    :param server: the file system
    :param path: its path there
    """

    live: bool = False
    once: bool = False
    endless: bool = False
    far: bool = True

    def __init__(self, server: _FileSystem, path: str) -> None:
        self.identity: str = server.identity_of(path)
        """By what it is known to be the same as another."""
        self.name: str = url_shown(server.full_name(path))
        """How messages call it."""
        self._server = server
        self._path = path

    def open(self) -> WholeLines:
        """Its bytes from the start, decompressed, by whole lines.

        :raises OSError: if it cannot be opened
        """
        return WholeLines(_Streamed(self._server, self._path))

    def open_for_arrow(self) -> Any:
        """Its bytes as they stand, as a file of Arrow's in which any place can be read.

        :raises OSError: if it cannot be opened, or be read in any place
        """
        opened = self._server.opened(self._path)
        if not opened.seekable():
            opened.close()
            raise _WholeOnlyError(_WHOLE)
        return need("pyarrow", "arrow").PythonFile(opened, mode="r")

    def head(self) -> bytes:
        """The first bytes as they stand, which tell what it is.

        :raises OSError: if it cannot be read
        """
        opened = self._server.opened(self._path)
        try:
            return opened.read(TELLING_BYTES)
        finally:
            opened.close()

    def tail(self, size: int) -> bytes:
        """Its last bytes; none where it is compressed, or they cannot be had without the others.

        :param size: how many at most
        :raises OSError: if it cannot be read
        """
        opened = self._server.opened(self._path)
        try:
            if not opened.seekable() or compression_of(opened.read(TELLING_BYTES)) is not None:
                return b""
            opened.seek(max(0, opened.seek(0, os.SEEK_END) - size))
            return opened.read(size)
        finally:
            opened.close()

    def stop(self) -> None:
        """There is nothing that it waits for."""


class _FileSystem:
    """A file system of fsspec, whose errors come out as those of this machine's files do: as an
    OSError, and without secrets."""

    def __init__(self, url: str, where: str, options: Mapping[str, Any]) -> None:
        fsspec = need("fsspec", "remote")
        kind = _scheme(url)
        url = f"{kind}{url[len(kind) :]}"
        self._url = url
        self._secrets = secrets_in(url, options)
        failure: ConfigError
        try:
            if kind in _HTTP:
                options = _for_web(options)
            self._fs, self._path = fsspec.core.url_to_fs(url, **options)
            return
        except ConfigError:
            raise
        except ImportError as error:
            failure = ConfigError(f"{where}: {self._uninstalled(error)}")
        except Exception as error:  # of whatever kind a driver has
            failure = ConfigError(f"{where}: this URL cannot be used: {self._reason(error)}")
        raise failure  # not while the other is handled, which may have secrets in it

    @property
    def _is_http(self) -> bool:
        kinds = self._fs.protocol
        return not _HTTP.isdisjoint([kinds] if isinstance(kinds, str) else kinds)

    def identity_of(self, path: str) -> str:
        """By what a file of its is known to be the same as another, of whatever file system."""
        return f"{hash(self._fs)}:{path}"

    def full_name(self, path: str) -> str:
        """The URL of a file of its."""
        if path == self._path:
            return self._url
        name: str = self.told(self._fs.unstrip_protocol, path)
        return name

    def files(self) -> list[str]:
        """The paths of the files that the URL names, in order.

        :raises OSError: if there is none, or that cannot be known
        """
        self.told(self._fs.invalidate_cache)  # else, it may not know a file that is new
        path = self._path
        magic = _MAGIC.search(path) is not None if not self._is_http else "*" in path
        if self._is_http and path.endswith("/"):
            return self._of_folder()
        try:
            info: Mapping[str, Any] = self.told(self._fs.info, path)
        except FileNotFoundError as error:
            if not magic:
                raise FileNotFoundError(f"there is no such file{error}") from None
        else:
            return self._of_folder() if info["type"] == "directory" else [path]
        found: Mapping[str, Any] = self.told(self._fs.glob, path, detail=True)
        files = [name for name, about in found.items() if about["type"] == "file"]
        return self._some(files, f"no file matches {url_shown(self._url)!r}")

    def _of_folder(self) -> list[str]:
        found: list[Mapping[str, Any]] = self.told(self._fs.ls, self._path, detail=True)
        files = [
            str(about["name"])
            for about in found
            if about["type"] == "file" and not is_hidden(PurePosixPath(about["name"]).name)
        ]
        return self._some(
            files,
            "there is no file in this folder, or none whose name does not begin with . or _",
        )

    def _some(self, files: list[str], otherwise: str) -> list[str]:
        if not files:
            raise FileNotFoundError(otherwise)
        return sorted(files, key=lambda name: by_name(PurePosixPath(name).parts))

    def opened(self, path: str, **options: Any) -> _Opened:
        """A file of its, opened for reading.

        :param options: how
        :raises OSError: if it cannot be
        """
        file: Any = self.told(self._fs.open, path, "rb", **options)
        if isinstance(file, io.BytesIO):  # of the memory, whose readers all have one position
            file = io.BytesIO(file.getvalue())
        return _Opened(file, self)

    def stream(self, path: str, start: int) -> _Opened:
        """A file of a web server that gives no parts of it.

        :param start: how many bytes to leave out
        :raises OSError: if it cannot be opened, or has no more than that
        """
        opened = self.opened(path, block_size=0)
        while start > 0:
            block = opened.read(min(start, _SKIPPED_BYTES))
            if not block:
                raise OSError("it is shorter than it was")
            start -= len(block)
        return opened

    def told(self, call: Callable[..., R], *arguments: Any, **options: Any) -> R:
        """What a call gives.

        :raises FileNotFoundError: if it says that there is no such file; the text is a reason in
            brackets, or empty
        :raises OSError: if it raises anything else
        """
        failure: OSError
        try:
            return call(*arguments, **options)
        except FileNotFoundError as error:
            cause = error.__cause__
            failure = FileNotFoundError(
                "" if cause is None else f" (it cannot be asked for: {self._reason(cause)})"
            )
        except Exception as error:  # of whatever kind a driver has
            failure = (_WholeOnlyError if _is_refusal(error) else OSError)(self._reason(error))
        raise failure  # not while the other is handled, which may have secrets in it

    def _reason(self, error: BaseException) -> str:
        if _is_refusal(error):
            return _WHOLE
        if url_shown(self._url).endswith("://..."):  # nobody knows what in it is a secret
            return type(error).__name__
        return shown(redacted(str(error).strip(), self._secrets) or type(error).__name__)

    def _uninstalled(self, error: ImportError) -> str:
        scheme = _scheme(self._url)
        driver = _DRIVERS.get(scheme)
        cure = f": pip install {driver}" if driver else ""
        return f"{scheme}:// needs a driver, which cannot be imported ({self._reason(error)}){cure}"


class _Opened:
    """A file of fsspec's, opened for reading, as Arrow and others ask for it."""

    def __init__(self, file: Any, server: _FileSystem) -> None:
        self._file = file
        self._server = server

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        # One that is streamed says that it is seekable, and knows no size.
        return self._file.seekable() and getattr(self._file, "size", 0) is not None

    def read(self, size: int = -1, /) -> bytes:
        return bytes(self._server.told(self._file.read, size))

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return int(self._server.told(self._file.seek, offset, whence))

    def tell(self) -> int:
        return int(self._server.told(self._file.tell))

    def close(self) -> None:
        with suppress(OSError):
            self._server.told(self._file.close)


class _Streamed:
    """A file that is read from its start to its end.

    It is read in parts, so that no connection has to last, and as a whole only where its server
    gives no parts.
    """

    def __init__(self, server: _FileSystem, path: str) -> None:
        self._server = server
        self._path = path
        self._file = server.opened(path)
        self._at = 0

    def read(self, size: int, /) -> bytes:
        try:
            block = self._file.read(size)
        except _WholeOnlyError:
            self._file.close()
            self._file = self._server.stream(self._path, self._at)
            block = self._file.read(size)
        self._at += len(block)
        return block

    def close(self) -> None:
        self._file.close()


def _is_refusal(error: BaseException) -> bool:
    """Whether it is how fsspec says that a web server gives no parts of a file."""
    return isinstance(error, ValueError) and "range requests" in str(error)


def _for_web(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a web server's file system takes, with a time for how long the server says nothing.

    By default, a reading as a whole may take five minutes, however slowly it is wanted.
    """
    timeout = need("aiohttp", "remote").ClientTimeout(total=None, sock_read=_SILENT_S)
    return {**options, "client_kwargs": {"timeout": timeout, **options.get("client_kwargs", {})}}


def _scheme(url: str) -> str:
    return re.split("::|://", url, maxsplit=1)[0].lower()


def check_options(given: Any, where: str) -> Mapping[str, Any]:
    """What a source was told of a file system.

    :raises ConfigError: if it is no mapping of names
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{where}: storage_options= is a mapping, such as {{'anon': True}}, and not a "
            f"{type(given).__name__}"
        )
    return dict(cast("Mapping[str, Any]", given))
