// SPDX-License-Identifier: Apache-2.0
// The chunks of a run on their way to one consumer: a queue behind an async iterator. How long it may
// grow is the run's business (generation.ts), which asks for `pending` and pauses the engine.
import type { Chunk } from './types.js'

type Read = {
  resolve: (result: IteratorResult<Chunk, undefined>) => void
  reject: (error: unknown) => void
}

const END: IteratorReturnResult<undefined> = { done: true, value: undefined }

/** One consumer of a run. Both callbacks run synchronously: a chunk was taken, the consumer left. */
export class ChunkStream {
  readonly #queue: Chunk[] = []
  readonly #reads: Read[] = []
  readonly #onTaken: () => void
  readonly #onClosed: () => void
  #next = 0
  #ended = false
  #error: { value: unknown } | undefined

  constructor(onTaken: () => void, onClosed: () => void) {
    this.#onTaken = onTaken
    this.#onClosed = onClosed
  }

  get pending(): number {
    return this.#queue.length
  }

  push(part: Omit<Chunk, 'index'>): void {
    const chunk: Chunk = { ...part, index: this.#next++ }
    const read = this.#reads.shift()
    if (read) read.resolve({ done: false, value: chunk })
    else this.#queue.push(chunk)
  }

  end(error?: unknown): void {
    this.#ended = true
    if (error !== undefined) this.#error = { value: error }
    for (const read of this.#reads.splice(0)) {
      if (this.#error) this.#takeError(read.reject)
      else read.resolve(END)
    }
  }

  next(): Promise<IteratorResult<Chunk, undefined>> {
    const chunk = this.#queue.shift()
    if (chunk) {
      this.#onTaken()
      return Promise.resolve({ done: false, value: chunk })
    }
    return new Promise((resolve, reject) => {
      if (this.#error) this.#takeError(reject)
      else if (this.#ended) resolve(END)
      else this.#reads.push({ resolve, reject })
    })
  }

  /** The consumer has left. */
  close(): Promise<IteratorResult<Chunk, undefined>> {
    this.#queue.length = 0
    this.end()
    this.#onClosed()
    return Promise.resolve(END)
  }

  // An iterator throws once and is over afterwards.
  #takeError(reject: (error: unknown) => void): void {
    const error = this.#error?.value
    this.#error = undefined
    reject(error)
  }
}
