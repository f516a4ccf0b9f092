"""MLServer's stubs, codecs and converters, from which its users make their clients, unchanged.
Its ModelStreamInfer is left out: there the messages are others than Triton's.

Runs in a Python of its own, with requirements-mlserver.txt.
"""

from typing import Any

import grpc
import pytest
from conftest import MAX_TOKENS, PROMPTS
from mlserver.codecs import StringCodec
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc import dataplane_pb2_grpc as pb_grpc
from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    RequestInput,
    RequestOutput,
)

# The converters drop fractions.
PARAMETERS = {"max_tokens": MAX_TOKENS, "temperature": 0, "ignore_eos": True}


@pytest.fixture
def stub(channel):
    return pb_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture
def infer(stub):
    def run(*inputs: RequestInput, use_raw: bool = False, **options: Any) -> InferenceResponse:
        parameters = Parameters(**options.pop("parameters", PARAMETERS))
        request = InferenceRequest(inputs=list(inputs), parameters=parameters, **options)
        sent = ModelInferRequestConverter.from_types(request, model_name="tiny", use_raw=use_raw)
        return ModelInferResponseConverter.to_types(stub.ModelInfer(sent))

    return run


@pytest.fixture
def refused(infer):
    """Asserts that the request fails with `message` in its text; returns the code's name."""

    def run(message: str, *inputs: RequestInput, **options: Any) -> str:
        with pytest.raises(grpc.RpcError) as error:
            infer(*inputs, **options)
        assert message in error.value.details()
        return error.value.code().name

    return run


def text_input(*texts: bytes, shape: list[int] | None = None) -> RequestInput:
    shape = shape or [len(texts)]
    return RequestInput(name="text_input", shape=shape, datatype="BYTES", data=list(texts))


def test_live_and_ready(stub):
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    assert stub.ModelReady(pb.ModelReadyRequest(name="tiny")).ready
    assert not stub.ModelReady(pb.ModelReadyRequest(name="other")).ready
    assert stub.ServerMetadata(pb.ServerMetadataRequest()).name == "evaserve"


def test_model_metadata(stub):
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny"))
    assert [(t.name, t.datatype) for t in metadata.inputs] == [("text_input", "BYTES")]


def test_infer(infer, expected):
    response = infer(text_input(*PROMPTS), id="call-7")
    assert response.id == "call-7"
    assert list(response.outputs[0].data) == list(expected.values())


def test_raw_contents(infer, expected):
    response = infer(text_input(*PROMPTS), use_raw=True)
    assert list(response.outputs[0].data) == list(expected.values())


def test_the_codec_for_strings(infer, expected):
    texts = [PROMPTS[1].decode(), PROMPTS[3].decode()]
    response = infer(StringCodec.encode_input("text_input", texts))
    assert list(response.outputs[0].data) == [expected[PROMPTS[1]], expected[PROMPTS[3]]]


def test_a_fraction_as_parameter(infer):
    parameters = {**PARAMETERS, "temperature": "0.7", "top_p": "0.5", "seed": 3}
    texts = {infer(text_input(b"a"), parameters=parameters).outputs[0].data[0] for _ in range(3)}
    assert len(texts) == 1


def test_other_outputs(infer):
    wanted = [RequestOutput(name=name) for name in ("embedding", "bits_per_byte")]
    embedding, bits = infer(text_input(b"a", b"bc"), outputs=wanted).outputs
    assert (embedding.name, embedding.datatype, embedding.shape[0]) == ("embedding", "FP32", 2)
    assert sum(x * x for x in embedding.data) == pytest.approx(2, rel=1e-4)
    assert (bits.name, bits.datatype, bits.shape) == ("bits_per_byte", "FP64", [2])
    assert min(bits.data) > 0


def test_wrong_requests_are_refused(refused):
    text = text_input(b"a")
    numbers = RequestInput(name="text_input", shape=[1], datatype="FP32", data=[1.0])
    assert refused("shape", text_input(b"a", shape=[1, 1, 1])) == "INVALID_ARGUMENT"
    assert refused("FP32", numbers) == "INVALID_ARGUMENT"
    assert refused("text_input") == "INVALID_ARGUMENT"
    assert refused("beams", text, parameters={"beams": 3}) == "INVALID_ARGUMENT"
    assert refused("max_tokens", text, parameters={"max_tokens": 0}) == "INVALID_ARGUMENT"


def test_the_repository(stub):
    index = stub.RepositoryIndex(pb.RepositoryIndexRequest()).models
    assert [(model.name, model.state) for model in index] == [("tiny", "READY")]
    for call, request in (
        (stub.RepositoryModelLoad, pb.RepositoryModelLoadRequest),
        (stub.RepositoryModelUnload, pb.RepositoryModelUnloadRequest),
    ):
        with pytest.raises(grpc.RpcError) as error:
            call(request(model_name="tiny"))
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert "--model-control-mode" in error.value.details()
