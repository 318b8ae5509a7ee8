"""The reference engine: templates evaluated in plain Python. It defines what every other engine must do."""

from .engine import ReferenceEngine

__all__ = ["ReferenceEngine"]
