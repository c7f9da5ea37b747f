"""A wire between a browser and a server of this machine that can be cut, and mended again."""

from __future__ import annotations

import contextlib
import socket
import threading


class Wire:
    """Passes connections to its own port on to another port of the loopback address.

    Args:
        port: of the server.

    Attributes:
        port: where a client connects.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._flow = threading.Event()
        self._flow.set()
        self._whole = True
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """All connections break, and new ones are refused: the network has gone, and both sides know."""
        self._whole = False
        with self._lock:
            ends, self._ends = self._ends, set()
        for end in ends:
            self._drop(end)

    def hold(self) -> None:
        """Nothing passes any more and nobody is told, as when a cable is pulled."""
        self._flow.clear()

    def mend(self) -> None:
        """All passes again; what was held arrives."""
        self._whole = True
        self._flow.set()

    def close(self) -> None:
        self.mend()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._whole:
                self._drop(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                self._drop(client)
                continue
            with self._lock:
                self._ends |= {client, server}
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._flow.wait()
                target.sendall(data)
        for end in (source, target):
            self._drop(end)
        with self._lock:
            self._ends -= {source, target}

    @staticmethod
    def _drop(end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            end.close()
