#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
// Stands in for node-gyp when prebuildify runs it: prebuildify then takes build/Release/*.node. The
// arguments (rebuild, --target, --devdir) are node-gyp's and mean nothing to CMake; with Node-API one
// binary serves every version of Node.
import { buildNative } from './native.mjs'

process.exitCode = buildNative('maestrale')
