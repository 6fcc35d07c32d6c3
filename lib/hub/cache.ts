// SPDX-License-Identifier: Apache-2.0
// The cache of the Hugging Face libraries, shared with Python's:
//
//   models--ORG--REPO/blobs/HASH                  the bytes, named by SHA-256 (large files) or git's blob hash
//   models--ORG--REPO/snapshots/COMMIT/PATH       a symbolic link to a blob
//   models--ORG--REPO/refs/REVISION               the commit that a branch or tag stood for
import { mkdir, readdir, readFile, rename, stat, symlink, writeFile } from 'node:fs/promises'
import { homedir, hostname } from 'node:os'
import { dirname, join, relative } from 'node:path'

import type { HubReference } from './reference.js'
import { type Selection, selectFiles } from './select.js'

export const COMMIT: RegExp = /^[0-9a-f]{40}$/

/** The folder of Hugging Face's files, which also holds the token of `hf auth login`. */
export function hubHome(): string {
  const { HF_HOME, XDG_CACHE_HOME } = process.env
  return HF_HOME || join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface')
}

/** The cache folder of a repository. */
export function repoFolder({ repo }: HubReference): string {
  const { HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE } = process.env
  const cache = HF_HUB_CACHE || HUGGINGFACE_HUB_CACHE || join(hubHome(), 'hub')
  return join(cache, `models--${repo.replace('/', '--')}`)
}

export function blobPath(reference: HubReference, hash: string): string {
  return join(repoFolder(reference), 'blobs', hash)
}

export function snapshotFolder(reference: HubReference, commit: string): string {
  return join(repoFolder(reference), 'snapshots', commit)
}

/** This machine, as a part of file names. */
export const HOST: string = hostname().replace(/[^\w]/g, '_').slice(0, 64)

let ownNames = 0

/** A name beside `path` that nobody else uses: several processes may fill the cache at a time. */
export function ownName(path: string): string {
  return `${path}.${HOST}-${process.pid}-${ownNames++}`
}

/** Size of a file in bytes, following links; undefined when it is not there. */
export async function fileSize(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size
  } catch {
    return undefined
  }
}

/** Makes PATH of a snapshot a link to the blob. */
export async function linkBlob(
  reference: HubReference,
  commit: string,
  path: string,
  hash: string,
): Promise<void> {
  const link = join(snapshotFolder(reference, commit), path)
  const temporary = ownName(link)
  await mkdir(dirname(link), { recursive: true })
  await symlink(relative(dirname(link), blobPath(reference, hash)), temporary)
  await rename(temporary, link)
}

export async function writeRef(reference: HubReference, commit: string): Promise<void> {
  if (COMMIT.test(reference.revision)) return
  const ref = join(repoFolder(reference), 'refs', reference.revision)
  const temporary = ownName(ref)
  await mkdir(dirname(ref), { recursive: true })
  await writeFile(temporary, commit)
  await rename(temporary, ref)
}

async function readRef(reference: HubReference): Promise<string | undefined> {
  if (COMMIT.test(reference.revision)) return reference.revision
  try {
    const ref = join(repoFolder(reference), 'refs', reference.revision)
    const commit = (await readFile(ref, 'utf8')).trim()
    return COMMIT.test(commit) ? commit : undefined
  } catch {
    return undefined
  }
}

/** Are all files that the index of a sharded checkpoint names there? */
async function hasAllShards(folder: string, paths: readonly string[]): Promise<boolean> {
  const index = paths.find((path) => path.endsWith('.safetensors.index.json'))
  if (index === undefined) return true
  try {
    const { weight_map: map } = JSON.parse(await readFile(join(folder, index), 'utf8'))
    const shards = new Set(Object.values(map as Record<string, string>))
    return [...shards].every((name) => paths.includes(name))
  } catch {
    return false
  }
}

/** The path of a model that is in the cache as a whole, without asking the hub; undefined when it is not. */
export async function findCached(reference: HubReference): Promise<string | undefined> {
  const commit = await readRef(reference)
  if (commit === undefined) return undefined
  const folder = snapshotFolder(reference, commit)
  let selection: Selection
  try {
    const paths: string[] = []
    for (const entry of await readdir(folder, { recursive: true })) {
      if ((await fileSize(join(folder, entry))) !== undefined) paths.push(entry)
    }
    selection = selectFiles(paths, reference)
  } catch {
    return undefined // no such snapshot, or not with these files
  }
  return (await hasAllShards(folder, selection.paths)) ? join(folder, selection.model) : undefined
}
