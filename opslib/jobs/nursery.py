"""Where attempts are born: a process of one thread that has every module loaded and forks one child per attempt.

A fork costs some milliseconds, a fresh interpreter with the same modules a third of a second. The worker itself cannot
fork: it has threads. `python -m opslib.jobs.nursery FD` speaks over the socket FD, one packet per message:

- first comes JSON: `path` (sys.path) and `preload` (modules);
- the answer is `ready`;
- then, for each child, one byte with the child's end of its channel; the answer is `started PID` or `failed WHY`;
- whenever a child is gone: `ended PID STATUS`, as os.waitpid gives it.

It leaves when the other end closes. Children then notice by themselves.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
from importlib import import_module

from opslib.jobs import child


def main(control: socket.socket) -> None:
    """Serve until the other end closes."""
    hello = json.loads(control.recv(1 << 20))
    sys.path[:] = hello["path"]
    for module in hello["preload"]:
        with contextlib.suppress(Exception):  # the attempt that needs it will say what is wrong
            import_module(module)
    gc.freeze()  # what is shared with the children stays shared
    woken, wakes = socket.socketpair()
    wakes.setblocking(False)  # noqa: FBT003 - the library's signature
    # The worker decides when we go. A child told to end before it can say so hears it as soon as it can.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    control.send(b"ready")
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is woken:
                    woken.recv(4096)
                    _bury(control)
                elif not _bear(control):
                    return


def _bear(control: socket.socket) -> bool:
    data, descriptors, _, _ = socket.recv_fds(control, 1, 1)
    if not data:
        return False
    (channel,) = descriptors
    try:
        pid = os.fork()
    except OSError as exc:
        control.send(f"failed {exc.strerror}".encode())
    else:
        if pid == 0:
            _live(control, channel)
        control.send(f"started {pid}".encode())
    os.close(channel)
    return True


def _live(control: socket.socket, channel: int) -> None:
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        control.close()
        child.main(socket.socket(fileno=channel))
    finally:
        os._exit(1)  # never back into the loop above


def _bury(control: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            control.send(f"ended {ended[0]} {ended[1]}".encode())


if __name__ == "__main__":
    with contextlib.suppress(ConnectionError), socket.socket(fileno=int(sys.argv[1])) as connection:
        main(connection)
