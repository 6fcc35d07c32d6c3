#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds a libFuzzer target with clang and runs it from its corpus.
#     scripts/fuzz.sh [SECONDS] [TARGET]          default: 60 fuzz_gguf
# New inputs stay in the build directory; a crash leaves its input there and makes the exit code 1.
set -eu
seconds=${1:-60}
target=${2:-fuzz_gguf}
root=$(cd "$(dirname "$0")/.." && pwd)
build=${MAESTRALE_FUZZ_BUILD:-$root/build-fuzz}
name=${target#fuzz_}
dict=$root/tests/fuzz/$name.dict

mkdir -p "$build"
cmake -S "$root" -B "$build" -G Ninja -DCMAKE_CXX_COMPILER="${CXX:-clang++}" \
  -DMAESTRALE_FUZZ=ON -DMAESTRALE_TESTS=OFF > "$build/log" 2>&1 || { cat "$build/log" >&2; exit 1; }
ninja -C "$build" "$target" > "$build/log" 2>&1 || { cat "$build/log" >&2; exit 1; }
mkdir -p "$build/corpus/$name"
cd "$build"
options="-max_total_time=$seconds -max_len=65536 -rss_limit_mb=1024 -malloc_limit_mb=512 -timeout=10"
[ -f "$dict" ] && options="$options -dict=$dict"
# shellcheck disable=SC2086  # the options are words
exec "./tests/fuzz/$target" $options -print_final_stats=1 "corpus/$name" "$root/tests/fuzz/corpus/$name"
