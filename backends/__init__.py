"""Engines' back ends: `reference` evaluates the IR in plain Python, `llvm` compiles it, and the native subset too."""
