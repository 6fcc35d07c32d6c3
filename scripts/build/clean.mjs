// SPDX-License-Identifier: Apache-2.0
// Removes everything that the build makes; node_modules stays.
import { rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
for (const folder of ['build', 'dist', 'prebuilds']) {
  rmSync(join(root, folder), { recursive: true, force: true })
}
