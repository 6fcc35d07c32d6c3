#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Cross-compiles the core and its tests for arm64 and runs them under emulation, case by case.
#     scripts/test-arm64.sh [NAME-PART]                   without one: the kernels and most of the models
# Needs Debian's g++-aarch64-linux-gnu and qemu-user. Three processors: one that runs every table, one
# with the dot product only, and one without, where nothing but the scalar table may run.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build/arm64
launcher=
if command -v ccache > /dev/null; then launcher=ccache; fi

mkdir -p "$build"
cmake -S "$root" -B "$build" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$root/cmake/aarch64-linux-gnu.cmake" \
  -DCMAKE_CXX_COMPILER_LAUNCHER="$launcher" -DCMAKE_BUILD_TYPE=Emulated -DCMAKE_CXX_FLAGS_EMULATED=-O1 \
  -DMAESTRALE_KERNEL_OPTIMISE=-O1 -DMAESTRALE_TEST_FILES='/(main|attention_test|half_test|kernels_test|model_test)[.]cc$' \
  > "$build/log" 2>&1 || { cat "$build/log"; exit 1; }
ninja -C "$build" maestrale_tests > "$build/log" 2>&1 || { cat "$build/log"; exit 1; }

emulate="qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu"
$emulate max "$build/maestrale_tests" --list > "$build/all"
: > "$build/cases"
add() { # PROCESSOR PATTERN, an extended regular expression
  grep -E -- "$2" "$build/all" | sed "s/^/$1 /" >> "$build/cases"
}
if [ $# -gt 0 ]; then
  grep -F -- "$1" "$build/all" | sed 's/^/max /' > "$build/cases"
else
  add max '^kernels: |^attention: |^half: |^model: (swa16|hd128|every storage|greedy|logits do not depend on batch)'
  add cortex-a76 '^(kernels|attention): '
  add cortex-a72 '^kernels: an unknown|^half: |^model: (swa16|every storage)'
fi

status=0
# shellcheck disable=SC2016  # expanded by the inner shell
xargs -d '\n' -n 1 -P "$(nproc)" sh -c \
  'cpu=${3%% *}; exec $1 "$cpu" "$2" "${3#* }"' run "$emulate" "$build/maestrale_tests" \
  < "$build/cases" > "$build/passed" 2> "$build/reports" || status=$?
cat "$build/reports"
cases=$(wc -l < "$build/cases")
passed=$(grep -c '^[1-9][0-9]* passed, 0 failed$' "$build/passed" || true)
echo "$passed passed, $((cases - passed)) failed"
[ "$status" -eq 0 ] && [ "$passed" -gt 0 ] && [ "$passed" -eq "$cases" ]
