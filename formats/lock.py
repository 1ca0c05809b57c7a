"""The single-writer lock: flock on the store itself.

The kernel drops the lock with its holder, so a killed writer blocks nobody. ``compact`` and
``create`` replace the inode behind a path, therefore a lock counts only if the path still names
the locked inode.
"""

from __future__ import annotations

import fcntl
import os
import time

from formats.errors import StoreLockedError

_PAUSE_S = 0.02


def open_locked(path: str, *, flags: int = 0, timeout_s: float = 0.0) -> int:
    """Opens ``path`` for reading and writing and locks it; the caller closes the descriptor.

    Args:
        path: The file.
        flags: Further flags of ``os.open``.
        timeout_s: Seconds to wait for another holder.

    Raises:
        StoreLockedError: It is held for longer than that.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _names(path, fd):
                return fd
            os.close(fd)
        except BlockingIOError:
            os.close(fd)
            if time.monotonic() >= deadline:
                raise StoreLockedError(
                    "another writer holds the store",
                    path=path,
                    hint="wait for it to finish and try again",
                ) from None
            time.sleep(_PAUSE_S)
        except BaseException:
            os.close(fd)
            raise


def _names(path: str, fd: int) -> bool:
    """Whether ``path`` still is the file behind ``fd``."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))  # noqa: PTH116
    except FileNotFoundError:
        return False
