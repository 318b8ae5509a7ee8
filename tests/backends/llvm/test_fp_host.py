"""A host that lacks what lowered floating point needs is named, not met by the assembler."""

from __future__ import annotations

import pytest
from dbt.backends.llvm import fp_host

from dbt.errors import Unimplemented


def test_missing_features_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fp_host, "host_cpu", lambda: ("nehalem", "+sse4.2,-avx,-fma,+f16c"))
    with pytest.raises(Unimplemented, match="without avx, fma"):
        fp_host.require_host.__wrapped__()
