"""Stencils of forms: requests to LLVM text, compiled in one module, taken out of the object.

A request is a form and a variant, or a fused pair (a flag setter and a conditional branch); its number is the one that
EXIT_STENCIL carries. LLVM may abort the process on a form: the worker compiles batches in a child and halves a batch
that kills it; `fallback` stands in for the form that did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from dbt.engine.helpers import HELPERS
from dbt.engine.layout import (
    CONDITIONS,
    EXIT_UNIMPLEMENTED,
    FUSED_STENCIL,
    FUSED_VARIANTS,
    NO_FLAGS,
    POLL,
    POLL_FUSED,
    VARIANTS,
    WIDE,
    Env,
)
from dbt.ir.passes import dead_code, drop_flags, fold, fuse
from dbt.ir.state import StateOffsets

from .check import check
from .compile import compile_text, host_cpu
from .extract import Stencil, extract
from .holes import HoleSource, declarations
from .lower import Lowering
from .source import PC, Immediate
from .special import OF_STENCILS, PINNED, HoleSpecial, function, special_functions
from .text import METADATA, Body, Declarations, attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dbt.frontends.guest import Guest

    from dbt.ir.values import Template

    from .edges import TailCalls


class Request(NamedTuple):
    """A stencil that is wanted: bits WIDE, NO_FLAGS, POLL for a form; WIDE, POLL_FUSED for a pair."""

    form: int
    variant: int
    second: int = -1  # form of the conditional branch of a fused pair

    @property
    def wide(self) -> bool:
        return bool(self.variant & WIDE)

    @property
    def poll(self) -> bool:
        return bool(self.variant & (POLL if self.second < 0 else POLL_FUSED))


def request_of(guest: Guest, number: int) -> Request:
    """The request that a number (the value of EXIT_STENCIL) stands for."""
    if not number & FUSED_STENCIL:
        return Request(number // VARIANTS, number % VARIANTS)
    pair, variant = divmod(number & ~FUSED_STENCIL, FUSED_VARIANTS)
    first, condition = divmod(pair, CONDITIONS)
    tables = guest.tables
    seconds = [form for form in tables.forms if tables.metadata(form).fuse_second == condition]
    return Request(tables.fusable()[first].id, variant, seconds[0].id)


def template_of(guest: Guest, request: Request) -> Template:
    """The IR of a request."""
    template = guest.tables.forms[request.form].template
    if request.second >= 0:
        template = fuse(template, guest.tables.forms[request.second].template)
    elif request.variant & NO_FLAGS:
        template = drop_flags(template)
    return dead_code(fold(template))


class Operands(Protocol):
    """Makes the source of one function: HoleSource for stencils, RecordSource for handlers."""

    def __call__(self, body: Body, *, wide: bool, poll: bool) -> TailCalls: ...


def stencil_body(template: Template, declared: Declarations, operands: Operands, *, wide: bool, poll: bool) -> Body:
    """The text of one stencil."""
    body = Body(declared)
    Lowering(operands(body, wide=wide, poll=poll), StateOffsets(), tuple(HELPERS)).run(template)
    return body


def module_text(functions: Iterable[str], declared: Declarations) -> str:
    """A module of stencils."""
    return "\n".join((declarations(), declared.text(), *functions, attributes(host_cpu()[1]), METADATA, ""))


def compile_functions(functions: Iterable[str], declared: Declarations) -> dict[str, Stencil]:
    """Stencils by name of functions of translated code: one module, one pass through LLVM."""
    return extract(compile_text(module_text(functions, declared), reloc="static", opt=2, passes=False))


def compile_templates(
    templates: Iterable[tuple[str, Template, bool, bool]], operands: Operands = HoleSource
) -> dict[str, Stencil]:
    """Stencils of (name, template, wide, poll) by name: one module, one pass through LLVM."""
    declared = Declarations()
    functions = [
        function(name, stencil_body(template, declared, operands, wide=wide, poll=poll))
        for name, template, wide, poll in templates
    ]
    return compile_functions(functions, declared)


def compile_requests(guest: Guest, requests: Iterable[Request]) -> dict[Request, Stencil]:
    """Compile a batch in this process. Raises ExtractError, CompileError or IRError; LLVM may also abort the process.

    Where a faulting access would not find the guest's state as it was before the instruction, CheckError is raised.
    """
    found = compile_unchecked(guest, requests, HoleSource)
    for request, stencil in found.items():
        check(stencil, str(request))
    return found


def compile_unchecked(guest: Guest, requests: Iterable[Request], operands: Operands) -> dict[Request, Stencil]:
    """The first half of compile_requests."""
    named = {f"s{i}": request for i, request in enumerate(sorted(set(requests)))}
    found = compile_templates(((name, template_of(guest, r), r.wide, r.poll) for name, r in named.items()), operands)
    return {request: found[name] for name, request in named.items()}


def compile_specials(
    source: Callable[[Body], TailCalls] = HoleSpecial,
    writers: Mapping[int, Callable[[TailCalls], None]] = OF_STENCILS,
) -> dict[int, Stencil]:
    """The special stencils by number (formats.SPECIAL_...)."""
    declared = Declarations()
    functions = special_functions(declared, source, writers)
    found = compile_functions(functions.values(), declared)
    return {number: found[f"special_{number}"] for number in functions}


def fallback(request: Request) -> Stencil:
    """What stands for a form that cannot be compiled: it leaves with EXIT_UNIMPLEMENTED, the form as its value."""
    declared = Declarations()
    body = Body(declared)
    source = HoleSource(body, wide=True)
    for field, value in (("pc", source.value(Immediate(PC))), ("exit", EXIT_UNIMPLEMENTED), ("value", request.form)):
        body.line(f"store i64 {value}, ptr {source.env(Env.offset(field))}")
    source.leave(PINNED)
    return compile_functions([function("fallback", body)], declared)["fallback"]


__all__: Final = [
    "Request", "compile_functions", "compile_requests", "compile_specials", "compile_templates", "compile_unchecked",
    "fallback", "request_of", "template_of",
]  # fmt: skip
