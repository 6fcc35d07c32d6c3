// SPDX-License-Identifier: Apache-2.0
// Talks to the hub through @huggingface/hub: the commit of a revision, its files, their bytes. Every failure is
// one sentence with ERR_DOWNLOAD.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { MaestraleError } from '../errors.js'
import { COMMIT, hubHome } from './cache.js'
import { type HubReference, showReference } from './reference.js'

/** A file of a repository. */
export interface HubFile {
  path: string
  /** Bytes. */
  size: number
  /** SHA-256 of a large file, git's hash of a small one (SHA-1 of 'blob SIZE\0' and the bytes). */
  hash: string
}

// What the hub says in X-Error-Code beside the status.
const CAUSES: Record<string, string> = {
  GatedRepo:
    'is gated: accept its conditions on the hub and set HF_TOKEN to a token of your account',
  RepoNotFound: 'does not exist, or is private and needs HF_TOKEN',
  RevisionNotFound: 'has no such revision',
  EntryNotFound: 'has no such file',
}

function download(message: string, cause?: unknown): MaestraleError {
  return new MaestraleError('ERR_DOWNLOAD', message, cause === undefined ? undefined : { cause })
}

/** HF_TOKEN, or what `hf auth login` has left. */
async function readToken(): Promise<string | undefined> {
  const { HF_TOKEN, HF_TOKEN_PATH } = process.env
  if (HF_TOKEN) return HF_TOKEN.trim()
  try {
    return (await readFile(HF_TOKEN_PATH || join(hubHome(), 'token'), 'utf8')).trim() || undefined
  } catch {
    return undefined
  }
}

/** HF_HUB_OFFLINE: nothing is to be asked of the hub. */
export function isOffline(): boolean {
  return /^(1|on|yes|true)$/i.test(process.env.HF_HUB_OFFLINE ?? '')
}

/** One repository on the hub, or on the server that HF_ENDPOINT names. */
export class HubClient {
  readonly #reference: HubReference
  readonly #endpoint = (process.env.HF_ENDPOINT || 'https://huggingface.co').replace(/\/+$/, '')
  readonly #signal: AbortSignal | undefined
  #token: Promise<string | undefined> | undefined
  #failure: MaestraleError | undefined

  constructor(reference: HubReference, signal?: AbortSignal) {
    this.#reference = reference
    this.#signal = signal
  }

  /** The commit that the revision stands for now. */
  async commit(): Promise<string> {
    const { modelInfo } = await import('@huggingface/hub')
    const { repo, revision } = this.#reference
    const info = await this.#ask(() =>
      modelInfo({ name: repo, revision, additionalFields: ['sha'], ...this.#access() }),
    )
    if (!COMMIT.test(info.sha)) throw download(`${this.#endpoint} names no commit of '${repo}'.`)
    return info.sha
  }

  /** All files at a commit. */
  async files(commit: string): Promise<HubFile[]> {
    const { listFiles } = await import('@huggingface/hub')
    const { repo } = this.#reference
    const files: HubFile[] = []
    await this.#ask(async () => {
      for await (const entry of listFiles({
        repo,
        revision: commit,
        recursive: true,
        ...this.#access(),
      })) {
        const hash = entry.lfs?.oid ?? entry.oid ?? ''
        if (entry.type !== 'file') continue
        const sound = /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(hash) && Number.isSafeInteger(entry.size)
        // Paths become paths of the cache.
        if (!sound || /(^|\/)\.{0,2}(\/|$)|\\|\0/.test(entry.path)) {
          throw download(
            `${this.#endpoint} lists a file of '${repo}' that cannot be: '${entry.path}'.`,
          )
        }
        files.push({ path: entry.path, size: entry.size, hash })
      }
    })
    return files
  }

  /**
   * The bytes of a file from `start` on. Fails with `restart: true` where the server does not give them from
   * there: ask again with 0.
   */
  async *bytes(file: HubFile, commit: string, start: number): AsyncGenerator<Uint8Array> {
    const { downloadFile } = await import('@huggingface/hub')
    const { repo } = this.#reference
    const name = file.path.split('/').map(encodeURIComponent).join('/')
    const url = `${this.#endpoint}/${repo}/resolve/${commit}/${name}`
    const blob = await downloadFile({
      repo,
      path: file.path,
      ...this.#access(),
      downloadInfo: { url, size: file.size, etag: file.hash },
    })
    if (!blob) throw download(`'${repo}' has no file '${file.path}'.`)
    try {
      // The stream reports why it broke as a text; what was seen of it is kept in #failure.
      for await (const chunk of blob.slice(start).stream()) yield chunk
    } catch (error) {
      throw this.#explain(error)
    }
  }

  /** Waits; an abort ends it with the signal's reason. */
  async pause(milliseconds: number): Promise<void> {
    await sleep(milliseconds, undefined, this.#signal ? { signal: this.#signal } : {}).catch(
      () => {},
    )
    this.#signal?.throwIfAborted()
  }

  #access(): { hubUrl: string; fetch: typeof fetch } {
    return { hubUrl: this.#endpoint, fetch: this.#fetch }
  }

  async #ask<T>(request: () => Promise<T>): Promise<T> {
    try {
      return await request()
    } catch (error) {
      throw this.#explain(error)
    }
  }

  #explain(error: unknown): unknown {
    if (this.#signal?.aborted) return this.#signal.reason
    if (error instanceof MaestraleError) return error
    const failure = this.#failure
    this.#failure = undefined
    if (failure) return failure
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
    const code = cause instanceof Error && 'code' in cause ? ` (${cause.code})` : ''
    const reason = cause instanceof Error ? cause.message : String(cause)
    return download(`${this.#endpoint} cannot be read: ${reason}${code}.`, error)
  }

  /** fetch() with the token, for the hub alone, and with answers other than the one asked for as failures. */
  readonly #fetch: typeof fetch = async (input, init = {}) => {
    this.#failure = undefined
    const headers = new Headers(init.headers)
    this.#token ??= readToken()
    const token = await this.#token
    const url = new URL(input instanceof Request ? input.url : input)
    if (token && url.origin === new URL(this.#endpoint).origin) {
      headers.set('Authorization', `Bearer ${token}`)
    }
    // Bytes as they are stored: sizes and ranges count them.
    headers.set('Accept-Encoding', 'identity')
    const response = await fetch(input, { ...init, headers, signal: this.#signal ?? null })
    const problem = this.#refusal(response, headers.get('Range'))
    if (problem === undefined) return response
    await response.body?.cancel()
    this.#failure = problem
    throw problem
  }

  #refusal(response: Response, range: string | null): MaestraleError | undefined {
    const { status } = response
    if (range !== null && response.ok) {
      const start = /^bytes=(\d+)-/.exec(range)?.[1]
      const given = /^bytes (\d+)-/.exec(response.headers.get('Content-Range') ?? '')?.[1]
      if (status === 206 && given === start) return undefined
    }
    if (range !== null && (response.ok || status === 416)) {
      return Object.assign(download(`${this.#endpoint} does not answer for a part of a file.`), {
        restart: true,
      })
    }
    if (response.ok) return undefined
    const name = showReference(this.#reference)
    const said = CAUSES[response.headers.get('X-Error-Code') ?? '']
    if (said) return Object.assign(download(`${name} ${said} (status ${status}).`), { status })
    const guess =
      status === 401 || status === 403
        ? `may not be read with ${process.env.HF_TOKEN ? 'this HF_TOKEN' : 'no token; set HF_TOKEN'}`
        : status === 404
          ? 'does not exist'
          : 'cannot be read at the moment'
    return Object.assign(download(`${name} ${guess} (status ${status}).`), { status })
  }
}
