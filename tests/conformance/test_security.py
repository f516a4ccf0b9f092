"""TLS, client certificates and tokens, with the examples and the public clients.

Certificates are made by the commands of docs/security.md.
"""

import os
import pathlib
import re
import subprocess
import sys
import time

import grpc
import pytest
import tritonclient.grpc as triton
from conftest import PYTHON_EXAMPLES
from evaserve_program import Evaserve
from generate_tritonclient import generate, text_input
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tritonclient.utils import InferenceServerException

SECURITY_PAGE = PYTHON_EXAMPLES.parents[1] / "docs" / "security.md"
PARAMETERS = {"max_tokens": 20, "temperature": 0.0, "ignore_eos": True}


def commands_of_the_page() -> str:
    """Those that make certificates, in a shell block of their own."""
    blocks = re.findall(r"```sh\n(.*?)```", SECURITY_PAGE.read_text(), re.DOTALL)
    (commands,) = (block for block in blocks if "openssl req" in block)
    return commands


@pytest.fixture(scope="module")
def files(pytestconfig, tmp_path_factory):
    """A folder with certificates, a token, and the server's list of tokens."""
    folder = tmp_path_factory.mktemp("security")
    subprocess.run(
        ["bash", "-euc", commands_of_the_page()], cwd=folder, check=True, capture_output=True
    )
    made = subprocess.run(
        [pytestconfig.getoption("eva"), "token", "alice", "--may-use", "tiny"],
        capture_output=True,
        check=True,
    )
    (folder / "tokens").write_bytes(made.stdout)
    (folder / "alice.token").write_bytes(made.stderr)
    return folder


@pytest.fixture(scope="module")
def secure_server(pytestconfig, model_dir, files):
    running = Evaserve(
        pytestconfig.getoption("evaserve"),
        *("--model", f"tiny={model_dir}", "--dtype", "float32"),
        *("--tls-cert", files / "server.pem", "--tls-key", files / "server.key"),
        *("--tls-client-ca", files / "ca.pem", "--auth-tokens", files / "tokens"),
    )
    yield running
    assert running.terminate() == 0


@pytest.fixture(scope="module")
def tls(files):
    return grpc.ssl_channel_credentials(
        root_certificates=(files / "ca.pem").read_bytes(),
        private_key=(files / "client.key").read_bytes(),
        certificate_chain=(files / "client.pem").read_bytes(),
    )


@pytest.fixture(scope="module")
def headers(files):
    return {"authorization": "Bearer " + (files / "alice.token").read_text().strip()}


@pytest.fixture
def secure_client(secure_server, tls):
    with triton.InferenceServerClient(secure_server.target, creds=tls) as client:
        yield client


def flags(files: pathlib.Path) -> list[str]:
    return [
        *("--tls-ca", str(files / "ca.pem"), "--tls-cert", str(files / "client.pem")),
        *("--tls-key", str(files / "client.key"), "--token-file", str(files / "alice.token")),
    ]


def test_tritonclient(secure_client, headers):
    result = secure_client.infer(
        "tiny", [text_input(b"Hello")], parameters=PARAMETERS, headers=headers
    )
    text = result.as_numpy("text_output")[0]
    assert text
    assert b"".join(generate(secure_client, "tiny", b"Hello", PARAMETERS, headers)) == text


def test_tritonclient_without_a_token(secure_client):
    assert secure_client.is_server_live()
    assert secure_client.is_server_ready()
    with pytest.raises(InferenceServerException) as error:
        secure_client.infer("tiny", [text_input(b"Hello")])
    assert error.value.status() == "StatusCode.UNAUTHENTICATED"


def test_another_model_is_not_this_tokens(secure_client, headers):
    with pytest.raises(InferenceServerException) as error:
        secure_client.get_model_metadata("other", headers=headers)
    assert error.value.status() == "StatusCode.PERMISSION_DENIED"


def test_a_client_without_a_certificate(secure_server, files):
    half = grpc.ssl_channel_credentials(root_certificates=(files / "ca.pem").read_bytes())
    with grpc.secure_channel(secure_server.target, half) as channel:
        with pytest.raises(grpc.RpcError) as error:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE


def test_health_needs_no_token(secure_server, tls):
    with grpc.secure_channel(secure_server.target, tls) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_needs_a_token(secure_server, tls):
    with grpc.secure_channel(secure_server.target, tls) as channel:
        with pytest.raises(grpc.RpcError) as error:
            ProtoReflectionDescriptorDatabase(channel).get_services()
    assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_the_examples_and_eva_agree(pytestconfig, secure_server, stubs_dir, files):
    common = ["--server", secure_server.target, "--max-tokens", "20", "--temperature", "0"]
    environment = dict(os.environ, PYTHONPATH=str(stubs_dir))

    def run(*command):
        command = [*command, *common, *flags(files)]
        return subprocess.run(command, capture_output=True, check=True, env=environment).stdout

    text = run(sys.executable, PYTHON_EXAMPLES / "generate_stubs.py", "Hello")
    assert text
    triton_example = PYTHON_EXAMPLES / "generate_tritonclient.py"
    assert run(sys.executable, triton_example, "Hello", "--model", "tiny") == text
    assert run(pytestconfig.getoption("eva"), "generate", "Hello") == text


@pytest.mark.parametrize("example", ["generate_stubs.py", "generate_tritonclient.py"])
def test_the_examples_give_no_token_away(stubs_dir, example):
    command = [sys.executable, PYTHON_EXAMPLES / example, "Hello", "--server", "192.0.2.1:8001"]
    command += ["--model", "tiny"] if "triton" in example else []
    environment = dict(os.environ, PYTHONPATH=str(stubs_dir), EVA_TOKEN="some-token")
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert run.returncode == 1
    assert "overheard" in run.stderr
    assert "some-token" not in run.stderr


def test_no_secret_is_in_the_log(secure_server, secure_client, headers):
    secure_client.infer("tiny", [text_input(b"Hello")], headers=headers, request_id="the last")
    deadline = time.monotonic() + 10
    while not any("the last" in line for line in secure_server.log):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    log = "".join(secure_server.log)
    assert "client=alice" in log
    assert headers["authorization"].removeprefix("Bearer ") not in log
    assert "PRIVATE" not in log
