"""tritonclient, unchanged, with what it does beside plain inference."""

import numpy
import pytest
import tritonclient.grpc as triton
from generate_tritonclient import generate, text_input
from tritonclient.utils import InferenceServerException


def output(result, name):
    return result.as_numpy(name).tolist()


def refused(client, message, model="tiny", inputs=None, **kwargs):
    """Asserts that the request fails with `message` in its text; returns the status code's name."""
    inputs = [text_input(b"a")] if inputs is None else inputs
    with pytest.raises(InferenceServerException, match=message) as error:
        client.infer(model, inputs, **kwargs)
    return error.value.status().removeprefix("StatusCode.")


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata().name == "evaserve"

    metadata = client.get_model_metadata("tiny")
    assert metadata.name == "tiny"
    assert [(t.name, t.datatype) for t in metadata.inputs] == [("text_input", "BYTES")]
    outputs = {t.name: t.datatype for t in metadata.outputs}
    assert outputs == {
        "text_output": "BYTES",
        "log_likelihood": "FP64",
        "bits_per_byte": "FP64",
        "embedding": "FP32",
    }


def test_score_is_that_of_the_generated_stubs(client, channel, stubs):
    pb, pb_grpc = stubs
    score = pb_grpc.InferenceStub(channel).Score(pb.ScoreRequest(text=b"some text", per_byte=True))
    wanted = [triton.InferRequestedOutput(n) for n in ("log_likelihood", "bits_per_byte")]

    result = client.infer("tiny", [text_input(b"some text")], outputs=wanted)

    assert output(result, "log_likelihood") == pytest.approx([score.log_likelihood], rel=1e-6)
    assert output(result, "bits_per_byte") == pytest.approx([score.bits_per_byte], rel=1e-6)
    assert sum(score.logprobs) == pytest.approx(score.log_likelihood, rel=1e-5)


def test_embedding_is_that_of_the_generated_stubs(client, channel, stubs):
    pb, pb_grpc = stubs
    embedding = pb_grpc.InferenceStub(channel).Embed(pb.EmbedRequest(text=b"some text")).embedding

    result = client.infer(
        "tiny", [text_input(b"some text")], outputs=[triton.InferRequestedOutput("embedding")]
    )

    assert output(result, "embedding")[0] == pytest.approx(list(embedding), rel=1e-5, abs=1e-7)
    assert numpy.linalg.norm(embedding) == pytest.approx(1, rel=1e-4)


def test_the_id_is_echoed(client):
    result = client.infer("tiny", [text_input(b"a")], request_id="call-7")
    assert result.get_response().id == "call-7"


def test_a_seed_repeats_itself(client):
    parameters = {"temperature": 1.5, "max_tokens": 30, "seed": 11}
    texts = {
        output(client.infer("tiny", [text_input(b"a")], parameters=parameters), "text_output")[0]
        for _ in range(3)
    }
    assert len(texts) == 1


def test_unknown_names_are_refused(client):
    wrong_output = [triton.InferRequestedOutput("logits")]
    assert refused(client, "other", model="other") == "NOT_FOUND"
    assert refused(client, "logits", outputs=wrong_output) == "INVALID_ARGUMENT"
    assert refused(client, "beams", parameters={"beams": 3}) == "INVALID_ARGUMENT"


def test_wrong_parameters_are_refused(client):
    for name, value in [
        ("temperature", -1.0),
        ("top_p", 0.0),
        ("max_tokens", 0),
        ("max_tokens", "many"),
        ("ignore_eos", 1),
    ]:
        assert refused(client, name, parameters={name: value}) == "INVALID_ARGUMENT"


def test_wrong_tensors_are_refused(client):
    wrong_name = triton.InferInput("text", [1], "BYTES")
    wrong_name.set_data_from_numpy(numpy.array([b"a"], dtype=object))
    wrong_type = triton.InferInput("text_input", [1], "FP32")
    wrong_type.set_data_from_numpy(numpy.array([1], dtype=numpy.float32))
    wrong_shape = triton.InferInput("text_input", [1, 1, 1], "BYTES")
    wrong_shape.set_data_from_numpy(numpy.array([[[b"a"]]], dtype=object))

    assert refused(client, "text", inputs=[wrong_name]) == "INVALID_ARGUMENT"
    assert refused(client, "FP32", inputs=[wrong_type]) == "INVALID_ARGUMENT"
    assert refused(client, "shape", inputs=[wrong_shape]) == "INVALID_ARGUMENT"
    assert refused(client, "empty", inputs=[text_input(b"")]) == "INVALID_ARGUMENT"


def test_a_failed_request_leaves_the_stream_open(client):
    with pytest.raises(InferenceServerException, match="temperature"):
        list(generate(client, "tiny", b"a", {"temperature": -1.0}))
    assert list(generate(client, "tiny", b"a", {"max_tokens": 3, "temperature": 0.0}))


def test_a_deadline_ends_the_request(client):
    many = triton.InferInput("text_input", [1000], "BYTES")
    many.set_data_from_numpy(numpy.array([b"a"] * 1000, dtype=object))
    with pytest.raises(InferenceServerException) as error:
        client.infer("tiny", [many], parameters={"max_tokens": 200}, client_timeout=0.05)
    assert "DEADLINE_EXCEEDED" in error.value.status()
    assert client.infer("tiny", [text_input(b"a")], parameters={"max_tokens": 1})
