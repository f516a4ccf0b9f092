"""Starts the real server with a tiny random model, once for all tests."""

import importlib.util
import pathlib
import subprocess

import grpc
import pytest
from evaserve_program import Evaserve
from evaserve_stubs import load_stubs, make_stubs
from victim import (
    LIMIT_MB,
    RECEIVE_MIB,
    SOON_S,
    SOON_SANITIZED_S,
    Victim,
    all_files_allowed,
    wait_until,
)

PYTHON_EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "client" / "python"

PROMPTS = [
    b"a",
    b"The quick brown fox",
    b"\xff\xfe not UTF-8 \x80",
    "Zürich, 東京".encode(),
    b"Longer than the window of the model: " * 3,
]
MAX_TOKENS = 40

# Their stubs have the same names as tritonclient's, so each of these has a Python of its own.
OTHER_CLIENTS = ("kserve", "mlserver")
collect_ignore = [
    f"test_{name}_client.py" for name in OTHER_CLIENTS if not importlib.util.find_spec(name)
]


def pytest_addoption(parser):
    for program in ("evaserve", "eva", "write-random-model"):
        parser.addoption(f"--{program}", required=True, help="path of the program")
    parser.addoption("--api-example", help="path of the program, for the test of it")
    parser.addoption(
        "--sanitized", action="store_true", help="of a sanitizer's build memory says nothing"
    )


@pytest.fixture(scope="session")
def model_dir(pytestconfig, tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    subprocess.run([pytestconfig.getoption("write_random_model"), directory], check=True)
    return directory


@pytest.fixture(scope="session")
def server(pytestconfig, model_dir):
    server = Evaserve(
        pytestconfig.getoption("evaserve"), "--model", f"tiny={model_dir}", "--dtype", "float32"
    )
    yield server
    assert server.terminate() == 0


@pytest.fixture(scope="session")
def channel(server):
    with grpc.insecure_channel(server.target) as channel:
        yield channel


@pytest.fixture
def client(server):
    import tritonclient.grpc as triton  # not beside another client's stubs of the same protocol

    with triton.InferenceServerClient(server.target) as client:
        yield client


@pytest.fixture(scope="session")
def stubs_dir(tmp_path_factory):
    """The stubs of proto/, made as a user makes them."""
    folder = tmp_path_factory.mktemp("stubs")
    make_stubs(folder)
    return folder


@pytest.fixture(scope="session")
def stubs(stubs_dir):
    """Their modules (inference_pb2, inference_pb2_grpc)."""
    return load_stubs(stubs_dir)


def generate_greedily(channel, stubs, prompt, **call_options):
    """The whole answer to `prompt`, through the generated stubs."""
    pb, pb_grpc = stubs
    request = pb.GenerateRequest(
        prompt=prompt,
        sampling=pb.SamplingParameters(temperature=0),
        stopping=pb.StoppingCriteria(max_new_tokens=MAX_TOKENS, ignore_eos=True),
    )
    answer = pb_grpc.InferenceStub(channel).Generate(request, **call_options)
    return b"".join(response.text for response in answer)


@pytest.fixture(scope="session")
def expected(channel, stubs):
    """The answer to every prompt, as the generated stubs get it: others must get the same."""
    return {prompt: generate_greedily(channel, stubs, prompt) for prompt in PROMPTS}


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
