"""Bad input, what is no request at all, and questions."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from caller import OK, Caller, Wrong, expect
from generate_traffic import read_all
from infer_traffic import infer_request
from tritonclient.grpc import service_pb2

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
# What gRPC refuses by itself.
NO_REQUESTS = (
    ("/evaserve.v1.Inference/Score", b"\xff"),
    ("/evaserve.v1.Inference/Nothing", b""),
    ("/no.Service/Nothing", b""),
)


async def bad_generate(caller: Caller) -> None:
    pb = caller.pb
    fields, code = caller.rng.choice(
        [
            ({}, INVALID),
            ({"prompt": b""}, INVALID),
            ({"prompt": bytes(1000)}, INVALID),
            ({"prompt": b"a", "sampling": pb.SamplingParameters(temperature=-1)}, INVALID),
            ({"prompt": b"a", "stopping": pb.StoppingCriteria(stop=[b""])}, INVALID),
            ({"prompt": b"a", "top_logprobs": 5}, INVALID),
            ({"prompt": b"a", "model": "nobody"}, NOT_FOUND),
        ]
    )
    request_id = caller.new_id("bad-generate")
    request = pb.GenerateRequest(**{"model": "tiny", "request_id": request_id, **fields})
    call = read_all(caller.inference.Generate(request))
    await caller.answer(request_id, "Generate", call, allowed=(code,))


def set_parameter(request: service_pb2.ModelInferRequest, name: str, value: int) -> None:
    request.parameters[name].int64_param = value


BAD_CHANGES: tuple[tuple[Callable[[service_pb2.ModelInferRequest], Any], grpc.StatusCode], ...] = (
    (lambda r: r.inputs[0].shape.append(2), INVALID),
    (lambda r: r.inputs[0].contents.bytes_contents.append(b"a"), INVALID),
    (lambda r: setattr(r.inputs[0], "datatype", "FP32"), INVALID),
    (lambda r: setattr(r.inputs[0], "name", "text"), INVALID),
    (lambda r: r.raw_input_contents.append(b"\xff\xff\xff\xffa"), INVALID),
    (lambda r: r.outputs.add(name="logits"), INVALID),
    (lambda r: set_parameter(r, "beams", 3), INVALID),
    (lambda r: set_parameter(r, "max_tokens", 0), INVALID),
    (lambda r: setattr(r, "model_version", "x"), INVALID),
    (lambda r: setattr(r, "model_version", "9"), NOT_FOUND),
    (lambda r: setattr(r, "model_name", "nobody"), NOT_FOUND),
)


async def bad_infer(caller: Caller) -> None:
    change, code = caller.rng.choice(BAD_CHANGES)
    request_id = caller.new_id("bad-infer")
    request = infer_request("tiny", request_id, [b"a"], ("text_output",))
    change(request)
    call = caller.oip.ModelInfer(request)
    await caller.answer(request_id, "ModelInfer", call, allowed=(code,))


async def no_request_at_all(caller: Caller) -> None:
    method, body = caller.rng.choice(NO_REQUESTS)
    request_id = caller.new_id("refused")
    caller.ledger.uncounted.add(request_id)
    try:
        await caller.channel.unary_unary(method)(body, metadata=[("x-request-id", request_id)])
    except grpc.aio.AioRpcError as error:
        refused = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL)
        expect(error.code() in refused, f"{request_id} {method}: {error.code().name}")
    else:
        raise Wrong(f"{request_id} {method}: OK")


async def question(caller: Caller) -> None:
    oip, request_id = caller.oip, caller.new_id("question")
    method, stub, request = caller.rng.choice(
        [
            ("ListModels", caller.inference.ListModels, caller.pb.ListModelsRequest()),
            ("ServerReady", oip.ServerReady, service_pb2.ServerReadyRequest()),
            ("ModelReady", oip.ModelReady, service_pb2.ModelReadyRequest(name="tiny")),
            ("ModelConfig", oip.ModelConfig, service_pb2.ModelConfigRequest(name="demo")),
            ("ModelMetadata", oip.ModelMetadata, service_pb2.ModelMetadataRequest(name="demo")),
            ("ModelStatistics", oip.ModelStatistics, service_pb2.ModelStatisticsRequest()),
            ("RepositoryIndex", oip.RepositoryIndex, service_pb2.RepositoryIndexRequest()),
        ]
    )
    call: Awaitable = stub(request, metadata=[("x-request-id", request_id)])
    answer = await caller.answer(request_id, method, call, allowed=(OK,))
    if method == "ListModels":
        states = {model.name: model.state for model in answer.models}
        expect(states["tiny"] == states["demo"] == "READY", f"{request_id}: {states}")
    elif method == "ModelReady":
        expect(answer.ready, f"{request_id}: tiny is not ready")


async def not_supported(caller: Caller) -> None:
    request_id = caller.new_id("trace")
    call = caller.oip.TraceSetting(
        service_pb2.TraceSettingRequest(), metadata=[("x-request-id", request_id)]
    )
    await caller.answer(request_id, "TraceSetting", call, (grpc.StatusCode.UNIMPLEMENTED,))
