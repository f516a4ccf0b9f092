"""What a server without load answers: the truth for all answers under load."""

import dataclasses
import random
from types import ModuleType

import grpc

LONGEST = 96  # tokens of a generation
LONGEST_SLOW = 1000  # of one for a slow reader: more than what waits in the connection's buffers
TOP_LOGPROBS = 20


@dataclasses.dataclass(frozen=True)
class Generation:
    model: str
    prompt: bytes
    seed: int | None  # None: the most likely token each time
    tokens: tuple[bytes, ...]  # empty for a control token

    def text(self, num_tokens: int) -> bytes:
        """Of an answer of so many tokens: it is how that of any length begins."""
        return b"".join(self.tokens[:num_tokens])


@dataclasses.dataclass(frozen=True)
class Text:
    model: str
    text: bytes
    log_likelihood: float
    embedding: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Image:
    file: bytes
    best: int  # class
    probability: float


@dataclasses.dataclass(frozen=True)
class Answers:
    generations: tuple[Generation, ...]
    slow: tuple[Generation, ...]  # LONGEST_SLOW tokens
    texts: tuple[Text, ...]
    images: tuple[Image, ...]

    def greedy(self, model: str) -> list[Generation]:
        return [g for g in self.generations if g.model == model and g.seed is None]

    def texts_of(self, model: str) -> list[Text]:
        return [text for text in self.texts if text.model == model]


def generate_request(
    pb: ModuleType, generation: Generation, num_tokens: int, request_id: str = ""
) -> object:
    sampling = pb.SamplingParameters(temperature=0)
    if generation.seed is not None:
        sampling = pb.SamplingParameters(temperature=1, seed=generation.seed)
    return pb.GenerateRequest(
        model=generation.model,
        prompt=generation.prompt,
        sampling=sampling,
        stopping=pb.StoppingCriteria(max_new_tokens=num_tokens, ignore_eos=True),
        request_id=request_id,
    )


def tokens_of(responses: list) -> tuple[bytes, ...]:
    return tuple(token.chosen.bytes for response in responses for token in response.tokens)


def make_prompts(model: str, rng: random.Random) -> list[bytes]:
    """Of any bytes; from one to several windows long."""
    sizes = (1, 5, 23, 24, 25, 100, 140) if model == "tiny" else (1, 7, 60, 255, 257, 700)
    return [rng.randbytes(size) for size in sizes]


class Oracle:
    """Asks a server, one call at a time."""

    def __init__(self, stubs: tuple[ModuleType, ModuleType], channel: grpc.Channel) -> None:
        self.pb, pb_grpc = stubs
        self.stub = pb_grpc.InferenceStub(channel)

    def generation(
        self, model: str, prompt: bytes, seed: int | None, num_tokens: int = LONGEST
    ) -> Generation:
        question = Generation(model, prompt, seed, ())
        request = generate_request(self.pb, question, num_tokens)
        request.logprobs = True
        return dataclasses.replace(question, tokens=tokens_of(list(self.stub.Generate(request))))

    def text(self, model: str, text: bytes) -> Text:
        score = self.stub.Score(self.pb.ScoreRequest(model=model, text=text))
        embed = self.stub.Embed(self.pb.EmbedRequest(model=model, text=text))
        return Text(model, text, score.log_likelihood, tuple(embed.embedding))

    def image(self, model: str, file: bytes) -> Image:
        (best,) = self.stub.Classify(
            self.pb.ClassifyRequest(model=model, image=file, top_k=1)
        ).classes
        return Image(file, best.index, best.probability)


def learn(
    oracle: Oracle, models: list[str], slow_model: str, files: list[bytes], rng: random.Random
) -> Answers:
    """`files` are images."""
    generations, texts = [], []
    for model in models:
        for prompt in make_prompts(model, rng):
            for seed in (None, rng.randrange(1 << 60)):
                generations.append(oracle.generation(model, prompt, seed))
            texts.append(oracle.text(model, prompt))
    slow = oracle.generation(slow_model, rng.randbytes(20), None, LONGEST_SLOW)
    images = tuple(oracle.image("digits", file) for file in files)
    return Answers(tuple(generations), (slow,), tuple(texts), images)
