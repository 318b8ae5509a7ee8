"""setup.cfg lists every package of the checkout's folders, with what belongs to it."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[2]


def package_folders() -> dict[str, str]:
    """The package_dir of setup.cfg: package name to folder."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    pairs = [line.split(" = ") for line in config["options"]["package_dir"].split("\n") if line]
    return dict(pairs)


def test_every_package_is_listed() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = set()
    for package, folder in package_folders().items():
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join([package, *init.parent.relative_to(ROOT / folder).parts]))
    assert listed == found


def test_every_folder_with_code_is_a_package() -> None:
    for folder in package_folders().values():
        for module in (ROOT / folder).rglob("*.py"):
            assert (module.parent / "__init__.py").exists(), f"{module.parent} has no __init__.py"
