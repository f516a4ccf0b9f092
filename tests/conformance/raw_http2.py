"""HTTP/2 frame by frame over a plain socket, for what no real gRPC client sends.

Libraries for HTTP/2 keep their users from breaking the protocol; this one is made for that.
"""

import enum
import socket
import struct
import time
from collections.abc import Callable, Iterable

import grpc
import hpack

DEADLINE_S = 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME_BYTES = 1 << 14
CODES = {code.value[0]: code for code in grpc.StatusCode}

Headers = Iterable[tuple[str, str]]


class Frame(enum.IntEnum):
    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE = 4  # a setting


def frame(kind: Frame, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def message(payload: bytes, compressed: bool = False) -> bytes:
    """A gRPC message as it lies in DATA frames."""
    return struct.pack(">BI", compressed, len(payload)) + payload


def call_headers(method: str, headers: Headers = ()) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *headers,
    ]


def connect(target: str) -> socket.socket:
    """A connection over which nothing has been said."""
    host, port = target.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=DEADLINE_S)


class RawConnection:
    """A connection whose frames are the caller's. Flow control is kept by send(), settings and
    pings are acknowledged, and statuses of calls collected, while something is waited for. Not
    thread-safe."""

    def __init__(self, target: str) -> None:
        """Returns when the server's settings are here."""
        self.socket = connect(target)
        self.statuses: dict[int, grpc.StatusCode] = {}
        self.resets: dict[int, int] = {}  # HTTP/2's error code
        self.is_closed = False
        self._encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        self._next_stream = 1
        self._unread = b""
        self._initial_window: int | None = None
        self._pings_answered = 0
        self._windows = {0: (1 << 16) - 1}  # by stream; 0 is the connection's
        self.write(PREFACE + frame(Frame.SETTINGS, 0, 0))
        self._receive_until(lambda: self._initial_window is not None)

    def __enter__(self) -> "RawConnection":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def header_block(self, method: str, headers: Headers = ()) -> bytes:
        return self._encoder.encode(call_headers(method, headers))

    def new_stream(self) -> int:
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._windows[stream] = self._initial_window
        return stream

    def open_call(self, method: str, headers: Headers = ()) -> int:
        """Sends the headers of a call; returns its stream."""
        stream = self.new_stream()
        block = self.header_block(method, headers)
        parts = [block[i : i + MAX_FRAME_BYTES] for i in range(0, len(block), MAX_FRAME_BYTES)]
        for i, part in enumerate(parts):
            kind = Frame.CONTINUATION if i > 0 else Frame.HEADERS
            self.write(frame(kind, END_HEADERS * (part is parts[-1]), stream, part))
        return stream

    def call(self, method: str, payload: bytes) -> grpc.StatusCode | None:
        stream = self.open_call(method)
        self.send(stream, message(payload))
        return self.status(stream)

    def send(self, stream: int, data: bytes, end: bool = True) -> None:
        """Sends `data`, as fast as the server takes it, or until it answers or closes."""
        position = 0
        while not self._is_over(stream):
            window = min(self._windows[0], self._windows[stream])
            size = min(window, MAX_FRAME_BYTES, len(data) - position)
            is_last = position + size == len(data)
            if size > 0 or is_last:
                part = data[position : position + size]
                self.write(frame(Frame.DATA, END_STREAM * (end and is_last), stream, part))
                position += size
                self._windows[0] -= size
                self._windows[stream] -= size
            if is_last:
                return
            if size == 0:
                self._receive_until(
                    lambda: min(self._windows[0], self._windows[stream]) > 0
                    or self._is_over(stream)
                )

    def write(self, data: bytes) -> None:
        """That the server has closed is noticed when reading."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self.is_closed = True

    def status(self, stream: int) -> grpc.StatusCode | None:
        """Waits for the end of a call. None if it was reset, or the connection closed."""
        self._receive_until(lambda: self._is_over(stream))
        return self.statuses.get(stream)

    def wait_until_read(self) -> None:
        """Until the server has read all that was written so far."""
        seen = self._pings_answered
        self.write(frame(Frame.PING, 0, 0, bytes(8)))
        self._receive_until(lambda: self._pings_answered > seen)

    def _is_over(self, stream: int) -> bool:
        return self.is_closed or stream in self.statuses or stream in self.resets

    def _receive_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, "the server does not answer"
            assert not self.is_closed, "the server has closed the connection"
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            self.is_closed |= not data
            self._unread += data
            while self._take_frame():
                pass

    def _take_frame(self) -> bool:
        """False if there is no whole frame."""
        if len(self._unread) < 9:
            return False
        size = int.from_bytes(self._unread[:3], "big")
        if len(self._unread) < 9 + size:
            return False
        kind, flags, stream = struct.unpack_from(">BBI", self._unread, 3)
        payload, self._unread = self._unread[9 : 9 + size], self._unread[9 + size :]
        self._take(kind, flags, stream, payload)
        return True

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == Frame.HEADERS:
            headers = dict(self._decoder.decode(payload))
            if "grpc-status" in headers:
                self.statuses.setdefault(stream, CODES[int(headers["grpc-status"])])
        elif kind == Frame.DATA and payload:
            for of in (0, stream):
                self.write(frame(Frame.WINDOW_UPDATE, 0, of, struct.pack(">I", len(payload))))
        elif kind == Frame.RST_STREAM:
            self.resets[stream] = int.from_bytes(payload, "big")
        elif kind == Frame.WINDOW_UPDATE:
            self._windows[stream] = self._windows.get(stream, 0) + int.from_bytes(payload, "big")
        elif kind == Frame.PING and flags & ACK:
            self._pings_answered += 1
        elif kind == Frame.PING:
            self.write(frame(Frame.PING, ACK, 0, payload))
        elif kind == Frame.SETTINGS and not flags & ACK:
            self._take_settings(dict(struct.iter_unpack(">HI", payload)))

    def _take_settings(self, settings: dict[int, int]) -> None:
        old = self._initial_window or (1 << 16) - 1
        self._initial_window = settings.get(INITIAL_WINDOW_SIZE, old)
        for stream in self._windows.keys() - {0}:
            self._windows[stream] += self._initial_window - old
        self.write(frame(Frame.SETTINGS, ACK, 0))
