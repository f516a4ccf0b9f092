"""Loading, unloading, versions, statistics and settings through tritonclient, unchanged."""

import asyncio
import json
import queue
import shutil
import threading
import urllib.error
import urllib.request

import grpc
import numpy
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from evaserve_program import Evaserve
from generate_tritonclient import text_input
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException


@pytest.fixture(scope="module")
def repository(model_dir, tmp_path_factory):
    """A repository with the versions 1 and 2 of "many", and "flat", which is not loaded."""
    path = tmp_path_factory.mktemp("repository")
    for place in ("flat", "many/1", "many/2"):
        shutil.copytree(model_dir, path / place)
    (path / "many" / "serving.json").write_text('{"version_policy": {"all": {}}}')
    return path


@pytest.fixture(scope="module")
def server(pytestconfig, repository):
    options = ("--model-control-mode=explicit", "--load-model=many")
    program = pytestconfig.getoption("evaserve")
    running = Evaserve(program, f"--model-repository={repository}", *options)
    yield running
    assert running.terminate() == 0


@pytest.fixture(scope="module")
def client(server):
    return triton.InferenceServerClient(server.target)


def states(client):
    index = client.get_model_repository_index().models
    return {(m.name, m.version): (m.state, m.reason) for m in index}


def wait_until(condition):
    for _ in range(200):
        if condition():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it did not come to that in 10 s")


def test_index_names_what_is_loaded_and_what_is_not(client):
    assert states(client) == {
        ("flat", ""): ("UNAVAILABLE", "not loaded"),
        ("many", "1"): ("READY", ""),
        ("many", "2"): ("READY", ""),
    }


def test_versions(client):
    assert list(client.get_model_metadata("many").versions) == ["1", "2"]
    newest = client.infer("many", [text_input(b"a")])
    oldest = client.infer("many", [text_input(b"a")], model_version="1")
    assert newest.get_response().model_version == "2"
    assert oldest.get_response().model_version == "1"
    with pytest.raises(InferenceServerException, match="no version 3; there are: 1, 2"):
        client.infer("many", [text_input(b"a")], model_version="3")
    with pytest.raises(InferenceServerException, match="model_version: got 'x'"):
        client.infer("many", [text_input(b"a")], model_version="x")


def test_load_and_unload(client):
    client.load_model("flat")
    assert client.is_model_ready("flat")
    assert states(client)["flat", "1"] == ("READY", "")
    client.unload_model("flat")
    assert not client.is_model_ready("flat")
    wait_until(lambda: states(client)["flat", "1"] == ("UNAVAILABLE", "unloaded"))
    with pytest.raises(InferenceServerException, match="unloaded") as error:
        client.infer("flat", [text_input(b"a")])
    assert error.value.status() == "StatusCode.UNAVAILABLE"


def test_load_with_settings(client):
    client.load_model("flat", config=json.dumps({"max_new_tokens": 3}))
    with pytest.raises(InferenceServerException, match="the limit is 3"):
        client.infer("flat", [text_input(b"a")], parameters={"max_tokens": 4})
    config = client.get_model_config("flat").config
    assert config.parameters["max_new_tokens"].string_value == "3"
    client.load_model("flat")
    client.infer("flat", [text_input(b"a")], parameters={"max_tokens": 4})
    client.unload_model("flat")
    wait_until(lambda: states(client)["flat", "1"][0] == "UNAVAILABLE")


@pytest.mark.parametrize(
    "name, config, message",
    [
        ("nobody", None, "has no .nobody.; there are: flat, many"),
        ("../flat", None, "model_name"),
        ("flat", "{", "config"),
        ("flat", '{"max_runing": 1}', "max_runing"),
    ],
)
def test_refused_loads_say_why(client, name, config, message):
    with pytest.raises(InferenceServerException, match=message):
        client.load_model(name, config=config)


def test_a_broken_model_keeps_the_one_before(client, repository):
    client.load_model("flat")
    weights = repository / "flat" / "model.safetensors"
    good = weights.read_bytes()
    weights.unlink()  # the server has it mapped, so it must not be cut
    weights.write_bytes(good[:1000])
    with pytest.raises(InferenceServerException, match="truncated"):
        client.load_model("flat")
    state, reason = states(client)["flat", "1"]
    assert state == "READY" and "truncated" in reason
    client.infer("flat", [text_input(b"a")], parameters={"max_tokens": 1})
    weights.unlink()
    weights.write_bytes(good)
    client.load_model("flat")
    assert states(client)["flat", "1"] == ("READY", "")


def test_others_lose_nothing_while_models_come_and_go(client, server):
    failures, counts = [], []
    done = threading.Event()

    def ask():
        own = triton.InferenceServerClient(server.target)
        while not done.is_set():
            try:
                own.infer("many", [text_input(b"The quick")], parameters={"max_tokens": 5})
                counts.append(1)
            except Exception as error:  # what it was is told by the assertion below
                failures.append(error)
                return

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    for _ in range(5):
        client.load_model("many", config="{}")
        client.load_model("many", config=json.dumps({"max_running": 7}))
    done.set()
    for asker in askers:
        asker.join()
    assert not failures
    assert len(counts) > 10


def test_statistics(client):
    before = client.get_inference_statistics("many", "2").model_stats[0]
    for _ in range(3):
        client.infer("many", [text_input(b"a")], parameters={"max_tokens": 2})
    after = client.get_inference_statistics("many", "2").model_stats[0]
    assert after.inference_count - before.inference_count == 3
    assert after.execution_count > before.execution_count
    assert after.inference_stats.success.count - before.inference_stats.success.count == 3
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert after.last_inference > 1_700_000_000_000
    assert after.batch_stats[0].compute_infer.count > 0


def test_statistics_count_requests_and_their_elements(client):
    before = client.get_inference_statistics("many", "2").model_stats[0]
    texts = triton.InferInput("text_input", [4], "BYTES")
    texts.set_data_from_numpy(numpy.array([b"a", b"b", b"c", b"d"], dtype=object))
    client.infer("many", [texts], parameters={"max_tokens": 2})
    with pytest.raises(InferenceServerException):
        client.infer("many", [text_input(b"a")], parameters={"max_tokens": -1})
    after = client.get_inference_statistics("many", "2").model_stats[0]
    sums, past = after.inference_stats, before.inference_stats
    assert after.inference_count - before.inference_count == 4
    assert sums.success.count - past.success.count == 1
    assert sums.queue.count - past.queue.count == 1
    assert sums.fail.count - past.fail.count == 1


def test_model_config(client):
    config = client.get_model_config("many").config
    assert (config.name, config.backend, config.max_batch_size) == ("many", "evaserve", 0)
    assert [tensor.name for tensor in config.input] == ["text_input"]
    assert config.dynamic_batching.priority_levels == 15


def test_log_settings(client, server):
    assert client.get_log_settings().settings["log_info"].bool_param
    client.update_log_settings({"log_info": False})
    assert not client.get_log_settings().settings["log_info"].bool_param
    client.update_log_settings({"log_info": True})
    with pytest.raises(InferenceServerException, match="log_file"):
        client.update_log_settings({"log_file": "/tmp/x"})


def test_a_model_is_loaded_while_the_one_before_unloads(client):
    client.load_model("flat")
    pieces = queue.SimpleQueue()
    client.start_stream(lambda result, error: pieces.put(error or result))
    client.async_stream_infer(
        "flat", [text_input(b"a")], parameters={"max_tokens": 2000, "ignore_eos": True}
    )
    pieces.get(timeout=10)
    client.unload_model("flat")
    client.load_model("flat")
    assert states(client)["flat", "1"] == ("READY", "")
    client.infer("flat", [text_input(b"a")], parameters={"max_tokens": 1})
    client.stop_stream(cancel_requests=True)
    client.unload_model("flat")
    wait_until(lambda: states(client)["flat", "1"] == ("UNAVAILABLE", "unloaded"))


def test_a_broken_repository_is_not_ready(pytestconfig, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("{")
    program = pytestconfig.getoption("evaserve")
    options = (f"--model-repository={tmp_path}", "--model-control-mode=explicit", "--load-model=*")
    strict = Evaserve(program, *options)
    assert " not ready " in strict.log[-1] and "missing: bad" in strict.log[-1]
    client = triton.InferenceServerClient(strict.target)
    assert client.is_server_live()
    assert not client.is_server_ready()
    with pytest.raises(urllib.error.HTTPError, match="503"):
        urllib.request.urlopen(f"http://{strict.metrics_target}/readyz", timeout=10)
    client.unload_model("bad")
    assert client.is_server_ready()
    assert strict.terminate() == 0
    assert any(" ready " in line and " not ready " not in line for line in strict.log)
    lax = Evaserve(program, *options, "--strict-readiness=false")
    assert triton.InferenceServerClient(lax.target).is_server_ready()
    assert lax.terminate() == 0


def in_shared_memory(name):
    tensor = triton.InferInput("text_input", [1], "BYTES")
    tensor.set_shared_memory(name, 5)
    return tensor


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.load_model("flat", config="{}", files={"file:1/config.json": b"{}"}),
        lambda client: client.infer("many", [in_shared_memory("a")]),
        lambda client: client.infer("many", [text_input(b"a")], sequence_id=1, sequence_start=True),
        lambda client: client.get_trace_settings(),
        lambda client: client.get_system_shared_memory_status(),
        lambda client: client.register_system_shared_memory("a", "/a", 16),
        lambda client: client.unregister_system_shared_memory("a"),
        lambda client: client.get_cuda_shared_memory_status(),
        lambda client: client.unregister_cuda_shared_memory("a"),
    ],
)
def test_what_is_not_supported_says_so(client, call):
    with pytest.raises(InferenceServerException) as error:
        call(client)
    assert error.value.status() == "StatusCode.UNIMPLEMENTED"
    assert error.value.message()


def test_an_unload_takes_no_parameter_but_tritons(client, server):
    client.load_model("flat")
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(server.target))
    request = service_pb2.RepositoryModelUnloadRequest(model_name="flat")
    request.parameters["unload_dependants"].bool_param = True
    with pytest.raises(grpc.RpcError, match="unload_dependants.*allowed is unload_dependents"):
        stub.RepositoryModelUnload(request)
    client.unload_model("flat", unload_dependents=True)
    assert not client.is_model_ready("flat")


def test_asyncio(server):
    async def run():
        async with triton_aio.InferenceServerClient(server.target) as client:
            assert await client.is_server_ready()
            assert await client.is_model_ready("many")
            index = await client.get_model_repository_index()
            assert {model.name for model in index.models} == {"flat", "many"}
            requests = [
                client.infer(
                    "many",
                    [text_input(b"abc")],
                    parameters={"max_tokens": n, "ignore_eos": True},
                )
                for n in range(1, 9)
            ]
            results = await asyncio.gather(*requests)
            parameters = [result.get_response().parameters for result in results]
            return [one["new_tokens"].int64_param for one in parameters]

    assert asyncio.run(run()) == list(range(1, 9))


def test_fixed_models_are_not_unloaded_by_clients(pytestconfig, model_dir):
    fixed = Evaserve(pytestconfig.getoption("evaserve"), "--model", f"tiny={model_dir}")
    client = triton.InferenceServerClient(fixed.target)
    for call in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="model-control-mode") as error:
            call("tiny")
        assert error.value.status() == "StatusCode.UNIMPLEMENTED"
    assert client.is_model_ready("tiny")
    assert fixed.terminate() == 0
