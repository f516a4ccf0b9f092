"""ModelStreamInfer: several requests in flight on one stream, of all kinds."""

import asyncio
import dataclasses

import grpc
from answers import LONGEST, Generation, Text
from caller import OK, Caller, expect, expect_same_text
from infer_traffic import (
    MODELS,
    SCORES,
    bytes_of,
    check_scores,
    generations_request,
    infer_request,
)
from tritonclient.grpc import service_pb2

MOST_REQUESTS = 12
METHOD = "ModelStreamInfer"


@dataclasses.dataclass
class StreamRequest:
    """One of a stream's requests, and what came for it so far."""

    request: service_pb2.ModelInferRequest
    generation: Generation | None = None  # of which one is asked for, in pieces ...
    length: int = 0
    text: Text | None = None  # ... or SCORES of this, in one message ...
    code: str = "OK"  # ... or this error
    received: bytes = b""
    is_over: bool = False


def make_request(caller: Caller) -> StreamRequest:
    draw = caller.rng.random()
    if draw < 0.25:
        request_id = caller.new_id("stream-scores")
        text = caller.rng.choice(caller.answers.texts_of(caller.rng.choice(MODELS)))
        request = infer_request(text.model, request_id, [text.text], SCORES)
        return StreamRequest(request, text=text)
    generation = caller.rng.choice(caller.answers.generations)
    length = caller.rng.randint(1, LONGEST)
    request = generations_request([generation], length, caller.new_id("stream"))
    if draw < 0.35:
        request.parameters["temperature"].double_param = -1
        return StreamRequest(request, code="INVALID_ARGUMENT")
    if draw < 0.5:
        request.parameters["triton_enable_empty_final_response"].bool_param = True
    return StreamRequest(request, generation, length)


def take(message: service_pb2.ModelStreamInferResponse, one: StreamRequest, caller: Caller) -> None:
    """Checks and enters the next message of a request."""
    response, what = message.infer_response, one.request.id
    expect(not one.is_over, f"{what}: a message after the last")
    one.is_over = response.parameters["triton_final_response"].bool_param
    if message.error_message:
        code = response.parameters["error_code"].string_param
        caller.ledger.answered[what] = (METHOD, code)
        expect(one.is_over, f"{what}: an error that is not the last")
        is_expected = code == one.code != "OK" or code == "RESOURCE_EXHAUSTED"
        expect(is_expected, f"{what}: {code}, {message.error_message}")
        return
    if one.text is not None:
        expect(one.is_over, f"{what}: scores in pieces")
        check_scores(response, [one.text], what)
    elif response.raw_output_contents:
        (piece,) = bytes_of(response.raw_output_contents[0])
        one.received += piece
    if one.generation is not None:
        whole = one.generation.text(one.length)
        expect_same_text(one.received, whole[: len(one.received)], what)
    if one.is_over:
        caller.ledger.answered[what] = (METHOD, "OK")
        expect(one.code == "OK", f"{what}: OK, not {one.code}")
        if one.generation is not None:
            expect_same_text(one.received, whole, what)


class Stream:
    """A call, whose requests are written while answers are read."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        count = caller.rng.randint(1, MOST_REQUESTS)
        self.requests = {(one := make_request(caller)).request.id: one for _ in range(count)}
        self.written: list[StreamRequest] = []
        self.call = caller.oip.ModelStreamInfer()
        self.writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        for one in self.requests.values():
            self.written.append(one)
            await self.call.write(one.request)
            if self.caller.rng.random() < 0.3:
                await asyncio.sleep(self.caller.rng.uniform(0, 0.01))
        await self.call.done_writing()

    async def read_one(self) -> bool:
        """False at the end."""
        message = await self.call.read()
        if message is grpc.aio.EOF:
            return False
        one = self.requests.get(message.infer_response.id)
        expect(one is not None, f"an answer to {message.infer_response.id}, which nobody asked")
        take(message, one, self.caller)
        return True

    async def cancel(self) -> None:
        """What is not answered yet is given up."""
        self.call.cancel()
        self.writer.cancel()
        await asyncio.gather(self.writer, return_exceptions=True)
        for one in self.written:
            if not one.is_over:
                self.caller.ledger.give_up(one.request.id, METHOD, one.code)


async def stream(caller: Caller) -> None:
    one_stream = Stream(caller)
    try:
        while await one_stream.read_one():
            pass
        await one_stream.writer
        code = await one_stream.call.code()
    finally:
        await one_stream.cancel()
    expect(code == OK, f"a stream ended with {code.name}")
    for one in one_stream.requests.values():
        expect(one.is_over, f"{one.request.id}: no answer on a stream that ended well")


async def stream_and_cancel(caller: Caller) -> None:
    """After some messages, or after some time with none."""
    one_stream = Stream(caller)
    try:
        if caller.rng.random() < 0.3:
            await asyncio.sleep(caller.rng.uniform(0, 0.03))
        else:
            for _ in range(caller.rng.randint(1, 30)):
                if not await one_stream.read_one():
                    break
    finally:
        await one_stream.cancel()
