"""What saves time and may be forgotten: digests by file state, identities by text; never vectors."""

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from stat import S_ISREG
from types import TracebackType
from typing import Any, Self, TypeVar

__all__ = ["Hints"]

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_RECENT = 20_000  # paths kept in memory, about 10 MB
_RACY_SECONDS = 2.0  # a file may change again within one tick of its clock, leaving no trace
_TIMEOUT_SECONDS = 2.0
_BATCH = 900  # SQLite's oldest limit of variables in one statement is 999
_MAX_CELL_BYTES = 16 << 20
_DIGEST_BYTES = 32
_State = tuple[int, int, int, int]  # inode, size, mtime and ctime in nanoseconds

_TABLES = {
    "digests": "(path BLOB PRIMARY KEY, state BLOB, digest BLOB, sum BLOB) WITHOUT ROWID",
    "identities": "(spec BLOB PRIMARY KEY, identity BLOB, sum BLOB) WITHOUT ROWID",
}
_JOURNAL_END = bytes.fromhex("d9d505f920a163d7")  # of a journal that names another file


class Hints:
    """Hints in one SQLite file.

    Nothing here is needed to be right: a file that is missing, damaged, locked, read-only, garbage or made by
    something else makes hints act as absent, which is said once in the log. Every row carries a checksum, so a
    damaged page is a forgotten row, not a wrong one. One object serves any thread, one at a time.

    Parameters
    ----------
    path : Path or None
        The file, created by the first thing to remember; None keeps hints in memory only.

    Notes
    -----
    The most recent hints are also kept in memory, for folds that ask for the same files again and again.

    Examples
    --------
    >>> hints = Hints(None)
    >>> hints.remember_identity("hog", {"name": "hog"})
    >>> hints.identity("hog")
    {'name': 'hog'}
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._recent_digests: dict[bytes, tuple[_State, bytes]] = {}
        self._recent_identities: dict[str, dict[str, Any]] = {}
        self._absent = path is None
        self._replaced = False
        self._warned = False

    def digests(self, files: Sequence[tuple[str | bytes, os.stat_result | None]]) -> list[bytes | None]:
        """Look up digests of files that have not changed since.

        Parameters
        ----------
        files : sequence of (path, stat)
            Absolute paths, each with what `os.stat` says of it now; None for a file that is not there.

        Returns
        -------
        list of bytes or None
            SHA-256 of each file; None where it is not known for this very inode, size, mtime and ctime.
        """
        # The one loop over all files of every fold of a search, hence its bareness.
        recent, nothing = self._recent_digests, (None, None)
        answers: list[bytes | None] = []
        for path, stat in files:
            known, digest = recent.get(path if type(path) is bytes else os.fsencode(path), nothing)
            answers.append(digest if stat is not None and known == _state(stat) else None)
        unknown = [
            (position, os.fsencode(path), _state(stat))
            for position, (path, stat) in enumerate(files)
            if answers[position] is None and stat is not None
        ]
        names = [name for _, name, _ in unknown]
        rows: dict[bytes, tuple[Any, ...]] = {}

        def look_up(connection: sqlite3.Connection) -> None:
            for start in range(0, len(names), _BATCH):
                batch = names[start : start + _BATCH]
                marks = ",".join("?" * len(batch))
                found = connection.execute(
                    f"SELECT path, state, digest, sum FROM digests WHERE path IN ({marks})", batch
                )
                rows.update((row[0], row[1:]) for row in found)

        if unknown:
            self._attempt(look_up, None, writes=False)
        for position, name, state in unknown:
            found, digest, checksum = rows.get(name, (None, None, None))
            if not isinstance(digest, bytes) or len(digest) != _DIGEST_BYTES or found != _stored(state):
                continue
            if checksum == _checksum(name, found, digest):
                answers[position] = digest
                self._keep(name, state, digest)
        return answers

    def remember_digests(self, files: Sequence[tuple[str | bytes, os.stat_result, bytes, float]]) -> None:
        """Remember digests of files.

        Parameters
        ----------
        files : sequence of (path, stat, digest, read_at)
            ``stat`` taken before the bytes were read, ``read_at`` the time of that stat, in seconds since the
            epoch. A file younger than 2 s then is not remembered: it could change again and look the same.
        """
        trusted = [
            (os.fsencode(path), _state(stat), digest)
            for path, stat, digest, read_at in files
            if read_at - max(stat.st_mtime, stat.st_ctime) >= _RACY_SECONDS
        ]
        rows = [
            (name, _stored(state), digest, _checksum(name, _stored(state), digest))
            for name, state, digest in trusted
        ]

        def insert(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)", rows)

        for name, state, digest in trusted:
            self._keep(name, state, digest)
        if rows:
            self._attempt(insert, None, writes=True)

    def identity(self, text: str) -> dict[str, Any] | None:
        """Look up what was remembered under a text; None when nothing was."""

        def look_up(connection: sqlite3.Connection) -> tuple[Any, ...] | None:
            row = connection.execute(
                "SELECT identity, sum FROM identities WHERE spec = ?", (spec,)
            ).fetchone()
            return tuple(row) if row else None

        if text in self._recent_identities:
            return self._recent_identities[text]
        spec = _encoded(text)
        row = self._attempt(look_up, None, writes=False)
        if row is None or row[1] != _checksum(spec, row[0]):
            return None
        try:
            identity = json.loads(row[0])
        except (TypeError, ValueError, RecursionError):  # a checksum keeps out accidents, not forgers
            return None
        if not isinstance(identity, dict):
            return None
        self._recent_identities[text] = identity
        return identity

    def remember_identity(self, text: str, identity: Mapping[str, Any]) -> None:
        """Remember a plain JSON object under a text that names everything it depends on."""
        spec, value = _encoded(text), json.dumps(dict(identity)).encode()
        self._recent_identities[text] = json.loads(value)

        def insert(connection: sqlite3.Connection) -> None:
            with connection:
                row = (spec, value, _checksum(spec, value))
                connection.execute("INSERT OR REPLACE INTO identities VALUES (?, ?, ?)", row)

        self._attempt(insert, None, writes=True)

    def close(self) -> None:
        """Close the file, which is opened again when it is needed."""
        with self._lock:
            self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep(self, name: bytes, state: _State, digest: bytes) -> None:
        if len(self._recent_digests) >= _RECENT:
            self._recent_digests.clear()
        self._recent_digests[name] = (state, digest)

    def _attempt(self, action: Callable[[sqlite3.Connection], _T], otherwise: _T, *, writes: bool) -> _T:
        with self._lock:
            for _ in range(2):
                if self._absent or self.path is None:
                    break
                try:
                    if not writes and not self.path.exists():
                        break  # not worth a word: nothing was remembered yet
                    return action(self._connect(self.path, writes=writes))
                except (sqlite3.Error, OSError) as error:
                    if not self._recovered(error):
                        break
            return otherwise

    def _connect(self, path: Path, *, writes: bool) -> sqlite3.Connection:
        _refuse_traps(path)
        if self._connection is None:
            if writes:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=_TIMEOUT_SECONDS, check_same_thread=False)
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_CELL_BYTES)
            # Losing hints in a power cut is no loss; waiting for the disk would be one.
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.execute("PRAGMA trusted_schema = OFF")
            _make_tables(self._connection)
        return self._connection

    def _recovered(self, error: Exception) -> bool:
        """Whether the same is worth one more try, after a file that is no database has been replaced."""
        self._disconnect()
        # Of a folder that cannot be made, whoever wants to keep vectors in it tells.
        if not self._warned and self.path is not None and self.path.parent.is_dir():
            logger.warning(
                "hints in '%s' are not used (%s): the same answers, only slower.", self.path, error
            )
            self._warned = True
        code = getattr(error, "sqlite_errorcode", None)
        if self._replaced or code not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT) or self.path is None:
            return False
        self._replaced = True
        try:
            for suffix in ("", "-journal"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        except OSError:
            self._absent = True
            return False
        return True

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _refuse_traps(path: Path) -> None:
    """Refuse what would make SQLite touch other files: a link, or a journal that names one.

    A left-over journal may name a parent, which SQLite deletes once it has rolled back; ours never has one. Looked
    for before every use, because SQLite looks for a journal as often.
    """
    if path.is_symlink():
        raise sqlite3.DatabaseError("it is a link")
    try:
        # O_NONBLOCK: a FIFO under the journal's name must not hang the reader.
        descriptor = os.open(
            path.with_name(f"{path.name}-journal"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except OSError:  # there is none
        return
    with os.fdopen(descriptor, "rb") as journal:
        state = os.fstat(descriptor)
        if not S_ISREG(state.st_mode):
            raise sqlite3.DatabaseError("its journal is no file; delete both")
        if state.st_size < len(_JOURNAL_END):
            return
        journal.seek(-len(_JOURNAL_END), os.SEEK_END)
        end = journal.read()
    if end == _JOURNAL_END:
        raise sqlite3.DatabaseError("its journal names another file; delete both")


def _make_tables(connection: sqlite3.Connection) -> None:
    """Make the tables, or refuse a file that holds anything else: views and triggers run when they are used."""
    expected = {name: f"CREATE TABLE {name} {columns}" for name, columns in _TABLES.items()}
    while (found := dict(connection.execute("SELECT name, sql FROM sqlite_schema"))) != expected:
        if found.items() - expected.items():
            raise sqlite3.DatabaseError("it holds other tables than featx makes")
        for name, columns in _TABLES.items():
            connection.execute(f"CREATE TABLE IF NOT EXISTS {name} {columns}")


def _state(stat: os.stat_result) -> _State:
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _stored(state: _State) -> bytes:
    # One blob, because inode numbers may not fit SQLite's signed integers.
    return ":".join(map(str, state)).encode()


def _checksum(*fields: object) -> bytes:
    return hashlib.blake2b(repr(fields).encode(), digest_size=8).digest()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
