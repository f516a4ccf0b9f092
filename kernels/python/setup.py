"""Puts the library of the operators, which CMake has installed, into the wheel, and the libraries of
Abseil that it loads. EVASERVE_TORCH_OPS is its path; make_wheel.sh sets it."""

import os
import pathlib
import re
import shutil
import subprocess

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

LIBRARY = "libevaserve_torch_ops.so"
LICENCES = "/usr/share/doc/libabsl*/copyright"


class BuildWithLibrary(build_py):
    def run(self) -> None:
        super().run()
        source = os.environ.get("EVASERVE_TORCH_OPS")
        if source is None or not pathlib.Path(source).is_file():
            raise SystemExit(f"EVASERVE_TORCH_OPS must be the path of {LIBRARY}, it is {source}")
        package = pathlib.Path(self.build_lib) / "evaserve_ops"
        shutil.copy(source, package / LIBRARY)
        libs = package / "libs"
        libs.mkdir(exist_ok=True)
        loads = subprocess.run(["ldd", source], check=True, capture_output=True, text=True).stdout
        for path in re.findall(r"=> (/\S*/libabsl_\S+)", loads):
            shutil.copy(path, libs)
        for path in pathlib.Path("/").glob(LICENCES[1:]):
            shutil.copy(path, libs / f"{path.parent.name}.copyright")


class BinaryDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        return True


class PlatformWheel(bdist_wheel):
    """The library is for a machine, but for every Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    distclass=BinaryDistribution,
    cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": PlatformWheel},
)
