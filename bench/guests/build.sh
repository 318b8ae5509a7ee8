#!/bin/sh
# build.sh [FOLDER]: compile every guest in this folder into FOLDER (bin/ beside this file).
# build.sh --host FOLDER: those in C as programs of this host, to compare with.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ "${1:-}" = --host ]; then
    out=$2 compiler=${CC:-cc} sources=$here/*.c
else
    out=${1:-$here/bin} compiler="${CROSS_CC:-aarch64-linux-gnu-gcc} -march=armv8-a" sources="$here/*.c $here/*.S"
fi
mkdir -p "$out"
for source in $sources; do
    name=$(basename "$source")
    $compiler -std=gnu11 -O2 -Wall -Wextra -Werror -ffreestanding -mgeneral-regs-only \
        -fno-stack-protector -fno-asynchronous-unwind-tables -fno-pie -fno-tree-loop-distribute-patterns \
        -nostdlib -static -no-pie -s -Wl,--build-id=none -Wl,-z,max-page-size=4096,-z,noseparate-code,-z,norelro \
        -o "$out/${name%.*}" "$source"
done
