#!/bin/sh
# build.sh [FOLDER]: compile every guest in this folder into FOLDER (bin/ beside this file).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/bin}
mkdir -p "$out"
for source in "$here"/*.c "$here"/*.S; do
    name=$(basename "$source")
    "${CROSS_CC:-aarch64-linux-gnu-gcc}" -std=gnu11 -O2 -Wall -Wextra -Werror -ffreestanding -mgeneral-regs-only \
        -march=armv8-a -fno-stack-protector -fno-asynchronous-unwind-tables -fno-pie -fno-tree-loop-distribute-patterns \
        -nostdlib -static -no-pie -s -Wl,--build-id=none -Wl,-z,max-page-size=4096,-z,noseparate-code,-z,norelro \
        -o "$out/${name%.*}" "$source"
done
