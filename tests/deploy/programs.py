"""The programs that the tests talk to. Each listens on a free port of 127.0.0.1."""

import itertools
import json
import pathlib
import re
import socket
import urllib.parse
import urllib.request
from typing import Any

from evaserve_program import Evaserve, Program

__all__ = ["Evaserve", "Nginx", "Prometheus"]


class Prometheus(Program):
    def __init__(
        self, program: pathlib.Path, config_file: pathlib.Path, data_dir: pathlib.Path
    ) -> None:
        super().__init__(
            [
                program,
                f"--config.file={config_file}",
                f"--storage.tsdb.path={data_dir}",
                "--web.listen-address=127.0.0.1:0",
            ],
            r'msg="Listening on" address=(\S+)',
        )
        self.url = f"http://{self.match[1]}/api/v1/"

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer. Raises urllib.error.HTTPError if the query is wrong."""
        url = f"{self.url}{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, query: str) -> list[float]:
        """The numbers that `query` has now, by whatever labels."""
        return [float(series["value"][1]) for series in self.get("query", query=query)["result"]]


def free_port() -> int:
    """nginx cannot be asked which port it took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Nginx(Program):
    """Runs `config` of deploy/nginx with other addresses."""

    def __init__(
        self, program: pathlib.Path, config: str, upstreams: list[str], folder: pathlib.Path
    ) -> None:
        self.target = f"127.0.0.1:{free_port()}"
        servers = re.findall(r"^ *server \S+:8001 .*;$", config, re.MULTILINE)
        for line, upstream in itertools.zip_longest(servers, upstreams):
            config = config.replace(line, re.sub(r"\S+:8001", upstream, line) if upstream else "")
        config = config.replace("listen 8001 ", f"listen {self.target} ")
        temporary = "".join(
            f"{use}_temp_path {folder};"
            for use in ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
        )
        (folder / "nginx.conf").write_text(
            f"daemon off; pid {folder}/nginx.pid; error_log stderr notice; worker_processes 1;"
            f"events {{}} http {{ access_log off; {temporary}\n{config} }}"
        )
        command = [program, "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"]
        super().__init__(command, r"start worker process \d+")
