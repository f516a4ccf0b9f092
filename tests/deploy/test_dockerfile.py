"""What an image is built on does not change by itself."""

import re

from conftest import ROOT


def test_the_base_has_a_date():
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^ARG BASE=debian:bookworm-\d{8}-slim$", dockerfile, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) >= {"${BASE}", "scratch"}
    assert not re.findall(r"^FROM \S+[:@]", dockerfile, re.MULTILINE)
