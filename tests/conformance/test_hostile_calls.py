"""Calls that mean harm: a real client is answered while they are there, the server's memory stays
bounded, and nothing of them is left when they have gone.

Each test has a server of its own, so that its memory is known before.
"""

import contextlib
import struct
import threading
import zlib
from collections.abc import Callable

import grpc
import pytest
from raw_http2 import Frame, RawConnection, frame, message
from victim import LIMIT_MB, MIB, RECEIVE_MIB, SLACK_MIB, SOON_S, WAIT_S, wait_until

GENERATE = "/evaserve.v1.Inference/Generate"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
WATCH = "/grpc.health.v1.Health/Watch"
CANCEL = struct.pack(">I", 8)

FLOOD_MIB = 96  # 65 were seen, of answers to pings until the connection is closed


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
        # Of 5 GiB. gRPC closes connections a little after its memory is used up, on a busy machine
        # more than SLACK_MIB after.
        victim.assert_took_less_than(2 * RECEIVE_MIB)


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
    # Unavailable if the connection is closed while the client still sends.
    refusals = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
    assert error.value.code() in refusals
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
