"""Generate: read to the end, cancelled, with a deadline, slowly."""

import asyncio
from typing import Any

import grpc
from answers import LONGEST, LONGEST_SLOW, TOP_LOGPROBS, Generation, generate_request, tokens_of
from caller import FINE, OK, Caller, expect, expect_same_text

MAY_BE_UNLOADED = (*FINE, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)


async def read_all(call: grpc.aio.UnaryStreamCall) -> list:
    return [response async for response in call]


async def read_one(call: grpc.aio.UnaryStreamCall) -> Any:
    """None at the end, however it ends."""
    try:
        response = await call.read()
    except grpc.aio.AioRpcError:
        return None
    return None if response is grpc.aio.EOF else response


def text_of(responses: list) -> bytes:
    return b"".join(response.text for response in responses)


def check_begin(responses: list, generation: Generation, request_id: str) -> None:
    text = text_of(responses)
    expect_same_text(text, generation.text(LONGEST)[: len(text)], request_id)


def check_whole(responses: list, generation: Generation, length: int, request_id: str) -> None:
    text = text_of(responses)
    expect_same_text(text, generation.text(length), request_id)
    finishes = [response.finish for response in responses if response.HasField("finish")]
    expect(len(finishes) == 1, f"{request_id}: {len(finishes)} times finish")
    told = (finishes[0].usage.new_tokens, finishes[0].usage.new_bytes)
    expect(told == (length, len(text)), f"{request_id}: usage {told}, it was {length} tokens")


async def generate(caller: Caller) -> None:
    generation = caller.rng.choice(caller.answers.generations)
    length, request_id = caller.rng.randint(1, LONGEST), caller.new_id("generate")
    request = generate_request(caller.pb, generation, length, request_id)
    call = read_all(caller.inference.Generate(request))
    responses = await caller.answer(request_id, "Generate", call)
    if responses is not None:
        check_whole(responses, generation, length, request_id)


async def generate_on_what_comes_and_goes(caller: Caller) -> None:
    """The model "coming" is that of "tiny"."""
    generation = caller.rng.choice(caller.answers.greedy("tiny"))
    length, request_id = caller.rng.randint(1, LONGEST), caller.new_id("coming")
    request = generate_request(caller.pb, generation, length, request_id)
    request.model = "coming"
    call = read_all(caller.inference.Generate(request))
    responses = await caller.answer(request_id, "Generate", call, MAY_BE_UNLOADED)
    if responses is not None:
        check_whole(responses, generation, length, request_id)


async def generate_and_cancel(caller: Caller) -> None:
    """After some time, or after some messages."""
    generation = caller.rng.choice(caller.answers.generations)
    request_id = caller.new_id("cancel")
    request = generate_request(caller.pb, generation, LONGEST, request_id)
    call = caller.inference.Generate(request)
    responses = []
    if caller.rng.random() < 0.5:
        await asyncio.sleep(caller.rng.uniform(0, 0.05))
    else:
        for _ in range(caller.rng.randint(0, 5)):
            if (response := await read_one(call)) is None:
                break
            responses.append(response)
    if call.cancel():
        caller.ledger.give_up(request_id, "Generate")
    else:
        code = await call.code()
        caller.ledger.answered[request_id] = ("Generate", code.name)
        expect(code in FINE, f"{request_id}: {code.name}")
    check_begin(responses, generation, request_id)


async def generate_with_deadline(caller: Caller) -> None:
    generation = caller.rng.choice(caller.answers.generations)
    length, request_id = caller.rng.randint(1, LONGEST), caller.new_id("deadline")
    request = generate_request(caller.pb, generation, length, request_id)
    call = caller.inference.Generate(request, timeout=caller.rng.uniform(0.001, 0.06))
    responses = []
    while (response := await read_one(call)) is not None:
        responses.append(response)
    code = await call.code()
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        caller.ledger.give_up(request_id, "Generate", has_deadline=True)
    else:
        caller.ledger.answered[request_id] = ("Generate", code.name)
        expect(code in FINE, f"{request_id}: {code.name}")
    if code == OK:
        check_whole(responses, generation, length, request_id)
    else:
        check_begin(responses, generation, request_id)


async def generate_and_read_slowly(caller: Caller) -> None:
    """Reads when the buffers of the connection and of the server are full."""
    generation, request_id = caller.rng.choice(caller.answers.slow), caller.new_id("slow")
    request = generate_request(caller.pb, generation, LONGEST_SLOW, request_id)
    request.logprobs, request.top_logprobs = True, TOP_LOGPROBS

    async def read() -> list:
        responses = []
        async for response in caller.inference.Generate(request):
            await asyncio.sleep(0.002 if responses else caller.rng.uniform(0.5, 3))
            responses.append(response)
        return responses

    responses = await caller.answer(request_id, "Generate", read())
    if responses is not None:
        check_whole(responses, generation, LONGEST_SLOW, request_id)
        expect(tokens_of(responses) == generation.tokens, f"{request_id}: its tokens differ")
