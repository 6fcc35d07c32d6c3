// SPDX-License-Identifier: Apache-2.0
// Checks the layers: which folder of native/, and cuda/, may include which, and who may see Node-API, CUDA and SIMD
// intrinsics.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

// Folder -> folders of native/ it may include beside itself.
const LAYERS = {
  base: [],
  quant: ['base'],
  io: ['base', 'quant'],
  backend: ['base', 'quant'],
  cpu: ['base', 'quant', 'backend'],
  cuda: ['base', 'quant', 'backend'],
  tokenizer: ['base', 'io'],
  sampling: ['base'],
  model: ['base', 'quant', 'io', 'backend'],
  engine: ['base', 'quant', 'io', 'backend', 'tokenizer', 'sampling', 'model', 'cpu', 'cuda'],
  addon: ['base', 'quant', 'io', 'backend', 'tokenizer', 'sampling', 'model', 'cpu', 'engine'],
}
const INTRINSICS = /^(immintrin|x86intrin|emmintrin|arm_neon|cpuid)\.h$/
const MAY_USE_INTRINSICS = /^native\/cpu\/(isa_[a-z0-9_]+\.cc|simd_[a-z0-9_]+\.h|cpu_features\.cc)$/
const NODE_API = /^(napi|node_api|js_native_api|uv)\.h$/
const CUDA = /^(cuda|cuda_[a-z0-9_]+|nvrtc)\.h$/

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const tracked = execFileSync('git', ['ls-files', '-z', '*.h', '*.cc'], { cwd: root })

/** The rule that `file` breaks by including `header`, or undefined. */
function violation(file, header) {
  const folder = file.replace(/^native\//, '').split('/')[0]
  const allowed = LAYERS[folder]
  if (!allowed) return `folder native/${folder} is not one of the layers`
  if (NODE_API.test(header) && folder !== 'addon') return 'only native/addon may see Node-API'
  if (CUDA.test(header)) return 'only cuda/ may see CUDA'
  if (INTRINSICS.test(header) && !MAY_USE_INTRINSICS.test(file)) {
    return 'intrinsics belong to native/cpu/isa_*.cc and simd_*.h'
  }
  const target = header.includes('/') ? header.split('/')[0] : undefined
  if (target && target in LAYERS && target !== folder && !allowed.includes(target)) {
    return `${folder} may include only ${[folder, ...allowed].join(', ')}`
  }
  return undefined
}

const files = tracked.toString().split('\0')
for (const file of files.filter((name) => /^(native|cuda)\//.test(name))) {
  const lines = readFileSync(join(root, file), 'utf8').split('\n')
  lines.forEach((line, index) => {
    const header = /^\s*#\s*include\s*[<"]([^>"]+)[>"]/.exec(line)?.[1]
    const problem = header && violation(file, header)
    if (!problem) return
    console.error(`${file}:${index + 1}: includes ${header}: ${problem}`)
    process.exitCode = 1
  })
}
