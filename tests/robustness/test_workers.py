"""The worker is killed, or LLVM ends it."""

from __future__ import annotations

import pytest

from tests.robustness.bench import ENGINES, FIRST, HELLO, NATIVE, STARTED_AGAIN, Bench, right, said

# ---- the worker is killed


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", ["start", "request", "answer=progress:head", "answer=done", "garbage"])
def test_a_worker_that_ends_is_started_again(cold: Bench, engine: str, what: str) -> None:
    run = cold.run(what, engine, guest=FIRST[engine])
    assert cold.done() == 1
    right(run)
    said(run, STARTED_AGAIN)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", ["behind=done", "noise"])
def test_a_worker_that_ends_unasked_is_no_trouble(cold: Bench, engine: str, what: str) -> None:
    run = cold.run(what, engine, guest=FIRST[engine])
    assert what == "noise" or cold.done() == 1
    right(run)
    assert run.lines == []


@pytest.mark.parametrize("engine", NATIVE)
def test_without_a_worker_the_guest_is_interpreted(cold: Bench, engine: str) -> None:
    run = cold.run("request", engine, count=1000, guest=HELLO)
    right(run)
    said(run, "is interpreted", "the compiler process ended")


@pytest.mark.parametrize(
    "what", ["start", "request", "answer=page", "answer=formed", "answer=region", "answer=region:head", "garbage"]
)
def test_a_worker_that_ends_on_a_region_is_started_again(warm: Bench, what: str) -> None:
    run = warm.run(what, "optimizer", long=True)
    assert warm.done() == 1
    right(run)
    said(run, STARTED_AGAIN)


@pytest.mark.parametrize("what", ["behind=region", "noise"])
def test_a_worker_that_ends_behind_a_region_is_no_trouble(warm: Bench, what: str) -> None:
    run = warm.run(what, "optimizer", long=True)
    right(run)
    assert run.lines == []


@pytest.mark.parametrize("what", ["start", "request", "answer=region"])
def test_without_a_worker_hot_code_stays_as_it_is(warm: Bench, what: str) -> None:
    run = warm.run(what, "optimizer", count=1000, long=True)
    assert 1 < warm.done() < 20
    right(run)
    said(run, "stays in the baseline engine", "the compiler process ended")


# ---- LLVM ends the process


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("how", "words"), [("abort", "SIGABRT: LLVM ERROR: Cannot select"), ("exit", "exit status 1")])
def test_a_form_that_llvm_does_not_survive_is_interpreted(cold: Bench, engine: str, how: str, words: str) -> None:
    form = "LDR_pre_size0_opc1"
    run = cold.run(f"form={how}:{form}", engine)
    right(run)
    said(run, f"{form} is interpreted", words)
    (record,) = cold.build.glob("*.failed")
    noted = record.read_text()
    assert words in noted
    again = cold.run("nothing", engine)  # nothing would be in the way now, but it is not tried again
    right(again)
    assert again.lines == run.lines
    assert record.read_text() == noted


@pytest.mark.parametrize(("how", "words"), [("abort", "SIGABRT: LLVM ERROR: Cannot select"), ("exit", "exit status 1")])
def test_a_region_that_llvm_does_not_survive_stays_as_it_is(warm: Bench, how: str, words: str) -> None:
    run = warm.run(f"region={how}", "optimizer", count=2, long=True)
    assert warm.done() == 2
    right(run)
    said(run, "stays in the baseline engine", words)
    (record,) = warm.build.glob("*.regions.failed")
    assert len(record.read_text().splitlines()) == 1
    again = warm.run("nothing", "optimizer", long=True)
    right(again)
    assert again.lines == run.lines


def test_llvm_that_survives_no_region_is_not_asked_for_ever(warm: Bench) -> None:
    run = warm.run("region=abort", "optimizer", count=1000, long=True)
    right(run)
    said(run, "stays in the baseline engine")
