"""Clients that mean harm: a real client is answered while they are there, the server's memory stays
bounded, and nothing of them is left when they have gone.

Each test has a server of its own, so that its memory is known before.
"""

import contextlib
import pathlib
import re
import resource
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator

import grpc
import pytest
from conftest import PROMPTS, generate_greedily
from evaserve_program import Evaserve
from raw_http2 import PREFACE, Frame, RawConnection, connect, frame, message

GENERATE = "/evaserve.v1.Inference/Generate"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
WATCH = "/grpc.health.v1.Health/Watch"
CANCEL = struct.pack(">I", 8)

MIB = 1 << 20
LIMIT_MB = 4  # --max-message-mb
RECEIVE_MIB = 192  # --receive-memory-mb
SOON_S = 5.0  # a tiny model answers in milliseconds; the machine may be busy
SOON_SANITIZED_S = 30.0
WAIT_S = 30.0
# What may come in any test, of gRPC's own buffers and the allocator's.
SLACK_MIB = 48
FLOOD_MIB = 96  # 65 were seen, of answers to pings until the connection is closed
IDLE_CONNECTIONS = 10_000
FEWEST_CONNECTIONS = 2_000
KIB_PER_CONNECTION = 40  # about 23 were seen


@contextlib.contextmanager
def all_files_allowed() -> Iterator[int]:
    """Raises the limit of open files as far as it goes, also for programs started within; gives
    what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Victim(Evaserve):
    """A server, and what it took when it was idle and new."""

    def __init__(self, *args: str, is_sanitized: bool) -> None:
        super().__init__(*args)
        self.is_sanitized = is_sanitized
        self.files = self.metric("process_open_fds")
        self.resident_mib = self._memory("VmRSS")

    def _memory(self, name: str) -> float:
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 1024

    def growth_mib(self) -> float:
        """What is resident now beyond what was at the start."""
        return self._memory("VmRSS") - self.resident_mib

    def peak_growth_mib(self) -> float:
        return self._memory("VmHWM") - self.resident_mib

    def assert_took_less_than(self, mib: float) -> None:
        assert self.is_sanitized or self.peak_growth_mib() < mib

    def is_idle(self) -> bool:
        idle = ("requests_in_flight", "running_sequences", "waiting_requests", "state_pages_used")
        return not any(self.metric(f"evaserve_{name}") for name in idle)


def wait_until(condition: Callable[[], bool], what: str, wait_s: float = WAIT_S) -> None:
    end = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < end, f"after {wait_s:.0f} s still not: {what}"
        time.sleep(0.05)


@pytest.fixture
def victim(pytestconfig, model_dir):
    with all_files_allowed():
        server = Victim(
            pytestconfig.getoption("evaserve"),
            *(f"--model=tiny={model_dir}", "--dtype=float32", f"--max-message-mb={LIMIT_MB}"),
            f"--receive-memory-mb={RECEIVE_MIB}",
            is_sanitized=pytestconfig.getoption("sanitized"),
        )
    yield server
    # Whatever was done to it.
    try:
        wait_until(server.is_idle, "no request is left")
        wait_until(lambda: server.metric("process_open_fds") <= server.files, "no file is left")
    finally:
        assert server.terminate() == 0


@pytest.fixture
def plain_build(pytestconfig):
    """Of a test about memory and nothing else, or about files, without which a sanitizer fails."""
    if pytestconfig.getoption("sanitized"):
        pytest.skip("a sanitizer's build")


@pytest.fixture
def ask(victim, stubs, expected):
    """Lets a real client ask, over a connection of its own; the answer must be right and soon."""
    timeout_s = SOON_SANITIZED_S if victim.is_sanitized else SOON_S

    def answer() -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(victim.target, options) as channel:
            text = generate_greedily(channel, stubs, PROMPTS[1], timeout=timeout_s)
        assert text == expected[PROMPTS[1]]

    return answer


@contextlib.contextmanager
def closing(connections: list) -> Iterator[None]:
    try:
        yield
    finally:
        for connection in connections:
            connection.close()


# Messages


def bomb(encoding: str, size_mib: int) -> bytes:
    """Zeros, a thousandth of their size."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, {"gzip": 31, "deflate": 15}[encoding])
    zeros = bytes(MIB)
    return b"".join(squeeze.compress(zeros) for _ in range(size_mib)) + squeeze.flush()


def send_bomb(connection: RawConnection, encoding: str, size_mib: int) -> grpc.StatusCode | None:
    stream = connection.open_call(GENERATE, [("grpc-encoding", encoding)])
    connection.send(stream, message(bomb(encoding, size_mib), compressed=True))
    return connection.status(stream)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_refused(victim, ask, encoding):
    assert len(bomb(encoding, LIMIT_MB + 1)) < 8 << 10
    with RawConnection(victim.target) as connection:
        status = send_bomb(connection, encoding, LIMIT_MB + 1)
        assert status == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert connection.call(GENERATE, b"") == grpc.StatusCode.INVALID_ARGUMENT
    victim.assert_took_less_than(SLACK_MIB)
    ask()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_not_inflated_beyond_the_limit(plain_build, victim, ask, encoding):
    with RawConnection(victim.target) as connection:
        send_bomb(connection, encoding, size_mib=256)
    ask()
    victim.assert_took_less_than(SLACK_MIB)


def test_a_message_that_is_too_large_is_refused(victim, ask):
    with RawConnection(victim.target) as connection:
        status = connection.call(GENERATE, bytes(LIMIT_MB * MIB + 1))
        assert status == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert connection.call(GENERATE, b"") == grpc.StatusCode.INVALID_ARGUMENT
    ask()


def test_a_message_that_is_too_large_is_not_kept(plain_build, victim, ask):
    with RawConnection(victim.target) as connection:
        connection.send(connection.open_call(GENERATE), message(bytes(512 * MIB)))
    ask()
    victim.assert_took_less_than(RECEIVE_MIB + SLACK_MIB)


def test_large_messages_without_end(plain_build, victim, ask):
    """They are more than gRPC may keep. It closes connections then, also those of others, whose
    calls must succeed when they are repeated, as deploy/grpc's service configs do."""
    senders = [RawConnection(victim.target) for _ in range(4)]
    with contextlib.ExitStack() as stack:
        for sender in senders:
            stack.enter_context(sender)
            threading.Thread(target=send_without_end, args=(sender,)).start()
        wait_until(lambda: victim.peak_growth_mib() > RECEIVE_MIB / 2, "much has come")
        for _ in range(20):
            ask_again_while_unavailable(ask)
        victim.assert_took_less_than(RECEIVE_MIB + SLACK_MIB)


def ask_again_while_unavailable(ask: Callable[[], None]) -> None:
    for _ in range(4):
        try:
            return ask()
        except grpc.RpcError as error:
            if error.code() not in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
            ):
                raise
    return ask()


def send_without_end(connection: RawConnection) -> None:
    with contextlib.suppress(OSError):
        for _ in range(20):
            connection.send(connection.open_call(GENERATE), message(bytes(64 * MIB)), end=False)


def test_messages_that_never_come_cost_nothing(victim, ask):
    """Each call announces 4 GiB and sends a byte."""
    with RawConnection(victim.target) as connection:
        for _ in range(100):
            stream = connection.open_call(GENERATE)
            connection.send(stream, b"\0\xff\xff\xff\xff\0", end=False)
        ask()
    victim.assert_took_less_than(SLACK_MIB)


# Headers

TOO_MANY_HEADERS = {
    "one value": [("x-large", "a" * 20_000)],
    "thousands": [(f"x-{i}", "a") for i in range(5_000)],
}


@pytest.mark.parametrize("headers", TOO_MANY_HEADERS.values(), ids=TOO_MANY_HEADERS)
def test_too_much_metadata_is_refused(victim, ask, headers):
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(victim.target, options) as channel:
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary(GENERATE)(b"", metadata=headers, timeout=SOON_S)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    with RawConnection(victim.target) as connection:
        # There may be no status if the connection is closed at once.
        status = connection.status(connection.open_call(GENERATE, headers))
        assert status in (grpc.StatusCode.RESOURCE_EXHAUSTED, None)
    ask()
    victim.assert_took_less_than(SLACK_MIB)


def test_too_much_metadata_ends_no_call_of_others(victim):
    """gRPC 1.51 closes the connection that it came on."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with (
        grpc.insecure_channel(victim.target, options) as good,
        grpc.insecure_channel(victim.target, options) as bad,
    ):
        other = good.unary_stream(WATCH)(b"")
        next(other)
        with pytest.raises(grpc.RpcError):
            headers = TOO_MANY_HEADERS["one value"]
            bad.unary_unary(GENERATE)(b"", metadata=headers, timeout=SOON_S)
        good.unary_unary(WATCH.replace("Watch", "Check"))(b"")
        assert other.is_active()


def header_flood(block: bytes, parts: int) -> bytes:
    """The headers of a call that do not end."""
    begin = frame(Frame.HEADERS, 0, 1, b"\x83\x86")
    return begin + parts * frame(Frame.CONTINUATION, 0, 1, block)


# Each is megabytes to the server, if it keeps them.
FLOODS = {
    "headers without end": header_flood(b"\x00\x05x-abc\x7f\x81\x7d" + b"a" * 16_000, 2_000),
    "one header by reference": header_flood(b"\x40\x05x-abc\x7f\xa1\x1e" + b"a" * 4_000, 1)
    + 1_000 * frame(Frame.CONTINUATION, 0, 1, b"\xbe" * 16_000),
    "pings": 1_000_000 * frame(Frame.PING, 0, 0, b"12345678"),
    "settings": 1_000_000 * frame(Frame.SETTINGS, 0, 0, struct.pack(">HI", 3, 100)),
    "empty data": 1_000_000 * frame(Frame.DATA, 0, 1),
    "window updates": 1_000_000 * frame(Frame.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)),
    "resets of nothing": 1_000_000 * frame(Frame.RST_STREAM, 0, 1, CANCEL),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_flood_of_frames(victim, ask, flood):
    with RawConnection(victim.target) as connection:
        connection.socket.settimeout(2)  # the server may as well read no more
        with contextlib.suppress(TimeoutError):
            connection.write(flood)
        ask()
    ask()
    victim.assert_took_less_than(FLOOD_MIB)


# Calls


def test_thousands_of_open_streams(victim, ask):
    count = 4_096  # as many as the server allows on a connection
    with RawConnection(victim.target) as connection:
        for _ in range(count):
            connection.open_call(STREAM_INFER)
        too_many = connection.open_call(STREAM_INFER)
        assert connection.status(too_many) is None
        ask()
    victim.assert_took_less_than(SLACK_MIB + count * 64 / 1024)


def test_calls_that_are_reset_at_once(victim, ask):
    """Each is over before the server's limit of streams could count it."""
    count = 20_000
    with RawConnection(victim.target) as connection:
        for _ in range(count):
            stream = connection.open_call(GENERATE)
            connection.write(frame(Frame.RST_STREAM, 0, stream, CANCEL))
        ask()
        # A connection that is closed before is sometimes noticed only a minute later.
        connection.wait_until_read()
    print(f"{victim.peak_growth_mib():.0f} MiB for {count} calls")
    victim.assert_took_less_than(SLACK_MIB + count * 64 / 1024)


def test_many_streams_of_a_real_client(victim, stubs, expected):
    """Each of more calls than wait at a time is answered, or told that it is too much."""
    pb, pb_grpc = stubs
    count = 3_000
    codes = []
    done = threading.Semaphore(0)

    def take(call: grpc.Future) -> None:
        codes.append(call.code())
        done.release()

    with grpc.insecure_channel(victim.target) as channel:
        stub = pb_grpc.InferenceStub(channel)
        for _ in range(count):
            stub.Score.future(pb.ScoreRequest(text=b"ab"), timeout=WAIT_S).add_done_callback(take)
        for _ in range(count):
            assert done.acquire(timeout=WAIT_S)
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert codes.count(grpc.StatusCode.OK) > 1_000
    wait_until(victim.is_idle, "all are counted")
    assert victim.metric("evaserve_requests_total") == count


# Connections


def test_ten_thousand_idle_connections(victim, ask):
    with all_files_allowed() as limit:
        count = min(IDLE_CONNECTIONS, limit - 500)
        if count < FEWEST_CONNECTIONS:
            pytest.skip(f"only {limit} files may be open; ulimit -n {IDLE_CONNECTIONS + 500}")
        # What one round leaves behind would add up.
        for _ in range(3):
            connections = []
            with closing(connections):
                for _ in range(count):
                    connections.append(connect(victim.target))
                    connections[-1].sendall(PREFACE + frame(Frame.SETTINGS, 0, 0))
                files = victim.files + count
                wait_until(lambda: victim.metric("process_open_fds") >= files, "all are taken")
                ask()
                print(f"{victim.growth_mib() / count * 1024:.1f} KiB for each of {count}")
            wait_until(lambda: victim.metric("process_open_fds") <= victim.files, "all are closed")
    victim.assert_took_less_than(count * KIB_PER_CONNECTION / 1024)
    ask()


def test_memory_of_closed_connections_is_given_back(plain_build, victim, ask):
    with all_files_allowed() as limit:
        count = min(FEWEST_CONNECTIONS, limit - 500)
        connections = []
        with closing(connections):
            for _ in range(count):
                connections.append(RawConnection(victim.target).socket)
            ask()
        wait_until(lambda: victim.metric("process_open_fds") <= victim.files, "all are closed")
    most = victim.peak_growth_mib() / 2
    wait_until(lambda: victim.growth_mib() < most, "memory is given back", wait_s=10)


def test_clients_can_connect_again_when_files_are_free_again(plain_build, victim, ask):
    most = int(victim.files) + 50
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.prlimit(victim.process.pid, resource.RLIMIT_NOFILE, (most, hard))
    with closing([connect(victim.target) for _ in range(100)]):
        wait_until(lambda: "Too many open files" in "".join(victim.log), "none is left")
    ask()


SILENT_OR_WRONG = {
    "nothing": b"",
    "half a preface": PREFACE[:10],
    "a preface": PREFACE,
    "half a frame": PREFACE + frame(Frame.SETTINGS, 0, 0)[:5],
    "HTTP/1.1": b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": bytes.fromhex("16030100700100006c0303") + bytes(105),
    "noise": bytes((i * 197 + i // 7) % 256 for i in range(4_096)),
    "noise as frames": PREFACE
    + b"".join(frame(i % 12, i * 37 % 256, i % 9, bytes(i % 50)) for i in range(500)),
    "a frame of 16 MiB": PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(1 << 16),
}


@pytest.mark.parametrize("said", SILENT_OR_WRONG.values(), ids=SILENT_OR_WRONG)
def test_connections_that_say_nothing_or_nonsense(victim, ask, said):
    connections = [connect(victim.target) for _ in range(200)]
    with closing(connections):
        for connection in connections:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(said)
        ask()
    victim.assert_took_less_than(SLACK_MIB)


def test_a_byte_a_second(victim, ask):
    """Of the preface, and of a call."""
    whole = PREFACE + frame(Frame.SETTINGS, 0, 0)
    slow = [connect(victim.target) for _ in range(50)]
    calls = [RawConnection(victim.target) for _ in range(50)]
    payload = message(bytes(100))
    streams = [call.open_call(GENERATE) for call in calls]
    with closing(slow + [call.socket for call in calls]):
        for i in range(4):
            for connection in slow:
                connection.sendall(whole[i : i + 1])
            for call, stream in zip(calls, streams):
                call.send(stream, payload[i : i + 1], end=False)
            end = time.monotonic() + 1
            while time.monotonic() < end:
                ask()
    victim.assert_took_less_than(SLACK_MIB)
