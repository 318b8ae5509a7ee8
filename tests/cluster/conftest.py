"""What is here runs by `make test-cluster` only; the clusters are in places.py."""

from __future__ import annotations

import os

from .places import ceph, gluster

__all__ = ["ceph", "gluster"]
collect_ignore_glob = [] if os.environ.get("DRAGOMAN_CLUSTER") else ["test_*.py"]
