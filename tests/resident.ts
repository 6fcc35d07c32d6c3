// SPDX-License-Identifier: Apache-2.0
// Memory of this process, for tests that want it not to grow.
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** Resident bytes after collections: a disposed model's tokenizer lives as long as its object. */
export async function residentBytes(): Promise<number> {
  for (let i = 0; i < 5; i++) {
    collect()
    await sleep(20)
  }
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024
}
