"""Score and Embed, and the same and generations through ModelInfer."""

import struct

import grpc
from answers import LONGEST, Generation, Text
from caller import FINE, Caller, expect, expect_close, expect_same_text, expect_same_vector
from tritonclient.grpc import service_pb2

MODELS = ("tiny", "demo")
SCORES = ("log_likelihood", "embedding")
MOST_TEXTS = 4


def infer_request(
    model: str, request_id: str, texts: list[bytes], outputs: tuple[str, ...]
) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    tensor = request.inputs.add(name="text_input", datatype="BYTES", shape=[len(texts)])
    tensor.contents.bytes_contents.extend(texts)
    for name in outputs:
        request.outputs.add(name=name)
    return request


def generations_request(
    generations: list[Generation], length: int, request_id: str
) -> service_pb2.ModelInferRequest:
    """They are of one model and have one seed, or none."""
    first = generations[0]
    prompts = [generation.prompt for generation in generations]
    request = infer_request(first.model, request_id, prompts, ("text_output",))
    request.parameters["max_tokens"].int64_param = length
    request.parameters["ignore_eos"].bool_param = True
    request.parameters["temperature"].double_param = 0 if first.seed is None else 1
    if first.seed is not None:
        request.parameters["seed"].int64_param = first.seed
    return request


def bytes_of(raw: bytes) -> list[bytes]:
    """The elements of a tensor of BYTES."""
    elements, position = [], 0
    while position < len(raw):
        (size,) = struct.unpack_from("<I", raw, position)
        elements.append(raw[position + 4 : position + 4 + size])
        position += 4 + size
    return elements


def check_scores(response: service_pb2.ModelInferResponse, texts: list[Text], what: str) -> None:
    """Of an answer with SCORES."""
    scores, embeddings = response.raw_output_contents
    size = 4 * len(texts[0].embedding)
    expect(len(embeddings) == size * len(texts), f"{what}: {len(embeddings)} bytes of embeddings")
    for i, text in enumerate(texts):
        (score,) = struct.unpack_from("<d", scores, 8 * i)
        vector = struct.unpack_from(f"<{size // 4}f", embeddings, size * i)
        expect_close(score, text.log_likelihood, f"{what}, text {i}")
        expect_same_vector(vector, text.embedding, f"{what}, text {i}")


async def score(caller: Caller) -> None:
    text, request_id = caller.rng.choice(caller.answers.texts), caller.new_id("score")
    request = caller.pb.ScoreRequest(
        model=text.model, text=text.text, per_byte=True, request_id=request_id
    )
    answer = await caller.answer(request_id, "Score", caller.inference.Score(request))
    if answer is not None:
        expect_close(answer.log_likelihood, text.log_likelihood, request_id)
        expect(len(answer.logprobs) == len(text.text), f"{request_id}: {len(answer.logprobs)}")


async def embed(caller: Caller) -> None:
    text, request_id = caller.rng.choice(caller.answers.texts), caller.new_id("embed")
    request = caller.pb.EmbedRequest(model=text.model, text=text.text, request_id=request_id)
    answer = await caller.answer(request_id, "Embed", caller.inference.Embed(request))
    if answer is not None:
        expect_same_vector(tuple(answer.embedding), text.embedding, request_id)


async def infer_scores(caller: Caller) -> None:
    model, request_id = caller.rng.choice(MODELS), caller.new_id("scores")
    count = caller.rng.randint(1, MOST_TEXTS)
    texts = caller.rng.choices(caller.answers.texts_of(model), k=count)
    request = infer_request(model, request_id, [text.text for text in texts], SCORES)
    answer = await caller.answer(request_id, "ModelInfer", caller.oip.ModelInfer(request))
    if answer is not None:
        check_scores(answer, texts, request_id)


async def infer_generations(caller: Caller) -> None:
    model, request_id = caller.rng.choice(MODELS), caller.new_id("infer")
    count, length = caller.rng.randint(1, MOST_TEXTS), caller.rng.randint(1, LONGEST)
    generations = caller.rng.choices(caller.answers.greedy(model), k=count)
    request = generations_request(generations, length, request_id)
    answer = await caller.answer(request_id, "ModelInfer", caller.oip.ModelInfer(request))
    if answer is None:
        return
    expect(answer.id == request_id, f"{request_id}: the answer is that of {answer.id}")
    texts = bytes_of(answer.raw_output_contents[0])
    expect(len(texts) == count, f"{request_id}: {len(texts)} texts")
    for i, (generation, text) in enumerate(zip(generations, texts)):
        expect_same_text(text, generation.text(length), f"{request_id}, text {i}")


async def infer_with_timeout(caller: Caller) -> None:
    """A deadline that the server keeps, so that the client hears how it was counted."""
    generation = caller.rng.choice(caller.answers.generations)
    request_id = caller.new_id("timeout")
    request = generations_request([generation], LONGEST, request_id)
    request.parameters["timeout"].int64_param = caller.rng.randint(1_000, 60_000)
    allowed = (*FINE, grpc.StatusCode.DEADLINE_EXCEEDED)
    call = caller.oip.ModelInfer(request)
    answer = await caller.answer(request_id, "ModelInfer", call, allowed)
    if answer is not None:
        (text,) = bytes_of(answer.raw_output_contents[0])
        expect_same_text(text, generation.text(LONGEST), request_id)
