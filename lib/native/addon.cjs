// SPDX-License-Identifier: Apache-2.0
// Finds and loads maestrale.node, for CommonJS; addon.mjs is the same for ES modules. The build copies
// this file to dist/cjs/native, and it works from there only.
'use strict'
const { join } = require('node:path')
const nodeGypBuild = require('node-gyp-build')

exports.packageRoot = join(__dirname, '..', '..', '..')
exports.loadAddon = () => nodeGypBuild(exports.packageRoot)
