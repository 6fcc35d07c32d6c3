// SPDX-License-Identifier: Apache-2.0
// Finds and loads maestrale.node, for ES modules; addon.cjs is the same for CommonJS. These two are
// plain JavaScript because they are the only files that must know where the package lies.
import { fileURLToPath } from 'node:url'
import nodeGypBuild from 'node-gyp-build'

export const packageRoot = fileURLToPath(new URL('../..', import.meta.url))
export const loadAddon = () => nodeGypBuild(packageRoot)
