"""Free ports, for servers that take a port number when they start."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port of 127.0.0.1 that the kernel gives to nobody else, however long a server takes to listen on it.

    The socket that holds it does not listen, and lets servers that reuse addresses have the port beside it, as
    asyncio's, nginx and PostgreSQL do.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])
