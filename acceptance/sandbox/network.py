"""HTTP services on loopback addresses: this machine's, or those of a network that one machine of the sandbox has."""

import contextlib
import ctypes
import os
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, ClassVar

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

METADATA_ADDRESS = "169.254.169.254"

_CLONE_NEWNET = 0x40000000


class ConnectionDropped(ConnectionError):
    """The caller gets no answer; raised by an app that was given to a Listener."""


class Listener:
    """Serves an app at an address of the calling thread's network, by threads of its own."""

    def __init__(self, app: "WSGIApplication", host: str = "127.0.0.1", port: int = 0):
        self._connections: set[socket.socket] = set()
        handler = type("Handler", (_Handler,), {"connections": self._connections})
        # The socket belongs to the network of the thread that makes it, whichever thread then serves it.
        with socket.create_server((host, port), backlog=128) as listening:
            self.url = f"http://{host}:{listening.getsockname()[1]}"
            self._server = make_server(host, port, app, threaded=True, request_handler=handler, fd=listening.fileno())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no further connection, and end those that there are."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):  # it may be over
                connection.shutdown(socket.SHUT_RDWR)


def drop_connection(environ: "WSGIEnvironment") -> None:
    """End the connection of a request, as a network does that loses it; it does not return."""
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionDropped


def leave_host_network() -> None:
    """Give the calling thread, and the processes that it starts, a network with nothing but loopback addresses.

    The network ends with the last thread, process and socket in it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"no network of its own: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{METADATA_ADDRESS}/32", "dev", "lo"], check=True)


class _Handler(MotoRequestHandler):
    """Writes no line a request, and keeps account of the connections."""

    connections: ClassVar[set[socket.socket]]

    def setup(self) -> None:
        super().setup()
        self.connections.add(self.connection)

    def finish(self) -> None:
        self.connections.discard(self.connection)
        super().finish()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...
