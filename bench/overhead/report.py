"""The table of what was measured, and what we want beside what was reached."""

import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

FLOOR, OURS, PEERS = "echo", "evaserve", ("mlserver", "kserve")
FROM_CPP, FROM_PYTHON = "C++", "tritonclient"


class Sample(NamedTuple):
    """One round of one load on one server."""

    requests_per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float  # the server's, for each request


class Series(NamedTuple):
    """What has samples: the same load on the same server, round by round."""

    server: str
    client: str
    concurrency: int


Samples = dict[Series, list[Sample]]


class Target(NamedTuple):
    what: str
    reached: float | None  # None: not measured
    limit: float
    is_least: bool
    unit: str

    @property
    def is_met(self) -> bool:
        if self.reached is None:
            return False
        return self.reached >= self.limit if self.is_least else self.reached <= self.limit

    def cells(self) -> list[str]:
        wanted = f"{'>=' if self.is_least else '<='} {self.limit:g}{self.unit}"
        if self.reached is None:
            return [self.what, "not measured", wanted, ""]
        verdict = "" if self.is_met else "missed"
        return [self.what, f"{self.reached:.3g}{self.unit}", wanted, verdict]


def paired(
    samples: Samples,
    ours: Series,
    theirs: Series,
    compare: Callable[[Sample, Sample], float],
) -> float | None:
    """The median over the rounds: both sides of a round had the same noise around them."""
    if ours not in samples or theirs not in samples:
        return None
    pairs = zip(samples[ours], samples[theirs], strict=True)
    return statistics.median(compare(*pair) for pair in pairs)


def times_as_many(ours: Sample, theirs: Sample) -> float:
    return ours.requests_per_s / theirs.requests_per_s


def extra_p50_ms(ours: Sample, theirs: Sample) -> float:
    return (ours.p50_us - theirs.p50_us) / 1e3


def targets(samples: Samples) -> list[Target]:
    """Those that calls alone can meet."""

    def ratio(server: str, least: float) -> Target:
        reached = paired(
            samples, Series(OURS, FROM_CPP, 32), Series(server, FROM_CPP, 32), times_as_many
        )
        return Target(f"requests/s of {server}'s, 32 in flight", reached, least, True, "x")

    alone = Series(OURS, FROM_CPP, 1), Series(FLOOR, FROM_CPP, 1)
    extra = paired(samples, *alone, extra_p50_ms)
    return [
        ratio(FLOOR, 0.6),
        *(ratio(peer, 8) for peer in PEERS),
        Target("p50 above echo's, 1 in flight", extra, 0.1, False, " ms"),
    ]


def table(columns: list[str], rows: list[list[str]]) -> Iterator[str]:
    """In Markdown, with columns of equal width."""
    cells = [columns, ["---"] * len(columns), *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"| {' | '.join(padded)} |"
    yield ""


def series_row(series: Series, samples: Samples) -> list[str]:
    floor = series._replace(server=FLOOR)
    of_floor = paired(samples, series, floor, times_as_many)
    fields = zip(*samples[series], strict=True)
    rate, p50, p99, cpu = map(statistics.median, fields)
    return [
        series.server,
        series.client,
        str(series.concurrency),
        f"{rate:.0f}",
        "-" if of_floor is None else f"{of_floor:.2f}",
        f"{p50 / 1e3:.3f}",
        f"{p99 / 1e3:.3f}",
        f"{cpu:.0f}",
    ]


def calls(samples: Samples) -> Iterator[str]:
    columns = ["server", "client", "in flight", "requests/s", "of echo's", "p50 ms", "p99 ms"]
    ordered = sorted(samples, key=lambda series: (series.client, series.concurrency))
    rows = [series_row(series, samples) for series in ordered]
    yield from table([*columns, "server's CPU us/request"], rows)


def verdicts(wanted: list[Target]) -> Iterator[str]:
    yield from table(["what", "reached", "we want", ""], [target.cells() for target in wanted])
    measured = [target for target in wanted if target.reached is not None]
    met = sum(target.is_met for target in measured)
    yield f"{met} of {len(wanted)} targets reached, {len(wanted) - len(measured)} not measured"
