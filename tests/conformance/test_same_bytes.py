"""Every client gets the same bytes for the same request, whatever the way it asks."""

import asyncio
import os
import queue
import subprocess
import sys

import numpy
import pytest
import tritonclient.grpc.aio
from conftest import MAX_TOKENS, PROMPTS, PYTHON_EXAMPLES
from generate_tritonclient import generate, is_final, text_input

PARAMETERS = {"max_tokens": MAX_TOKENS, "temperature": 0.0, "ignore_eos": True}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_tritonclient(client, expected, prompt):
    result = client.infer("tiny", [text_input(prompt)], parameters=PARAMETERS)
    assert result.as_numpy("text_output").tolist() == [expected[prompt]]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_tritonclient_stream(client, expected, prompt):
    assert b"".join(generate(client, "tiny", prompt, PARAMETERS)) == expected[prompt]


def test_tritonclient_batch(client, expected):
    tensor = tritonclient.grpc.InferInput("text_input", [len(PROMPTS)], "BYTES")
    tensor.set_data_from_numpy(numpy.array(PROMPTS, dtype=object))
    result = client.infer("tiny", [tensor], parameters=PARAMETERS)
    assert result.as_numpy("text_output").tolist() == [expected[prompt] for prompt in PROMPTS]


def test_tritonclient_async_infer(client, expected):
    results = queue.Queue()
    for i, prompt in enumerate(PROMPTS):
        client.async_infer(
            "tiny",
            [text_input(prompt)],
            callback=lambda result, error: results.put((result, error)),
            request_id=str(i),
            parameters=PARAMETERS,
        )
    texts = {}
    for _ in PROMPTS:
        result, error = results.get()
        assert error is None
        texts[PROMPTS[int(result.get_response().id)]] = result.as_numpy("text_output")[0]
    assert texts == expected


def test_tritonclient_aio(server, expected):
    async def infer_all():
        async with tritonclient.grpc.aio.InferenceServerClient(server.target) as client:
            return await asyncio.gather(
                *(client.infer("tiny", [text_input(p)], parameters=PARAMETERS) for p in PROMPTS)
            )

    results = asyncio.run(infer_all())
    texts = [result.as_numpy("text_output")[0] for result in results]
    assert texts == [expected[prompt] for prompt in PROMPTS]


def test_tritonclient_aio_stream(server, expected):
    async def requests():
        for i, prompt in enumerate(PROMPTS):
            yield {
                "model_name": "tiny",
                "inputs": [text_input(prompt)],
                "request_id": str(i),
                "parameters": PARAMETERS,
            }

    async def stream_all():
        texts = [b""] * len(PROMPTS)
        finished = 0
        async with tritonclient.grpc.aio.InferenceServerClient(server.target) as client:
            async for result, error in client.stream_infer(requests()):
                assert error is None
                texts[int(result.get_response().id)] += result.as_numpy("text_output")[0]
                finished += is_final(result)
        return texts, finished

    texts, finished = asyncio.run(stream_all())
    assert finished == len(PROMPTS)
    assert texts == [expected[prompt] for prompt in PROMPTS]


def test_prompts_in_pieces_on_one_stream(channel, stubs, expected):
    pb, pb_grpc = stubs

    def messages():
        for index, prompt in enumerate(PROMPTS):
            request = pb.GenerateRequest(
                sampling=pb.SamplingParameters(temperature=0),
                stopping=pb.StoppingCriteria(max_new_tokens=MAX_TOKENS, ignore_eos=True),
            )
            begin = pb.BeginPrompt(request=request, bytes_to_come=len(prompt))
            yield pb.GenerateStreamRequest(index=index, begin=begin)
        for index, prompt in enumerate(PROMPTS):
            for byte in range(len(prompt)):
                yield pb.GenerateStreamRequest(index=index, piece=prompt[byte : byte + 1])

    texts = dict.fromkeys(range(len(PROMPTS)), b"")
    for message in pb_grpc.InferenceStub(channel).GenerateStream(messages()):
        texts[message.index] += message.response.text
    assert list(texts.values()) == [expected[prompt] for prompt in PROMPTS]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_eva(pytestconfig, server, expected, prompt):
    args = ["generate", "-", "--server", server.target, "--model", "tiny", "--temperature", "0"]
    run = subprocess.run(
        [pytestconfig.getoption("eva"), *args, "--max-tokens", str(MAX_TOKENS), "--ignore-eos"],
        input=prompt,
        capture_output=True,
        check=True,
    )
    assert run.stdout == expected[prompt]


def test_the_examples_agree(server, stubs_dir):
    def run(example, *args):
        command = [sys.executable, PYTHON_EXAMPLES / example, "Hello", "--server", server.target]
        command += ["--max-tokens", "20", "--temperature", "0", *args]
        environment = dict(os.environ, PYTHONPATH=str(stubs_dir))
        return subprocess.run(command, capture_output=True, check=True, env=environment).stdout

    text = run("generate_stubs.py")
    assert text
    assert run("generate_tritonclient.py", "--model", "tiny") == text
