#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the PTX files of kernels.cu for each architecture; they are committed, so that the tests run
# where nvcc is missing.
cd "$(dirname "$0")" || exit 1
for arch in 75 80 90 100; do
  nvcc -ptx -O3 -std=c++17 -arch="compute_$arch" kernels.cu -o "kernels_$arch.ptx" || exit 1
done
