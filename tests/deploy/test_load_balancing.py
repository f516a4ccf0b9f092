"""Three replicas, of which one is killed and one drained under way: no request is lost."""

import itertools
import re
import threading
import time

import grpc
import pytest
from conftest import DEPLOY
from programs import Evaserve, Nginx
from tritonclient.grpc import service_pb2, service_pb2_grpc

REPLICAS = 3
CALLERS = 6
PHASE = 60  # requests
TIMEOUT_S = 15


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


@pytest.fixture
def servers(start_evaserve):
    return [start_evaserve("--drain-pause-s=0.5") for _ in range(REPLICAS)]


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
    addresses = ",".join(server.target for server in servers)
    with channel_to(f"ipv4:{addresses}", "round_robin.json") as channel:
        shares = no_request_is_lost(channel, servers)
    print(f"requests by replica, round robin: {shares}")
    assert_shares(shares)
    # With all three there, each gets its turn.
    assert max(shares[0]) - min(shares[0]) <= CALLERS


def test_nginx(servers, packages, tmp_path):
    nginx = Nginx(
        packages / "usr" / "sbin" / "nginx",
        (DEPLOY / "nginx" / "evaserve.conf").read_text(),
        [server.target for server in servers],
        tmp_path,
    )
    try:
        with channel_to(nginx.target, "behind_proxy.json") as channel:
            shares = no_request_is_lost(channel, servers)
        print(f"requests by replica, nginx: {shares}")
        assert_shares(shares)
    finally:
        nginx.terminate()


def load_without_retries(target: str, seconds: float) -> Load:
    """What CALLERS have to tell after so long, if nobody sends a request twice for them."""
    options = [("grpc.lb_policy_name", "round_robin"), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(target, options=options) as channel:
        load = Load(channel)
        time.sleep(seconds)
        load.stop()
    return load


def test_connections_may_end_for_their_age(start_evaserve, packages, tmp_path):
    """Each replica closes every connection once a second, while requests run."""
    servers = [start_evaserve("--max-connection-age-s=1") for _ in range(REPLICAS)]
    targets = [server.target for server in servers]
    direct = load_without_retries(f"ipv4:{','.join(targets)}", seconds=4)
    config = (DEPLOY / "nginx" / "evaserve.conf").read_text()
    nginx = Nginx(packages / "usr" / "sbin" / "nginx", config, targets, tmp_path)
    try:
        through_nginx = load_without_retries(nginx.target, seconds=4)
    finally:
        nginx.terminate()

    assert direct.errors == []
    assert through_nginx.errors == []
    assert min(len(direct.answered), len(through_nginx.answered)) > PHASE


def test_nginx_says_unavailable_if_there_is_no_replica(packages, tmp_path, start_evaserve):
    server = start_evaserve()
    server.kill()
    config = (DEPLOY / "nginx" / "evaserve.conf").read_text()
    nginx = Nginx(packages / "usr" / "sbin" / "nginx", config, [server.target], tmp_path)
    try:
        with grpc.insecure_channel(nginx.target) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            with pytest.raises(grpc.RpcError) as error:
                stub.ModelInfer(infer_request("call-0"), timeout=TIMEOUT_S)
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        assert error.value.details() == "no replica can be reached"
    finally:
        nginx.terminate()


def test_streams_pass_nginx_as_they_are_made(packages, tmp_path, start_evaserve):
    server = start_evaserve()
    config = (DEPLOY / "nginx" / "evaserve.conf").read_text()
    nginx = Nginx(packages / "usr" / "sbin" / "nginx", config, [server.target], tmp_path)
    try:
        with grpc.insecure_channel(nginx.target) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            requests = iter([infer_request("call-0", max_tokens=2000)])
            answers = stub.ModelStreamInfer(requests, timeout=TIMEOUT_S)
            assert not next(answers).error_message
            assert not answered_by(server)
            assert len(list(answers)) > 1
    finally:
        nginx.terminate()
