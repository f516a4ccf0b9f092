#!/usr/bin/env python3
"""The load's programs, on the echo server: loads_test.py BUILD_DIR"""

import pathlib
import sys
import tempfile
import unittest

import loads
import servers

BUILD = pathlib.Path(sys.argv.pop(1)).resolve()


class LoadsTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.echo = self.enterContext(servers.echo(BUILD, folder))

    def test_calls_are_counted(self) -> None:
        sample = loads.from_cpp(BUILD, elements=4, seconds=0.1).sample(self.echo, concurrency=3)
        self.assertGreater(sample.requests_per_s, 0)
        self.assertGreater(sample.p50_us, 0)
        self.assertGreaterEqual(sample.p99_us, sample.p50_us)

    def test_idle_connections_cost_memory(self) -> None:
        self.assertGreater(loads.idle_connections_bytes(BUILD, self.echo, 50), 0)

    def test_a_server_that_loads_no_models_is_an_error(self) -> None:
        with self.assertRaisesRegex(loads.LoadFailed, "echo: could not load"):
            with loads.model_loads(BUILD, self.echo, every_s=0):
                pass

    def test_a_server_that_is_not_there_is_an_error(self) -> None:
        load = loads.from_cpp(BUILD, elements=4, seconds=0.1)
        load.command += ["--wait", "0"]
        self.echo.target = servers.free_address()
        with self.assertRaisesRegex(loads.LoadFailed, f"echo: {self.echo.target}: "):
            load.sample(self.echo, concurrency=1)


if __name__ == "__main__":
    unittest.main()
