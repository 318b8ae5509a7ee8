"""What can go wrong with a network that a user asked for.

    UserError
    └── NetError      an option that is not known or means nothing; or what the host refused, with its reason

What guests and peers do wrong is counted, logged, and dropped: it raises nothing.
"""

from __future__ import annotations

from dbt.errors import UserError


class NetError(UserError):
    """`where`: the back end or what of its specification is wrong."""

    def __init__(self, where: str, reason: str, hint: str = "") -> None:
        super().__init__(f"{where}: {reason}", hint)
        self.where = where
        self.reason = reason
