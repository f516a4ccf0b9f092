"""Three replicas, of which one is killed and one drained under way: no request is lost."""

import contextlib
import itertools
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator

import grpc
import pytest
from conftest import DEPLOY
from evaserve_stubs import load_stubs, make_stubs
from programs import Evaserve, Nginx
from tritonclient.grpc import service_pb2, service_pb2_grpc

REPLICAS = 3
CALLERS = 6
PHASE = 60  # requests
TIMEOUT_S = 15
AGE_S = 1  # of connections, after which they end in some tests
LOAD_S = 4  # that calls go on there


def infer_request(request_id: str, max_tokens: int = 60) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name="demo", id=request_id)
    request.inputs.add(
        name="text_input", datatype="BYTES", shape=[1]
    ).contents.bytes_contents.append(b"It is a truth universally acknowledged")
    request.parameters["max_tokens"].int64_param = max_tokens
    request.parameters["ignore_eos"].bool_param = True
    return request


class Load:
    """CALLERS threads that send requests, one after the other, until stop()."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self.numbers = itertools.count()
        self.answered: list[str] = []
        self.errors: list[tuple] = []
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        for thread in self.threads:
            thread.start()

    def _call(self) -> None:
        while not self.stopped.is_set():
            name = f"call-{next(self.numbers)}"
            try:
                self.stub.ModelInfer(infer_request(name), timeout=TIMEOUT_S)
                self.answered.append(name)
            except grpc.RpcError as error:
                self.errors.append((name, error.code(), error.details()))

    def wait_for(self, count: int) -> None:
        """Until so many more requests are answered, or one has failed."""
        goal = len(self.answered) + count
        end = time.monotonic() + TIMEOUT_S
        while len(self.answered) < goal and not self.errors and time.monotonic() < end:
            time.sleep(0.01)
        assert self.errors == []
        assert len(self.answered) >= goal

    def stop(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def answered_by(server: Evaserve) -> list[str]:
    """The requests that the log of a server tells as answered."""
    return re.findall(r" request id=(call-\d+) .* code=OK ", "".join(server.log))


def answers_since(servers: list[Evaserve], before: list[int]) -> list[int]:
    now = [len(answered_by(server)) for server in servers]
    return [count - old for count, old in zip(now, before)]


class HeldStream:
    """A stream of the replica at `target` with a prompt that waits for the rest of its text until
    release(): an answer in flight for as long as that."""

    def __init__(self, stubs: tuple, target: str) -> None:
        self.messages, services = stubs
        self.released = threading.Event()
        self.channel = grpc.insecure_channel(target)
        stub = services.InferenceStub(self.channel)
        self.answers = stub.GenerateStream(self._requests(), timeout=4 * TIMEOUT_S)

    def _requests(self):
        begin = self.messages.GenerateStreamRequest(index=1)
        begin.begin.request.prompt = b"It is a "
        begin.begin.request.stopping.max_new_tokens = 4
        begin.begin.bytes_to_come = 5
        yield begin
        self.released.wait(3 * TIMEOUT_S)
        yield self.messages.GenerateStreamRequest(index=1, piece=b"truth")

    def release(self) -> bytes:
        """The answer. Raises grpc.RpcError if it was cut off."""
        self.released.set()
        with self.channel:
            return b"".join(answer.response.text for answer in self.answers)


@contextlib.contextmanager
def held_stream(stubs: tuple, server: Evaserve):
    stream = HeldStream(stubs, server.target)
    try:
        end = time.monotonic() + TIMEOUT_S
        while server.metric("evaserve_requests_in_flight") == 0:
            assert time.monotonic() < end, "the stream does not arrive"
            time.sleep(0.01)
        yield stream
    finally:
        stream.released.set()
        stream.channel.close()


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stubs")
    make_stubs(folder)
    return load_stubs(folder)


@pytest.fixture
def servers(start_evaserve):
    return [start_evaserve("--drain-pause-s=0.5") for _ in range(REPLICAS)]


def address_of(servers: list[Evaserve]) -> str:
    return f"ipv4:{','.join(server.target for server in servers)}"


def channel_to(target: str, config: str) -> grpc.Channel:
    text = (DEPLOY / "grpc" / config).read_text()
    return grpc.insecure_channel(target, options=[("grpc.service_config", text)])


def no_request_is_lost(channel: grpc.Channel, servers: list[Evaserve]) -> list[list[int]]:
    """Kills the first server and drains the second, while requests run. Returns how many requests
    each answered while all three, two and one were there."""
    shares = []
    load = Load(channel)
    try:
        # Until all connections are there.
        end = time.monotonic() + TIMEOUT_S
        while not all(answered_by(server) for server in servers):
            assert time.monotonic() < end, "not every replica is called"
            load.wait_for(1)
        for end_one in (servers[0].kill, servers[1].terminate, load.stop):
            before = [len(answered_by(server)) for server in servers]
            load.wait_for(PHASE)
            shares.append(answers_since(servers, before))
            end_one()
    finally:
        load.stop()

    assert load.errors == []
    assert servers[1].process.returncode == 0
    assert servers[2].terminate() == 0
    # A log tells a request after its answer, and one of the servers was killed in between.
    told = {name for server in servers for name in answered_by(server)}
    assert len(set(load.answered) - told) <= CALLERS
    return shares


def assert_shares(shares: list[list[int]]) -> None:
    all_three, two, one = shares
    assert min(all_three) >= PHASE / REPLICAS / 2
    assert two[0] == 0
    assert min(two[1:]) >= PHASE / 2 / 2
    assert one[:2] == [0, 0]
    assert one[2] >= PHASE - CALLERS


def test_round_robin_in_the_client(servers):
    with channel_to(address_of(servers), "round_robin.json") as channel:
        shares = no_request_is_lost(channel, servers)
    print(f"requests by replica, round robin: {shares}")
    assert_shares(shares)
    # With all three there, each gets its turn.
    assert max(shares[0]) - min(shares[0]) <= CALLERS


@pytest.fixture
def start_nginx(packages, tmp_path) -> Iterator[Callable[..., Nginx]]:
    """A function that starts nginx, with our configuration, before `servers`. The test's end ends it."""
    with contextlib.ExitStack() as stack:

        def start(*servers: Evaserve) -> Nginx:
            config = (DEPLOY / "nginx" / "evaserve.conf").read_text()
            targets = [server.target for server in servers]
            nginx = Nginx(packages / "usr" / "sbin" / "nginx", config, targets, tmp_path)
            stack.callback(nginx.terminate)
            return nginx

        yield start


def test_nginx(servers, start_nginx):
    with channel_to(start_nginx(*servers).target, "behind_proxy.json") as channel:
        shares = no_request_is_lost(channel, servers)
    print(f"requests by replica, nginx: {shares}")
    assert_shares(shares)


def drains_with_an_answer_in_flight(channel: grpc.Channel, stubs: tuple, server: Evaserve) -> None:
    """Sends requests while `server` drains, which it has to do for as long as they go on. None is
    lost, and its answer in flight neither."""
    with held_stream(stubs, server) as stream:
        load = Load(channel)
        try:
            load.wait_for(PHASE)
            server.process.terminate()
            end = time.monotonic() + TIMEOUT_S
            while "draining" not in "".join(server.log):
                assert time.monotonic() < end, "it does not drain"
                time.sleep(0.01)
            # All of the pause, and well into the drain.
            end = time.monotonic() + 3
            while time.monotonic() < end:
                load.wait_for(PHASE)
            assert server.process.poll() is None, "it did not wait for its answer"
        finally:
            load.stop()
        assert load.errors == []
        assert len(stream.release()) > 0
    assert server.wait() == 0


def test_a_drain_with_an_answer_in_flight_pick_first(servers, stubs):
    """All requests of a client go over one connection, as through a plain Service."""
    with channel_to(address_of(servers), "behind_proxy.json") as channel:
        drains_with_an_answer_in_flight(channel, stubs, servers[0])
    # It was the one that the requests went to.
    assert len(answered_by(servers[0])) >= PHASE


def test_a_drain_with_an_answer_in_flight_nginx(servers, stubs, start_nginx):
    with channel_to(start_nginx(*servers).target, "behind_proxy.json") as channel:
        drains_with_an_answer_in_flight(channel, stubs, servers[0])


def calls_while_connections_end(channel: grpc.Channel) -> Load:
    with channel:
        load = Load(channel)
        end = time.monotonic() + TIMEOUT_S  # of a slow machine
        time.sleep(LOAD_S)
        while len(load.answered) <= PHASE and time.monotonic() < end:
            time.sleep(0.01)
        load.stop()
    assert len(load.answered) > PHASE
    return load


@pytest.fixture
def short_connections(start_evaserve) -> list[Evaserve]:
    """Replicas that close each connection when it is a second old."""
    return [start_evaserve(f"--max-connection-age-s={AGE_S}") for _ in range(REPLICAS)]


def test_a_connection_ends_for_its_age(short_connections):
    states: queue.Queue = queue.Queue()
    with grpc.insecure_channel(short_connections[0].target) as channel:
        channel.subscribe(states.put, try_to_connect=True)
        while states.get(timeout=TIMEOUT_S) != grpc.ChannelConnectivity.READY:
            pass
        assert states.get(timeout=TIMEOUT_S) != grpc.ChannelConnectivity.READY


def test_connections_end_for_their_age_and_no_request_is_lost(short_connections, start_nginx):
    direct = channel_to(address_of(short_connections), "round_robin.json")
    assert calls_while_connections_end(direct).errors == []
    proxied = channel_to(start_nginx(*short_connections).target, "behind_proxy.json")
    assert calls_while_connections_end(proxied).errors == []


def test_without_retries_a_call_at_the_end_of_its_connection_may_be_lost(short_connections):
    """One that starts in that very moment; whoever loses it hears that it can be repeated."""
    options = [("grpc.lb_policy_name", "round_robin"), ("grpc.enable_retries", 0)]
    channel = grpc.insecure_channel(address_of(short_connections), options=options)
    load = calls_while_connections_end(channel)
    assert {code for _, code, _ in load.errors} <= {grpc.StatusCode.UNAVAILABLE}
    assert len(load.errors) < len(load.answered) / 10


def test_nginx_says_unavailable_if_there_is_no_replica(start_evaserve, start_nginx):
    server = start_evaserve()
    server.kill()
    with grpc.insecure_channel(start_nginx(server).target) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            stub.ModelInfer(infer_request("call-0"), timeout=TIMEOUT_S)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    assert error.value.details() == "no replica can be reached"


def test_streams_pass_nginx_as_they_are_made(start_evaserve, start_nginx):
    server = start_evaserve()
    with grpc.insecure_channel(start_nginx(server).target) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        requests = iter([infer_request("call-0", max_tokens=2000)])
        answers = stub.ModelStreamInfer(requests, timeout=TIMEOUT_S)
        assert not next(answers).error_message
        assert not answered_by(server)
        assert len(list(answers)) > 1
