"""What pyproject.toml cannot say: a wheel carries files that lie beside the package, as `fracsurv/_data`."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CARRIED = ("configs", "notebooks", "Snakefile")


class BuildWithData(build_py):
    """Copies modules, then configurations, notebooks and the pipeline; an editable install reads them in place."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        carried = Path(self.build_lib) / "fracsurv" / "_data"
        shutil.rmtree(carried, ignore_errors=True)
        carried.mkdir(parents=True)
        for name in CARRIED:
            if Path(name).is_dir():
                shutil.copytree(name, carried / name, ignore=shutil.ignore_patterns(".*", "__pycache__"))
            else:
                shutil.copy(name, carried / name)


setup(cmdclass={"build_py": BuildWithData})
