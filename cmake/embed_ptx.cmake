# SPDX-License-Identifier: Apache-2.0
# cmake -DPTX_75=FILE -DPTX_80=FILE -DOUT=FILE -P embed_ptx.cmake: a C++ source that holds the PTX texts.
# nvcc writes its own .version whatever the code needs; lowered to 6.5 and 7.0, drivers from 440 and 450 on
# accept the texts.
file(WRITE "${OUT}.new" "namespace maestrale::cuda {\n")
foreach(arch 75 80)
  file(READ "${PTX_${arch}}" text)
  if(arch EQUAL 75)
    string(REGEX REPLACE "\\.version [0-9.]+" ".version 6.5" text "${text}")
  else()
    string(REGEX REPLACE "\\.version [0-9.]+" ".version 7.0" text "${text}")
  endif()
  file(APPEND "${OUT}.new" "extern const char kPtx${arch}[];\nconst char kPtx${arch}[] = R\"PTX(")
  file(APPEND "${OUT}.new" "${text}")
  file(APPEND "${OUT}.new" ")PTX\";\n")
endforeach()
file(APPEND "${OUT}.new" "}  // namespace maestrale::cuda\n")
file(RENAME "${OUT}.new" "${OUT}")
