#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
// Stands in for node-gyp when prebuildify runs it: prebuildify then takes build/Release/*.node. The
// arguments (rebuild, --target, --devdir) are node-gyp's and mean nothing to CMake; with Node-API one
// binary serves every version of Node.
import { rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { buildNative } from './native.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
rmSync(join(root, 'build'), { recursive: true, force: true })
process.exitCode = buildNative('maestrale')
