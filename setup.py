"""What setup.cfg cannot say: the command is an executable (dbt/engine/launcher.py), which is installed as it is."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup  # before distutils, which is its own then

from distutils.command.build_scripts import build_scripts  # isort: skip


class BuildScripts(build_scripts):  # type: ignore[misc]
    """Copies scripts without reading them as text."""

    def copy_scripts(self) -> tuple[list[str], list[str]]:
        """Copy all; returns what there is, and what is new."""
        self.mkpath(self.build_dir)
        made = []
        for script in self.scripts:
            file = Path(self.build_dir) / Path(script).name
            self.copy_file(script, str(file))
            file.chmod(0o755)
            made.append(str(file))
        return made, made


setup(cmdclass={"build_scripts": BuildScripts})
