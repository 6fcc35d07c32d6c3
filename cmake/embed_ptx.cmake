# SPDX-License-Identifier: Apache-2.0
# cmake -DPTX_75=FILE -DPTX_80=FILE -DOUT=FILE -P embed_ptx.cmake: a C++ source that holds the PTX texts.
file(WRITE "${OUT}.new" "namespace maestrale::cuda {\n")
foreach(arch 75 80)
  file(READ "${PTX_${arch}}" text)
  file(APPEND "${OUT}.new" "extern const char kPtx${arch}[];\nconst char kPtx${arch}[] = R\"PTX(")
  file(APPEND "${OUT}.new" "${text}")
  file(APPEND "${OUT}.new" ")PTX\";\n")
endforeach()
file(APPEND "${OUT}.new" "}  // namespace maestrale::cuda\n")
file(RENAME "${OUT}.new" "${OUT}")
