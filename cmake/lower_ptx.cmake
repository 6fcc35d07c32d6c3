# SPDX-License-Identifier: Apache-2.0
# cmake -DPTX=FILE -DVERSION=7.0 -P lower_ptx.cmake: gives a PTX text the least .version that its instructions
# need. nvcc writes its own, which only drivers as new as itself accept; with 6.5 and 7.0 drivers from 440 and 450
# on do. ptxas refuses instructions that are newer than the .version.
file(READ "${PTX}" text)
string(REGEX REPLACE "\\.version [0-9.]+" ".version ${VERSION}" text "${text}")
file(WRITE "${PTX}" "${text}")
