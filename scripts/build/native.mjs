// SPDX-License-Identifier: Apache-2.0
// Builds a target of CMakeLists.txt in build/:   node scripts/build/native.mjs maestrale | maestrale_tests
// Both targets share one build directory, so the core is compiled once. Uses ccache when it is there.
import { spawnSync } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { availableParallelism } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')

function isOnPath(program) {
  return (process.env.PATH ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/** What is missing to build, as one sentence; undefined when everything is there. */
function missingTools() {
  const compilers = process.env.CXX ? [process.env.CXX.split(' ')[0]] : ['g++', 'clang++', 'c++']
  const missing = []
  if (!compilers.some((name) => name.includes('/') || isOnPath(name))) {
    missing.push(
      process.env.CXX ? `the compiler ${compilers[0]} named by CXX` : 'a C++20 compiler (g++)',
    )
  }
  if (!isOnPath('cmake')) missing.push('cmake')
  if (!isOnPath('make') && !isOnPath('ninja')) missing.push('make')
  if (missing.length === 0) return undefined
  return (
    `maestrale cannot build its native part: ${missing.join(' and ')} not found; ` +
    'on Debian and Ubuntu, install them with "apt-get install g++ cmake make".'
  )
}

/** Runs cmake-js; returns its exit status. */
function cmakeJs(args, env) {
  const script = join(root, 'node_modules', 'cmake-js', 'bin', 'cmake-js')
  const run = spawnSync(process.execPath, [script, ...args], { cwd: root, env, stdio: 'inherit' })
  return run.status ?? 1
}

/** Configures and builds `target`; returns an exit status. */
export function buildNative(target) {
  const problem = missingTools()
  if (problem) {
    console.error(problem)
    return 1
  }
  const env = { ...process.env }
  if (!env.CMAKE_CXX_COMPILER_LAUNCHER && isOnPath('ccache'))
    env.CMAKE_CXX_COMPILER_LAUNCHER = 'ccache'
  const jobs = env.CMAKE_BUILD_PARALLEL_LEVEL ?? String(availableParallelism())
  const configured = cmakeJs(['configure', '--log-level', 'error', '--CDMAESTRALE_ADDON=ON'], env)
  if (configured !== 0) return configured
  return cmakeJs(['build', '--log-level', 'error', '--target', target, '--parallel', jobs], env)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.exitCode = buildNative(process.argv[2] ?? 'maestrale')
}
