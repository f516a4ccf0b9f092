"""A server that clients mean harm to."""

import contextlib
import pathlib
import re
import resource
import time
from collections.abc import Callable, Iterator

from evaserve_program import Evaserve

MIB = 1 << 20
LIMIT_MB = 4  # --max-message-mb
RECEIVE_MIB = 192  # --receive-memory-mb
SOON_S = 5.0  # a tiny model answers in milliseconds; the machine may be busy
SOON_SANITIZED_S = 30.0
WAIT_S = 30.0
# What may come in any test, of gRPC's own buffers and the allocator's.
SLACK_MIB = 48


@contextlib.contextmanager
def all_files_allowed() -> Iterator[int]:
    """Raises the limit of open files as far as it goes, also for programs started within; gives
    what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Victim(Evaserve):
    """A server, and what it took when it was idle and new."""

    def __init__(self, *args: str, is_sanitized: bool) -> None:
        super().__init__(*args)
        self.is_sanitized = is_sanitized
        self.files = self.metric("process_open_fds")
        self.resident_mib = self._memory("VmRSS")

    def _memory(self, name: str) -> float:
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 1024

    def growth_mib(self) -> float:
        """What is resident now beyond what was at the start."""
        return self._memory("VmRSS") - self.resident_mib

    def peak_growth_mib(self) -> float:
        return self._memory("VmHWM") - self.resident_mib

    def assert_took_less_than(self, mib: float) -> None:
        assert self.is_sanitized or self.peak_growth_mib() < mib

    def is_idle(self) -> bool:
        idle = ("requests_in_flight", "running_sequences", "waiting_requests", "state_pages_used")
        return not any(self.metric(f"evaserve_{name}") for name in idle)


def wait_until(condition: Callable[[], bool], what: str, wait_s: float = WAIT_S) -> None:
    end = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < end, f"after {wait_s:.0f} s still not: {what}"
        time.sleep(0.05)
