"""Connections that mean harm: a real client is answered while they are there, the server's memory stays
bounded, and nothing of them is left when they have gone.

Each test has a server of its own, so that its memory is known before.
"""

import contextlib
import resource
import time
import urllib.request
from collections.abc import Iterator

import grpc
import pytest
from raw_http2 import PREFACE, Frame, RawConnection, connect, frame, message
from victim import SLACK_MIB, all_files_allowed, wait_until

GENERATE = "/evaserve.v1.Inference/Generate"

IDLE_CONNECTIONS = 10_000
FEWEST_CONNECTIONS = 2_000
KIB_PER_CONNECTION = 40  # about 23 were seen
LIVENESS_TIMEOUT_S = 5  # of the probe in deploy/helm


@contextlib.contextmanager
def closing(connections: list) -> Iterator[None]:
    try:
        yield
    finally:
        for connection in connections:
            connection.close()


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

    def is_answered() -> bool:
        try:
            ask()
        except grpc.RpcError:  # the server has not yet heard that the others are closed
            return False
        return True

    wait_until(is_answered, "clients can connect")


@pytest.mark.parametrize("said", [b"", b"GET /metr"], ids=["nothing", "half a request"])
def test_probes_are_answered_beside_idle_connections_for_metrics(victim, ask, said):
    connections = []
    with closing(connections):
        for _ in range(500):
            connections.append(connect(victim.metrics_target))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connections[-1].sendall(said)
        begin = time.monotonic()
        url = f"http://{victim.metrics_target}/healthz"
        with urllib.request.urlopen(url, timeout=LIVENESS_TIMEOUT_S) as page:
            assert page.status == 200
        print(f"/healthz after {time.monotonic() - begin:.2f} s")
        ask()
    victim.assert_took_less_than(SLACK_MIB)


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
