"""What the clients saw, and whether the server has counted the same."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from evaserve_program import Sample

MOST_FAULTS = 50


class GivenUp(NamedTuple):
    """A request that its client did not wait for."""

    method: str
    codes: frozenset[str]  # with which the server may have counted it


class Ledger:
    """Every request is entered once, by its id, when its client knows how it ended.

    - A request that the server has answered, with whatever status, is counted by the server exactly
      once, with that status.
    - One that its client has given up is counted at most once: as cancelled, as too late if it had
      a deadline (which side noticed first the client cannot tell), as if it had not been given up
      if it was over before the server heard of that; and not at all if it never reached the server.
    - One that gRPC refuses before there is a request (no such method, no protobuf) is not counted.
    """

    def __init__(self) -> None:
        self.answered: dict[str, tuple[str, str]] = {}  # method, code
        self.given_up: dict[str, GivenUp] = {}
        self.uncounted: set[str] = set()
        self.kinds: Counter[str] = Counter()  # of traffic that went as it should
        self.faults: list[str] = []

    def fault(self, text: str) -> None:
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(text)

    def give_up(
        self, request_id: str, method: str, code: str = "OK", has_deadline: bool = False
    ) -> None:
        """Of a request that would have ended with `code`, if there had been room for it."""
        codes = {code, "CANCELLED", "RESOURCE_EXHAUSTED"}
        if has_deadline:
            codes.add("DEADLINE_EXCEEDED")
        self.given_up[request_id] = GivenUp(method, frozenset(codes))

    def check(self, metrics: Iterable[Sample], log: Iterable[str]) -> None:
        """Compares with the server's counters and log, when it is idle."""
        lines = [json.loads(line) for line in log if '"message":"request"' in line]
        self._check_lines(lines)
        counted = count_requests(metrics)
        told = Counter((line["model"], line["method"], line["code"]) for line in lines)
        for key in counted.keys() | told.keys():
            if counted[key] != told[key]:
                self.fault(f"{key}: counted {counted[key]} times, in the log {told[key]} times")
        self._check_bounds(counted)

    def _check_lines(self, lines: list[dict]) -> None:
        """Each request by its id."""
        by_id: dict[str, list[tuple[str, str]]] = {}
        for line in lines:
            by_id.setdefault(line["id"], []).append((line["method"], line["code"]))
        for request_id, expected in self.answered.items():
            if (told := by_id.pop(request_id, [])) != [expected]:
                self.fault(f"{request_id}: its client saw {expected}, the server tells {told}")
        for request_id, (method, codes) in self.given_up.items():
            told = by_id.pop(request_id, [])
            if len(told) > 1 or any(m != method or code not in codes for m, code in told):
                self.fault(f"{request_id}: given up by its client ({method}), server tells {told}")
        for request_id, told in by_id.items():
            self.fault(f"{request_id}: nobody asked this, the server tells {told}")

    def _check_bounds(self, counted: Counter[tuple[str, str, str]]) -> None:
        """The counters alone, without the log."""
        seen = Counter(code for _, code in self.answered.values())
        totals = Counter()
        for (_, _, code), count in counted.items():
            totals[code] += count
        for code in seen.keys() | totals.keys():
            most = seen[code] + sum(code in given_up.codes for given_up in self.given_up.values())
            if not seen[code] <= totals[code] <= most:
                self.fault(f"{code}: counted {totals[code]} times, {seen[code]} .. {most} expected")
        most = len(self.answered) + len(self.given_up)
        if not len(self.answered) <= totals.total() <= most:
            self.fault(f"{totals.total()} counted, {len(self.answered)} .. {most} expected")

    def summary(self) -> str:
        codes = Counter(code for _, code in self.answered.values())
        return (
            f"{len(self.answered)} answered {dict(codes.most_common())}, "
            f"{len(self.given_up)} given up, {len(self.uncounted)} refused by gRPC; "
            f"as they should: {dict(self.kinds.most_common())}"
        )


def count_requests(metrics: Iterable[Sample]) -> Counter[tuple[str, str, str]]:
    """evaserve_requests_total by model, method, code."""
    return Counter(
        {
            (s.labels["model"], s.labels["method"], s.labels["code"]): int(s.value)
            for s in metrics
            if s.name == "evaserve_requests_total"
        }
    )
