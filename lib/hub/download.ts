// SPDX-License-Identifier: Apache-2.0
// One file from the hub into the cache: continued where an earlier attempt broke off, also one of another
// process, and only ever called complete when its hash is the one that the hub announced.
import { createHash, type Hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'

import { MaestraleError } from '../errors.js'
import { fileSize } from './cache.js'
import type { HubClient, HubFile } from './client.js'
import { claimPartial, dropPartials, leavePartial } from './partial.js'
import { takeTurn } from './turn.js'

// Attempts that bring nothing new, one after the other, before the download is given up.
const MAX_FRUITLESS = 5
const FIRST_PAUSE_MS = 250

const TRANSIENT = new Set([408, 429, 500, 502, 503, 504])

function newHash(file: HubFile): Hash {
  // Small files have git's hash, which covers a header too.
  if (file.hash.length === 64) return createHash('sha256')
  return createHash('sha1').update(`blob ${file.size}\0`)
}

/** Is trying again worth it? Refusals with a reason stay what they are. */
function isTransient(error: unknown): boolean {
  if (!(error instanceof MaestraleError) || error.code !== 'ERR_DOWNLOAD') return false
  const status = 'status' in error ? Number(error.status) : undefined
  return status === undefined || TRANSIENT.has(status)
}

/** A file that arrives. */
class Arrival {
  readonly #file: HubFile
  readonly #path: string
  readonly #handle: FileHandle
  readonly #onBytes: (count: number) => void
  #hash: Hash
  #size = 0

  private constructor(
    file: HubFile,
    path: string,
    handle: FileHandle,
    onBytes: (n: number) => void,
  ) {
    this.#file = file
    this.#path = path
    this.#handle = handle
    this.#onBytes = onBytes
    this.#hash = newHash(file)
  }

  /** Opens what an earlier attempt has left, and takes its bytes into account. */
  static async open(file: HubFile, path: string, onBytes: (n: number) => void): Promise<Arrival> {
    const left = (await fileSize(path)) ?? 0
    const arrival = new Arrival(file, path, await open(path, left > 0 ? 'r+' : 'w'), onBytes)
    if (left > file.size) await arrival.restart()
    else if (left > 0) await arrival.#readBack()
    return arrival
  }

  get size(): number {
    return this.#size
  }

  async append(bytes: Uint8Array): Promise<void> {
    if (this.#size + bytes.length > this.#file.size) {
      throw Object.assign(
        new MaestraleError('ERR_DOWNLOAD', 'more bytes arrive than the file has'),
        {
          restart: true,
        },
      )
    }
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await this.#handle.write(bytes, done, null, this.#size + done)
      done += bytesWritten
    }
    this.#take(bytes)
  }

  /** Forgets everything that has arrived. */
  async restart(): Promise<void> {
    await this.#handle.truncate(0)
    this.#onBytes(-this.#size)
    this.#size = 0
    this.#hash = newHash(this.#file)
  }

  /** Whether the bytes are those that the hub announced. */
  verify(): boolean {
    return this.#hash.copy().digest('hex') === this.#file.hash
  }

  async finish(target: string): Promise<void> {
    await this.#handle.sync()
    await rename(this.#path, target)
  }

  async close(): Promise<void> {
    await this.#handle.close()
  }

  async #readBack(): Promise<void> {
    for await (const chunk of createReadStream(this.#path)) this.#take(chunk as Buffer)
  }

  #take(bytes: Uint8Array): void {
    this.#hash.update(bytes)
    this.#size += bytes.length
    this.#onBytes(bytes.length)
  }
}

/**
 * Downloads `file` to `target`, a blob of the cache, or waits for somebody else on this machine to do so.
 *
 * @param onBytes gets how many bytes have come; less than 0 when some have to come again
 * @returns false: it was somebody else
 * @throws MaestraleError ERR_DOWNLOAD; the signal's reason
 */
export async function downloadBlob(
  client: HubClient,
  file: HubFile,
  commit: string,
  target: string,
  onBytes: (count: number) => void,
): Promise<boolean> {
  await mkdir(dirname(target), { recursive: true })
  let shown = 0
  const show = (bytes: number) => {
    const more = bytes - shown
    shown = bytes
    if (more !== 0) onBytes(more)
  }
  const turn = await takeTurn(target, client, show)
  try {
    if ((await fileSize(target)) === file.size) {
      show(file.size)
      return false
    }
    show(0) // what there is counts when it is read back
    await download(client, file, commit, target, onBytes)
    return true
  } finally {
    turn.end()
  }
}

async function download(
  client: HubClient,
  file: HubFile,
  commit: string,
  target: string,
  onBytes: (count: number) => void,
): Promise<void> {
  const partial = await claimPartial(target)
  const arrival = await Arrival.open(file, partial, onBytes)
  try {
    await receive(client, file, commit, arrival)
    if (!arrival.verify()) {
      // Whatever spoiled it, an older attempt or the way, is not in a second, whole one.
      await arrival.restart()
      await receive(client, file, commit, arrival)
    }
    if (!arrival.verify()) {
      await rm(partial, { force: true })
      throw new MaestraleError(
        'ERR_DOWNLOAD',
        `'${file.path}' arrives with other bytes than the hub announces (hash ${file.hash}).`,
      )
    }
    await arrival.finish(target)
    await dropPartials(target)
  } finally {
    await arrival.close()
    await leavePartial(partial, target) // where it has not become the target
  }
}

/** Asks again, from where it broke off, until all bytes are there. */
async function receive(
  client: HubClient,
  file: HubFile,
  commit: string,
  arrival: Arrival,
): Promise<void> {
  let fruitless = 0
  while (arrival.size < file.size) {
    const before = arrival.size
    try {
      for await (const bytes of client.bytes(file, commit, arrival.size))
        await arrival.append(bytes)
      if (arrival.size < file.size)
        throw new MaestraleError('ERR_DOWNLOAD', brokenOff(file, arrival))
      return
    } catch (error) {
      if (error instanceof MaestraleError && 'restart' in error && arrival.size > 0) {
        await arrival.restart()
      }
      if (!isTransient(error)) throw error
      fruitless = arrival.size > before ? 0 : fruitless + 1
      if (fruitless >= MAX_FRUITLESS) throw error
      await client.pause(FIRST_PAUSE_MS * 2 ** fruitless)
    }
  }
}

function brokenOff(file: HubFile, arrival: Arrival): string {
  return `'${file.path}' broke off after ${arrival.size} of ${file.size} bytes.`
}
