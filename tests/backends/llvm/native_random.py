"""Random native functions."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.engine.image import Image

    Build = Callable[..., Image]


class Program:
    """Writes native functions with random types, expressions and statements, free of undefined behaviour."""

    TYPES = ("u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "u128")
    HEADER = (
        "from __future__ import annotations\nfrom dbt.native import *\n\nT = table(i16, range(-8, 8))\n\n"
        "@struct\nclass S(Struct):\n    a: u8\n    b: i64\n    c: i16\n    d: Arr[u32] = array(4)\n"
        "    e: Arr[i8] = array(8)\n    f: u64\n"
    )
    FIELDS: ClassVar = {"u8": "s.a", "i64": "s.b", "i16": "s.c", "u64": "s.f"}

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.locals: dict[str, str] = {}
        self.loops = 0

    def text(self, functions: int) -> str:
        parts = [self.HEADER]
        for number in range(functions):
            self.locals = {f"p{i}": self.rng.choice(self.TYPES[:-1]) for i in range(3)}
            listed = "".join(f", {n}: {t}" for n, t in self.locals.items())
            first = [f"v{i}" for i in range(4)]
            lines = []
            for name in first:
                kind = self.rng.choice(self.TYPES)
                lines.append(f"{name}: {kind} = {self.expression(kind, 2)}")
                self.locals[name] = kind
            lines += self.block(2, 6)
            result = " ^ ".join(f"u64({name})" for name in first)
            body = "\n".join(f"    {line}" for line in [*lines, f"return {result}"])
            parts.append(f"@native\ndef f{number}(s: S{listed}) -> u64:\n{body}\n")
        return "\n".join(parts)

    def block(self, depth: int, size: int) -> list[str]:
        return [line for _ in range(size) for line in self.statement(depth)]

    def nested(self, depth: int) -> list[str]:
        return ["    " + line for line in self.block(depth, self.rng.randint(1, 3))]

    def statement(self, depth: int) -> list[str]:
        rng = self.rng
        choice = rng.randint(0, 9 if depth else 3)
        name = rng.choice([n for n in self.locals if not n.startswith("k")])
        kind = self.locals[name]
        if choice == 0:
            op = rng.choice(["+", "-", "*", "&", "|", "^"])
            return [f"{name} {op}= {self.expression(kind, 2)}"]
        if choice == 1:
            target, kind = rng.choice([*((f, k) for k, f in self.FIELDS.items()), ("s.d[p0 & 3]", "u32")])
            return [f"{target} {rng.choice(['', '+', '^'])}= {self.expression(kind, 2)}"]
        if choice <= 3:
            return [f"{name} = {self.expression(kind, 3)}"]
        if choice <= 5:
            lines = [f"if {self.condition(2)}:", *self.nested(depth - 1)]
            return [*lines, "else:", *self.nested(depth - 1)] if rng.random() < 0.5 else lines
        if choice == 6:
            return self.loop(depth)
        if choice == 7:
            self.loops += 1
            count = f"n{self.loops}"
            leave = f"    if {self.condition(1)}:"
            lines = [f"{count}: u64 = 0", f"while {count} < {rng.randint(1, 4)}:", f"    {count} += 1"]
            return [*lines, leave, f"        {rng.choice(['break', 'continue'])}", *self.nested(depth - 1)]
        subject = self.expression("u8", 1)
        lines = [f"match ({subject}) & 7:"]
        for values in ("1", "2 | 5", "3"):
            lines += [f"    case {values}:", *("    " + line for line in self.nested(depth - 1))]
        return [*lines, "    case _:", *("    " + line for line in self.nested(depth - 1))]

    def loop(self, depth: int) -> list[str]:
        self.loops += 1
        name = f"k{self.loops}"
        low, high = sorted(self.rng.sample(range(12), 2))
        step = self.rng.choice(["", ", 2", ", 3"])
        bounds = f"u8({low}), u8({high}){step}" if self.rng.random() < 0.7 else f"u8({high}), u8({low}), -2"
        self.locals[name] = "u8"
        body = self.nested(depth - 1)
        del self.locals[name]
        return [f"for {name} in range({bounds}):", *body]

    def condition(self, depth: int) -> str:
        rng = self.rng
        choice = rng.randint(0, 4 if depth else 0)
        if choice <= 1:
            kind = rng.choice(self.TYPES)
            op = rng.choice(["==", "!=", "<", "<=", ">", ">="])
            return f"({self.expression(kind, depth - 1)} {op} {self.expression(kind, depth - 1)})"
        if choice == 2:
            return f"(not {self.condition(depth - 1)})"
        if choice == 3:
            return f"({self.condition(depth - 1)} {rng.choice(['and', 'or'])} {self.condition(depth - 1)})"
        return f"bool({self.expression(rng.choice(self.TYPES), depth - 1)})"

    def leaf(self, kind: str) -> str:
        rng = self.rng
        names = [n for n, t in self.locals.items() if t == kind]
        if names and rng.random() < 0.6:
            return rng.choice(names)
        if kind in self.FIELDS and rng.random() < 0.5:
            return self.FIELDS[kind]
        if kind == "i16" and rng.random() < 0.5:
            return "T[p1 & 15]"
        if kind == "i8" and rng.random() < 0.5:
            return "s.e[p2 & 7]"
        return f"{kind}({rng.choice([0, 1, -1, rng.getrandbits(7), rng.getrandbits(128)])})"

    def expression(self, kind: str, depth: int) -> str:
        rng = self.rng
        if depth <= 0:
            return self.leaf(kind)
        a, b = (self.expression(kind, depth - 1) for _ in range(2))
        signed, bits = kind.startswith("i"), int(kind[1:])
        match rng.randint(0, 8):
            case 0 | 1:
                return f"({a} {rng.choice(['+', '-', '*', '&', '|', '^'])} {b})"
            case 2:
                return f"({a} {rng.choice(['<<', '>>'])} ({b} & {bits - 1}))"
            case 3 if bits <= 64:
                return f"({a} {rng.choice(['//', '%'])} (({b} & 15) + 1))"
            case 4:
                return f"{kind}({self.expression(rng.choice(self.TYPES), depth - 1)})"
            case 5:
                return f"({a} if {self.condition(depth - 1)} else {b})"
            case 6:
                return f"{rng.choice(['min', 'max', 'rotl', 'rotr'])}({a}, {b})"
            case 7:
                names = ["ctz", "clz", "popcount", "bitreverse"] + ["bswap"] * (bits > 8)
                return f"{rng.choice(names)}({a})"
        if bits <= 64:
            return f"mul_high({a}, {b})"
        return f"(-{a})" if signed else f"(~{a})"
