// SPDX-License-Identifier: Apache-2.0
// Files of the cache that have not arrived as a whole. While a process works on one it has a name that no other
// process uses, TARGET.HOST-PID-N.incomplete, so that several may download the same file at a time where they do not
// take turns (turn.ts), on different hosts for instance; what is given up is TARGET.incomplete, and whoever comes next
// goes on with it, or with that of a process that has died.
import { readdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

import { fileSize, HOST, ownName } from './cache.js'

const SUFFIX = '.incomplete'

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}

interface Partial {
  path: string
  /** Bytes. */
  size: number
  /** Nobody works on it. Processes of other hosts cannot be asked: what they have is theirs. */
  isFree: boolean
}

/** What there is of `target`, the largest first. */
async function partials(target: string): Promise<Partial[]> {
  const prefix = `${basename(target)}.`
  const found: Partial[] = []
  for (const name of await readdir(dirname(target)).catch(() => [])) {
    if (!name.startsWith(prefix) || !name.endsWith(SUFFIX)) continue
    const owner = name.slice(prefix.length - 1, -SUFFIX.length)
    const [, host, pid] = /^\.(.*)-(\d+)-\d+$/.exec(owner) ?? []
    const isFree = owner === '' || (host === HOST && !isAlive(Number(pid)))
    const path = join(dirname(target), name)
    found.push({ path, size: (await fileSize(path)) ?? 0, isFree })
  }
  return found.sort((a, b) => b.size - a.size)
}

async function leftovers(target: string): Promise<Partial[]> {
  return (await partials(target)).filter(({ isFree }) => isFree)
}

/** Bytes of `target` that are there, whoever works on them. */
export async function partialSize(target: string): Promise<number> {
  return (await partials(target))[0]?.size ?? 0
}

/** The path of this process's own partial file of `target`, with what others have left or not there yet. */
export async function claimPartial(target: string): Promise<string> {
  const own = ownName(target) + SUFFIX
  for (const { path } of await leftovers(target)) {
    try {
      await rename(path, own)
      break
    } catch {
      // Another process was faster.
    }
  }
  return own
}

/** Removes what others have left of `target`, which is complete. */
export async function dropPartials(target: string): Promise<void> {
  for (const { path } of await leftovers(target)) await rm(path, { force: true })
}

/** Leaves it to whoever comes next. */
export async function leavePartial(own: string, target: string): Promise<void> {
  await rename(own, target + SUFFIX).catch(() => {})
}
