"""Where does a guest spend its instructions? The profile as text and as a page.

python examples/profile_program.py [PAGE.html]
"""

from __future__ import annotations

import sys
from pathlib import Path

from dbt.guests import GUESTS

import dbt
from dbt.tools.profile import Profile, html, text


def main() -> None:
    """Profile the guest `hash`."""
    guest = next(guest for guest in GUESTS if guest.name == "hash")

    def report(profile: Profile) -> None:
        print(text(profile, guest.name, top=5), end="")
        if sys.argv[1:]:
            Path(sys.argv[1]).write_text(html(profile, guest.name), encoding="utf-8")

    with dbt.open_program(guest.path, [guest.name, "2000"]) as program:
        program.instrument(Profile(report))
        program.run()


if __name__ == "__main__":
    main()
