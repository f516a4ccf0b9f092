"""GenerateStream: many prompts on one stream, in pieces, cancelled one by one or all together."""

import asyncio
import dataclasses
from typing import Any

import grpc
from answers import LONGEST, Generation, generate_request
from caller import OK, Caller, expect, expect_same_text

MOST_PROMPTS = 8
MOST_PIECES = 4
METHOD = "GenerateStream"
CODES = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclasses.dataclass
class Prompt:
    """One of a stream's prompts, and what came for it so far."""

    index: int
    request_id: str
    generation: Generation
    length: int
    code: str = "OK"  # what it ends with, if there is room for it
    is_cancelled: bool = False
    received: bytes = b""
    is_over: bool = False


def messages_of(prompt: Prompt, caller: Caller) -> list[Any]:
    """What is sent for a prompt: whole, or in pieces."""
    pb, rng = caller.pb, caller.rng
    request = generate_request(caller.pb, prompt.generation, prompt.length, prompt.request_id)
    text = prompt.generation.prompt
    if prompt.code != "OK":
        request.sampling.temperature = -1
    cuts = sorted(rng.randrange(len(text) + 1) for _ in range(rng.randint(0, MOST_PIECES)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)])]
    request.prompt = pieces[0]
    begin = pb.BeginPrompt(request=request, bytes_to_come=len(text) - len(pieces[0]))
    messages = [pb.GenerateStreamRequest(index=prompt.index, begin=begin)]
    for piece in filter(None, pieces[1:]):
        messages.append(pb.GenerateStreamRequest(index=prompt.index, piece=piece))
    if prompt.is_cancelled:
        cancel = pb.GenerateStreamRequest(index=prompt.index, cancel=pb.CancelPrompt())
        messages.append(cancel)
    return messages


def make_prompt(caller: Caller, index: int) -> Prompt:
    generation = caller.rng.choice(caller.answers.generations)
    prompt = Prompt(
        index, caller.new_id("prompt"), generation, length=caller.rng.randint(1, LONGEST)
    )
    draw = caller.rng.random()
    if draw < 0.1:
        prompt.code = "INVALID_ARGUMENT"
    elif draw < 0.3:
        prompt.is_cancelled = True
    return prompt


def take(message: Any, prompt: Prompt, caller: Caller) -> None:
    """Checks and enters the next message of a prompt."""
    what = prompt.request_id
    expect(not prompt.is_over, f"{what}: a message after the last")
    if message.HasField("error"):
        code = CODES[message.error.code]
        allowed = {prompt.code, "RESOURCE_EXHAUSTED"} - {"OK"}
        if prompt.is_cancelled:
            allowed.add("CANCELLED")
        expect(code in allowed, f"{what}: {code}, {message.error.message}")
        caller.ledger.answered[what] = (METHOD, code)
        prompt.is_over = True
        return
    prompt.received += message.response.text
    whole = prompt.generation.text(prompt.length)
    expect_same_text(prompt.received, whole[: len(prompt.received)], what)
    if message.response.HasField("finish"):
        expect_same_text(prompt.received, whole, what)
        expect(prompt.code == "OK", f"{what}: OK, not {prompt.code}")
        caller.ledger.answered[what] = (METHOD, "OK")
        prompt.is_over = True


class Stream:
    """A call, whose prompts are written, all mixed, while answers are read."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        count = caller.rng.randint(1, MOST_PROMPTS)
        self.prompts = {index: make_prompt(caller, index) for index in range(count)}
        self.begun: list[Prompt] = []
        self.call = caller.inference.GenerateStream()
        self.writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        rng = self.caller.rng
        waiting = {i: messages_of(prompt, self.caller) for i, prompt in self.prompts.items()}
        while waiting:
            index = rng.choice(list(waiting))
            message = waiting[index].pop(0)
            if message.HasField("begin"):
                self.begun.append(self.prompts[index])
            if not waiting[index]:
                del waiting[index]
            await self.call.write(message)
            if rng.random() < 0.2:
                await asyncio.sleep(rng.uniform(0, 0.01))
        await self.call.done_writing()

    async def read_one(self) -> bool:
        """False at the end."""
        message = await self.call.read()
        if message is grpc.aio.EOF:
            return False
        prompt = self.prompts.get(message.index)
        expect(prompt is not None, f"an answer to {message.index}, which nobody asked")
        take(message, prompt, self.caller)
        return True

    async def cancel(self) -> None:
        """What has not ended yet is given up."""
        self.call.cancel()
        self.writer.cancel()
        await asyncio.gather(self.writer, return_exceptions=True)
        for prompt in self.begun:
            if not prompt.is_over:
                self.caller.ledger.give_up(prompt.request_id, METHOD, prompt.code)


async def prompts(caller: Caller) -> None:
    stream = Stream(caller)
    try:
        while await stream.read_one():
            pass
        await stream.writer
        code = await stream.call.code()
    finally:
        await stream.cancel()
    expect(code == OK, f"a stream of prompts ended with {code.name}")
    for prompt in stream.prompts.values():
        expect(prompt.is_over, f"{prompt.request_id}: no end on a stream that ended well")


async def prompts_and_cancel(caller: Caller) -> None:
    """After some messages, or after some time with none."""
    stream = Stream(caller)
    try:
        if caller.rng.random() < 0.3:
            await asyncio.sleep(caller.rng.uniform(0, 0.03))
        else:
            for _ in range(caller.rng.randint(1, 30)):
                if not await stream.read_one():
                    break
    finally:
        await stream.cancel()
