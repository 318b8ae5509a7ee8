"""The protocols that need somebody else's library, without a cluster: names, and what is said without the library.

tests/cluster has the rest.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest
from dbt.machine.block import BadOption, ImageUnsupported, create_image, open_image, parse_spec
from dbt.machine.block.library import iovecs, load
from dbt.machine.block.protocols import gluster, rbd


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("rbd:pool/image", {"pool": "pool", "image": "image"}),
        ("rbd:pool/inner/image@snap", {"pool": "pool", "namespace": "inner", "image": "image", "snapshot": "snap"}),
        (r"rbd:p\:q/i\/j\@k@s:id=me:conf=/etc/a\:b:mon_host=h\:1",
         {"pool": "p:q", "image": "i/j@k", "snapshot": "s", "user": "me", "conf": "/etc/a:b",
          "settings": r"mon_host=h\:1"}),
        ("gluster://host/volume/a/b.qcow2", {"volume": "volume", "path": "a/b.qcow2", "host": "host", "port": 24007}),
        ("gluster+tcp://[::1]:7/v/a%20b", {"volume": "v", "path": "a b", "host": "::1", "port": 7}),
        ("gluster+unix:///v/a?socket=/run/s", {"volume": "v", "path": "a", "socket": "/run/s"}),
    ],
)  # fmt: skip
def test_uris(uri: str, expected: dict[str, Any]) -> None:
    spec = parse_spec(uri)
    assert spec.driver == uri.partition(":")[0].partition("+")[0]
    assert {name: spec.options[name] for name in expected} == expected


@pytest.mark.parametrize(
    "uri",
    ["rbd:", "rbd:pool", "rbd:pool/", "rbd:a/b/c/d", "rbd:pool/image:id=a:what=", "gluster://h/", "gluster://h/v",
     "gluster+unix:///v/p", "gluster://h/v/p?socket=s", "gluster+unix://h/v/p?socket=s", "gluster://h:99999/v/p",
     "gluster://h/v/p?what=1"],
)  # fmt: skip
def test_uris_that_cannot_be(uri: str) -> None:
    if uri == "rbd:pool/image:id=a:what=":
        assert parse_spec(uri).options["settings"] == "what="
        return
    with pytest.raises(BadOption):
        parse_spec(uri)


def test_settings_keep_what_has_a_backslash() -> None:
    assert rbd._settings(r"mon_host=a\:1,b\:2:key=x\\y") == [("mon_host", "a:1,b:2"), ("key", r"x\y")]
    assert rbd._settings("") == []
    with pytest.raises(BadOption, match="no name=value"):
        rbd._settings("a=b:c")


def test_names_say_where_and_no_secrets() -> None:
    assert str(parse_spec("rbd:p/i@s:key=secret:id=me")) == "rbd:p/i@s"
    assert str(parse_spec("gluster://h/v/a/b")) == "gluster:v/a/b"


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def none(name: str, **_: object) -> None:
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", none)
    for cached in (rbd._libraries, gluster._library):
        cached.cache_clear()
    yield
    for cached in (rbd._libraries, gluster._library):
        cached.cache_clear()


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize(
    ("image", "package"), [("rbd:pool/image", "librbd1"), ("gluster://localhost/volume/image", "libgfapi0")]
)
def test_without_the_library_it_says_what_to_install(image: str, package: str) -> None:
    for attempt in (
        lambda: open_image(image, "raw"), lambda: open_image(image), lambda: create_image(image, "raw", 512),
    ):  # fmt: skip
        with pytest.raises(ImageUnsupported, match="No such file") as caught:
            attempt()
        assert package in caught.value.hint


def test_a_library_of_another_version_is_an_error_too() -> None:
    with pytest.raises(ImageUnsupported, match="no_such_function"):
        load("rbd", "libc.so.6", "libc6", {"no_such_function": (None, ())})


def test_iovecs_point_to_the_memory_itself() -> None:
    own, fixed = bytearray(b"abcdef"), b"ghi"
    with iovecs([memoryview(own)[2:4], memoryview(fixed)]) as array:
        assert [(ctypes.string_at(entry.base, entry.length)) for entry in array] == [b"cd", b"ghi"]
        ctypes.memmove(array[0].base, b"XY", 2)
        with pytest.raises(BufferError):
            own.append(1)  # it is held
    assert own == b"abXYef"
    own.append(1)
