"""A client of the soak: what all kinds of traffic use."""

import random
from collections.abc import Awaitable
from types import ModuleType
from typing import Any

import grpc
from answers import Answers
from ledger import Ledger
from tritonclient.grpc import service_pb2_grpc

OK = grpc.StatusCode.OK
# Of a request that is well: too much may be waiting.
FINE = (OK, grpc.StatusCode.RESOURCE_EXHAUSTED)
SCORE_TOLERANCE = 1e-5  # relative; sums of float32 in another order
EMBEDDING_TOLERANCE = 1e-5  # of numbers below 1


class Wrong(Exception):
    """An answer that is not what it should be."""


def expect(is_right: bool, what: str) -> None:
    if not is_right:
        raise Wrong(what)


def expect_same_text(got: bytes, want: bytes, what: str) -> None:
    expect(got == want, f"{what}: got {got!r}, alone it is {want!r}")


def expect_close(got: float, want: float, what: str) -> None:
    is_close = abs(got - want) <= SCORE_TOLERANCE * abs(want)
    expect(is_close, f"{what}: got {got}, alone it is {want}")


def expect_same_vector(got: tuple[float, ...], want: tuple[float, ...], what: str) -> None:
    expect(len(got) == len(want), f"{what}: {len(got)} numbers")
    worst = max(abs(a - b) for a, b in zip(got, want))
    expect(worst <= EMBEDDING_TOLERANCE, f"{what}: a number of the embedding is off by {worst}")


class Caller:
    """Has a connection of its own until close(). `name` makes its ids and is its random seed."""

    def __init__(
        self,
        name: str,
        target: str,
        stubs: tuple[ModuleType, ModuleType],
        answers: Answers,
        ledger: Ledger,
    ) -> None:
        self.name, self.answers, self.ledger = name, answers, ledger
        self.rng = random.Random(name)
        # A window that does not grow lets a slow reader be felt by the server.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
        self.channel = grpc.aio.insecure_channel(target, options)
        self.pb, pb_grpc = stubs
        self.inference = pb_grpc.InferenceStub(self.channel)
        self.oip = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        self._count = 0

    async def close(self) -> None:
        await self.channel.close()

    def new_id(self, kind: str) -> str:
        self._count += 1
        return f"{self.name}-{self._count}-{kind}"

    async def answer(
        self,
        request_id: str,
        method: str,
        call: Awaitable[Any],
        allowed: tuple[grpc.StatusCode, ...] = FINE,
    ) -> Any:
        """The answer to a request, which is entered in the ledger; None if it was refused."""
        result, code = None, OK
        try:
            result = await call
        except grpc.aio.AioRpcError as error:
            code = error.code()
        self.ledger.answered[request_id] = (method, code.name)
        expect(code in allowed, f"{request_id} {method}: {code.name}")
        return result
