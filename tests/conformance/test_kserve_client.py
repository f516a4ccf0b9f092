"""KServe's own client, unchanged: each of its calls works, or is refused with a reason.

Runs in a Python of its own, with requirements-kserve.txt.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy
import pytest
from conftest import MAX_TOKENS, PROMPTS
from kserve import InferenceGRPCClient, InferInput, InferRequest, InferResponse
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc
from kserve.protocol.infer_type import RequestedOutput

# The client sends no fractions.
PARAMETERS = {"max_tokens": MAX_TOKENS, "temperature": 0, "ignore_eos": True}


@pytest.fixture
def call(server):
    """Runs a function of the client to its end."""

    def run(function: Callable[[InferenceGRPCClient], Awaitable]) -> Any:
        async def with_client() -> Any:
            async with InferenceGRPCClient(server.target) as client:
                return await function(client)

        return asyncio.run(with_client())

    return run


@pytest.fixture
def infer(call):
    def run(*inputs: InferInput, model: str = "tiny", **options: Any) -> InferResponse:
        options.setdefault("parameters", PARAMETERS)
        return call(lambda client: client.infer(InferRequest(model, list(inputs), **options)))

    return run


@pytest.fixture
def refused(infer):
    """Asserts that the request fails with `message` in its text; returns the code's name."""

    def run(message: str, *inputs: InferInput, **options: Any) -> str:
        with pytest.raises(grpc.RpcError) as error:
            infer(*inputs, **options)
        assert message in error.value.details()
        return error.value.code().name

    return run


def text_input(*texts: bytes, shape: list[int] | None = None) -> InferInput:
    return InferInput("text_input", shape or [len(texts)], "BYTES", data=list(texts))


def test_live_and_ready(call):
    assert call(lambda client: client.is_server_live())
    assert call(lambda client: client.is_server_ready())
    assert call(lambda client: client.is_model_ready("tiny"))
    assert not call(lambda client: client.is_model_ready("other"))


@pytest.mark.parametrize("prompt", PROMPTS)
def test_infer(infer, expected, prompt):
    response = infer(text_input(prompt), request_id="call-7")
    assert response.id == "call-7"
    assert response.outputs[0].as_numpy().tolist() == [expected[prompt]]
    parameters = response.parameters
    assert parameters["finish_reason"].string_param == "length"
    assert parameters["new_tokens"].int64_param == MAX_TOKENS


def test_a_batch(infer, expected):
    response = infer(text_input(*PROMPTS))
    assert response.outputs[0].as_numpy().tolist() == list(expected.values())


def test_text_from_numpy(infer, expected):
    tensor = InferInput("text_input", [1], "BYTES")
    tensor.set_data_from_numpy(numpy.array([PROMPTS[1]], dtype=object), binary_data=False)
    assert infer(tensor).outputs[0].as_numpy().tolist() == [expected[PROMPTS[1]]]


def test_binary_data_from_numpy(infer, expected):
    """As set_data_from_numpy() does it unless told otherwise."""
    tensor = InferInput("text_input", [len(PROMPTS)], "BYTES")
    tensor.set_data_from_numpy(numpy.array(PROMPTS, dtype=object), binary_data=True)
    assert infer(tensor).outputs[0].as_numpy().tolist() == list(expected.values())


def test_a_fraction_as_parameter(infer):
    parameters = {**PARAMETERS, "temperature": "0.7", "top_p": "0.5", "seed": 3}
    texts = {
        infer(text_input(b"a"), parameters=parameters).outputs[0].as_numpy()[0] for _ in range(3)
    }
    assert len(texts) == 1


def test_other_outputs(infer):
    wanted = [RequestedOutput(name) for name in ("embedding", "bits_per_byte")]
    response = infer(text_input(b"a", b"bc"), request_outputs=wanted)
    embedding, bits = response.outputs
    assert (embedding.name, embedding.datatype) == ("embedding", "FP32")
    assert numpy.linalg.norm(embedding.as_numpy(), axis=1) == pytest.approx([1, 1], rel=1e-4)
    assert (bits.name, bits.datatype, bits.shape) == ("bits_per_byte", "FP64", [2])
    assert (bits.as_numpy() > 0).all()


def test_wrong_tensors_are_refused(refused):
    numbers = InferInput("text_input", [1], "FP32", data=[1.0])
    other_name = InferInput("text", [1], "BYTES", data=[b"a"])
    too_few = text_input(b"a", shape=[2])
    assert refused("shape", text_input(b"a", shape=[1, 1, 1])) == "INVALID_ARGUMENT"
    assert refused("text_input", too_few) == "INVALID_ARGUMENT"
    assert refused("FP32", numbers) == "INVALID_ARGUMENT"
    assert refused("text", other_name) == "INVALID_ARGUMENT"
    assert refused("empty", text_input(b"")) == "INVALID_ARGUMENT"
    assert refused("text_input") == "INVALID_ARGUMENT"


def test_wrong_names_and_values_are_refused(refused):
    text = text_input(b"a")
    assert refused("other", text, model="other") == "NOT_FOUND"
    assert refused("beams", text, parameters={"beams": 3}) == "INVALID_ARGUMENT"
    assert refused("max_tokens", text, parameters={"max_tokens": 0}) == "INVALID_ARGUMENT"
    assert refused("temperature", text, parameters={"temperature": -1}) == "INVALID_ARGUMENT"


@pytest.fixture
def stub(channel):
    """Of the methods for which the client has stubs only."""
    return pb_grpc.GRPCInferenceServiceStub(channel)


def test_metadata(stub):
    assert stub.ServerMetadata(pb.ServerMetadataRequest()).name == "evaserve"
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny"))
    assert [(t.name, t.datatype) for t in metadata.inputs] == [("text_input", "BYTES")]


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_models_that_are_fixed_say_so(stub, method):
    with pytest.raises(grpc.RpcError) as error:
        getattr(stub, method)(getattr(pb, f"{method}Request")(model_name="tiny"))
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "--model-control-mode" in error.value.details()
