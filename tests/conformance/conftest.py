"""Starts the real server with a tiny random model, once for all tests."""

import os
import pathlib
import re
import subprocess
import sys
import threading

import grpc
import pytest
import tritonclient.grpc as triton

PYTHON_EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "client" / "python"
sys.path.insert(0, str(PYTHON_EXAMPLES))

PROMPTS = [
    b"a",
    b"The quick brown fox",
    b"\xff\xfe not UTF-8 \x80",
    "Zürich, 東京".encode(),
    b"Longer than the window of the model: " * 3,
]
MAX_TOKENS = 40


def pytest_addoption(parser):
    for program in ("evaserve", "eva", "write-random-model"):
        parser.addoption(f"--{program}", required=True, help="path of the program")


class Server:
    """A running evaserve. Its log is read to the end, so that it never waits for us."""

    def __init__(self, program, *args):
        self.process = subprocess.Popen(
            [program, "--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0", *args],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log = []
        for line in self.process.stderr:
            self.log.append(line)
            if ports := re.search(r"grpc=(\S+) metrics=(\S+)", line):
                self.target, self.metrics_target = ports.groups()
                break
        else:
            raise RuntimeError("evaserve did not start:\n" + "".join(self.log))
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr))
        self.reader.start()

    def stop(self):
        self.process.terminate()
        exit_code = self.process.wait()
        self.reader.join()
        return exit_code


@pytest.fixture(scope="session")
def model_dir(pytestconfig, tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    subprocess.run([pytestconfig.getoption("write_random_model"), directory], check=True)
    return directory


@pytest.fixture(scope="session")
def server(pytestconfig, model_dir):
    server = Server(
        pytestconfig.getoption("evaserve"), "--model", f"tiny={model_dir}", "--dtype", "float32"
    )
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="session")
def channel(server):
    with grpc.insecure_channel(server.target) as channel:
        yield channel


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.target) as client:
        yield client


@pytest.fixture(scope="session")
def stubs_dir(tmp_path_factory):
    """The stubs of proto/, made as a user makes them."""
    folder = tmp_path_factory.mktemp("stubs")
    environment = dict(os.environ, PYTHON=sys.executable)
    subprocess.run([PYTHON_EXAMPLES / "make_stubs.sh", folder], check=True, env=environment)
    return folder


@pytest.fixture(scope="session")
def stubs(stubs_dir):
    """Their modules (inference_pb2, inference_pb2_grpc)."""
    sys.path.insert(0, str(stubs_dir))
    from evaserve.v1 import inference_pb2, inference_pb2_grpc

    return inference_pb2, inference_pb2_grpc


@pytest.fixture(scope="session")
def expected(channel, stubs):
    """The answer to every prompt, as the generated stubs get it: others must get the same."""
    pb, pb_grpc = stubs
    stub = pb_grpc.InferenceStub(channel)

    def generate(prompt):
        request = pb.GenerateRequest(
            prompt=prompt,
            sampling=pb.SamplingParameters(temperature=0),
            stopping=pb.StoppingCriteria(max_new_tokens=MAX_TOKENS, ignore_eos=True),
        )
        return b"".join(response.text for response in stub.Generate(request))

    return {prompt: generate(prompt) for prompt in PROMPTS}
