#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the native tests with sanitizers and runs them, case by case.
#     scripts/ci/sanitize.sh address|thread [NAME-PART]       address: with undefined behaviour too
# Of the kernel tables only the scalar and the AVX2 one are built: the others are the same templates over other
# vectors, take many minutes to compile with instrumentation, and are held to the scalar one's bits by the ordinary
# tests. The models run on AVX2, where an instrumented access is a vector and not a lane.
# The CUDA back end stays out: its tests run on the simulator, whose interpreter takes minutes a case when it is
# instrumented. -DMAESTRALE_CUDA=ON -DMAESTRALE_PTXSIM=ON in $MAESTRALE_SANITIZE_OPTIONS brings it back.
set -eu
kind=${1:?address or thread}
case $kind in
  address) sanitizers=address,undefined ;;
  thread) sanitizers=thread ;;
  *) echo "unknown sanitizer $kind" >&2; exit 2 ;;
esac
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${MAESTRALE_SANITIZE_BUILD:-$root/build-$kind}
launcher=
if command -v ccache > /dev/null; then launcher=ccache; fi

mkdir -p "$build"
# shellcheck disable=SC2086  # the options are words
cmake -S "$root" -B "$build" -G Ninja -DCMAKE_CXX_COMPILER_LAUNCHER="$launcher" -DCMAKE_BUILD_TYPE=Sanitize \
  -DCMAKE_CXX_FLAGS_SANITIZE="-O1 -g1" -DMAESTRALE_SANITIZE="$sanitizers" -DMAESTRALE_FEW_TABLES=ON \
  -DMAESTRALE_CUDA=OFF -DMAESTRALE_PTXSIM=OFF ${MAESTRALE_SANITIZE_OPTIONS:-} \
  > "$build/log" 2>&1 || { cat "$build/log"; exit 1; }
ninja -C "$build" maestrale_tests > "$build/log" 2>&1 || { cat "$build/log"; exit 1; }

export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=second_deadlock_stack=1:history_size=4
# Each case in a process of its own: a report ends that case only, and all cores are used.
"$build/maestrale_tests" --list | grep -F -- "${2:-}" > "$build/cases"
status=0
xargs -d '\n' -n 1 -P "$(nproc)" "$build/maestrale_tests" \
  < "$build/cases" > "$build/passed" 2> "$build/reports" || status=$?
cat "$build/reports"
cases=$(wc -l < "$build/cases")
passed=$(grep -c '^[1-9][0-9]* passed, 0 failed$' "$build/passed" || true)
echo "$passed passed, $((cases - passed)) failed"
[ "$status" -eq 0 ] && [ "$passed" -gt 0 ] && [ "$passed" -eq "$cases" ]
