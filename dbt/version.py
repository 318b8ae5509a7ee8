"""The version of the distribution: here for the command line and for setup.cfg."""

from __future__ import annotations

VERSION = "0.1.0"
