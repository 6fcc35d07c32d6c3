// SPDX-License-Identifier: Apache-2.0
// A model from the Hugging Face hub to the cache that all of its libraries share, and to a path to load.
import { mkdir, statfs } from 'node:fs/promises'
import { join } from 'node:path'

import { MaestraleError } from '../errors.js'
import type { JobOptions } from '../job.js'
import type { LoadProgress } from '../types.js'
import { type Checks, checkOptions, functionValue, nonEmptyText, signal } from '../validate.js'
import {
  blobPath,
  fileSize,
  findCached,
  linkBlob,
  repoFolder,
  snapshotFolder,
  writeRef,
} from './cache.js'
import { HubClient, type HubFile, isOffline } from './client.js'
import { downloadBlob } from './download.js'
import { partialSize } from './partial.js'
import { HUB_PREFIX, type HubReference, parseReference, showReference } from './reference.js'
import { selectFiles } from './select.js'

/** Options of {@link pullModel}. */
export interface PullOptions {
  /** A branch, tag or commit; default `'main'`, or what stands behind `@` in the reference. */
  revision?: string
  /** Called while bytes arrive; those that earlier attempts have left count as loaded. */
  onProgress?: (progress: LoadProgress) => void
  /** Stops the download, which can be continued; the promise then rejects with the signal's reason. */
  signal?: AbortSignal
}

/** A model in the cache. */
export interface PulledModel {
  repo: string
  /** The commit that was downloaded. */
  revision: string
  /** What {@link loadModel} takes: a GGUF file or a directory. */
  path: string
  files: { path: string; size: number }[]
  /** Bytes that had to be downloaded, not counting what another process downloaded meanwhile. */
  downloadedBytes: number
}

const PULL_CHECKS: Checks<PullOptions> = {
  revision: nonEmptyText,
  onProgress: functionValue,
  signal,
}

/**
 * Downloads a model from the Hugging Face hub into the cache that Python's libraries use too (HF_HOME). What is
 * there already is kept, what broke off is continued, every file is checked against the hub's hash. Private
 * and gated models need HF_TOKEN; HF_ENDPOINT names another server.
 *
 * @param reference `'org/repo'`, `'org/repo:quant'`, with or without `hf:` in front: the GGUF file in that
 *   quantisation, else the only one or Q4_K_M, else the safetensors files with their tokenizer; never pickles
 * @throws TypeError or RangeError with ERR_INVALID_ARG; MaestraleError ERR_DOWNLOAD, ERR_MODEL_UNSUPPORTED (no
 *   file fits); the signal's reason
 * @example
 * const { path } = await pullModel('TheBloke/Mistral-7B-Instruct-v0.1-GGUF:Q4_K_M')
 * const model = await loadModel(path)
 */
export async function pullModel(
  reference: string,
  options: PullOptions = {},
): Promise<PulledModel> {
  nonEmptyText(reference, 'reference')
  checkOptions(options, PULL_CHECKS)
  return await pull(parseReference(reference, options.revision), options)
}

async function pull(reference: HubReference, options: PullOptions): Promise<PulledModel> {
  options.signal?.throwIfAborted()
  if (isOffline()) {
    throw new MaestraleError(
      'ERR_DOWNLOAD',
      `${showReference(reference)} would have to be downloaded, which HF_HUB_OFFLINE forbids.`,
    )
  }
  const client = new HubClient(reference, options.signal)
  const commit = await client.commit()
  const all = await client.files(commit)
  const { model, paths } = selectFiles(
    all.map((file) => file.path),
    reference,
  )
  const files = paths.flatMap((path) => all.find((file) => file.path === path) ?? [])
  const total = files.reduce((sum, file) => sum + file.size, 0)
  let loaded = 0
  let downloadedBytes = 0
  const advance = (bytes: number) => {
    loaded += bytes
    options.onProgress?.({ phase: 'download', loaded, total })
  }
  try {
    await mkdir(repoFolder(reference), { recursive: true })
    const missing: HubFile[] = []
    for (const file of files) {
      // A blob has its name only after its bytes have been checked.
      if ((await fileSize(blobPath(reference, file.hash))) === file.size) advance(file.size)
      else missing.push(file)
    }
    await checkSpace(reference, missing)
    for (const file of files) {
      if (missing.includes(file)) {
        const blob = blobPath(reference, file.hash)
        if (await downloadBlob(client, file, commit, blob, advance)) downloadedBytes += file.size
      }
      await linkBlob(reference, commit, file.path, file.hash)
    }
    await writeRef(reference, commit)
  } catch (error) {
    throw explain(error, reference)
  }
  const path = join(snapshotFolder(reference, commit), model)
  const sizes = files.map(({ path: name, size }) => ({ path: name, size }))
  return { repo: reference.repo, revision: commit, path, files: sizes, downloadedBytes }
}

async function checkSpace(reference: HubReference, missing: readonly HubFile[]): Promise<void> {
  let needed = 0
  for (const { size, hash } of missing) {
    needed += size - (await partialSize(blobPath(reference, hash)))
  }
  const { bavail, bsize } = await statfs(repoFolder(reference))
  if (needed > bavail * bsize) {
    throw new MaestraleError(
      'ERR_DOWNLOAD',
      `${showReference(reference)} needs ${needed} bytes, but '${repoFolder(reference)}' has ${bavail * bsize} left.`,
    )
  }
}

/** Failures of the cache's disk, in one sentence. */
function explain(error: unknown, reference: HubReference): unknown {
  if (!(error instanceof Error) || !('syscall' in error)) return error
  return new MaestraleError(
    'ERR_DOWNLOAD',
    `${showReference(reference)} cannot be written to '${repoFolder(reference)}': ${error.message}.`,
    { cause: error },
  )
}

/**
 * @internal The path that `model`, a model or an adapter, names: itself, or for `hf:...` that in the cache,
 * downloaded when it is not there yet.
 */
export async function resolveModel(
  model: string,
  { onProgress, signal }: JobOptions = {},
): Promise<string> {
  if (!model.startsWith(HUB_PREFIX)) return model
  const reference = parseReference(model)
  const options = { ...(onProgress && { onProgress }), ...(signal && { signal }) }
  return (await findCached(reference)) ?? (await pull(reference, options)).path
}
