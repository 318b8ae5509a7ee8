"""What this build can do, taken from the tables: guests, engines, instruction-set features. For `dragoman features`."""

from __future__ import annotations

from typing import TypedDict

from dbt.run import ENGINES
from dbt.version import VERSION


class FeatureFacts(TypedDict):
    """An optional part of a guest's architecture."""

    name: str
    description: str


class GuestFacts(TypedDict):
    """One guest: how many forms of instructions its tables have, and the optional parts among them."""

    name: str
    aliases: list[str]
    instructions: int
    forms: int
    hwcap: list[int]
    features: list[FeatureFacts]


class Facts(TypedDict):
    """All of it: what `dragoman features --json` prints."""

    version: str
    engines: list[str]
    guests: list[GuestFacts]


def collect() -> Facts:
    """Look at every guest's tables."""
    from dbt.frontends.guest import GUESTS, load_guest

    guests = []
    for name in sorted(set(GUESTS.values())):
        guest = load_guest(name)
        forms = guest.forms
        guests.append(
            GuestFacts(
                name=guest.name,
                aliases=sorted({*guest.aliases} - {guest.name}),
                instructions=len({form.row.group for form in forms}),
                forms=len(forms),
                hwcap=list(guest.hwcap),
                features=[FeatureFacts(name=f.name, description=f.description) for f in guest.features],
            )
        )
    return Facts(version=VERSION, engines=list(ENGINES), guests=guests)


def table(facts: Facts) -> str:
    """The facts as text for people."""
    lines = [f"Dragoman {facts['version']}", f"engines: {', '.join(facts['engines'])}"]
    for guest in facts["guests"]:
        names = ", ".join([guest["name"], *guest["aliases"]])
        lines += ["", f"guest {names}: {guest['instructions']} instructions in {guest['forms']} forms"]
        lines += [f"  HWCAP {guest['hwcap'][0]:#x}, HWCAP2 {guest['hwcap'][1]:#x}"]
        width = max((len(feature["name"]) for feature in guest["features"]), default=0)
        lines += [f"  {feature['name']:{width}}  {feature['description']}" for feature in guest["features"]]
    return "\n".join(lines) + "\n"
