// SPDX-License-Identifier: Apache-2.0
// npm's install step. In a checkout it builds the addon from its sources. In an installed package it
// compiles nothing and needs no network: it only says so when no prebuilt binary fits this machine.
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')

if (existsSync(join(root, 'CMakeLists.txt'))) {
  if (!existsSync(join(root, 'node_modules', 'cmake-js'))) {
    console.error(
      'maestrale builds from a checkout with its development dependencies: run "npm install" without --omit=dev.',
    )
    process.exitCode = 1
  } else {
    const { buildNative } = await import('./native.mjs')
    process.exitCode = buildNative('maestrale')
  }
} else {
  const { default: nodeGypBuild } = await import('node-gyp-build')
  try {
    nodeGypBuild.resolve(root)
  } catch {
    // Not a failure of `npm install`: the package may be bundled for another machine.
    console.warn(
      `maestrale has no prebuilt binary for ${process.platform}-${process.arch}; loading it will fail with ` +
        'ERR_NATIVE_LOAD. Build it from a checkout of its repository with "npm install".',
    )
  }
}
