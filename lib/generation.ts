// SPDX-License-Identifier: Apache-2.0
// A run: the object that generate() and chat() return. It starts when it is created, can be iterated and
// awaited in any order and together, and is the only place that knows the life of a request:
// starting -> running -> done | failed.
import { ChunkStream } from './chunk-stream.js'
import { type CallSite, fromNative } from './errors.js'
import type { NativeDone, NativeEvent } from './native/binding.js'
import type { Chunk, FinishReason, Result, TokenLogprob } from './types.js'

// A stream with more undelivered chunks than this pauses its sequence in the engine, and one with fewer
// resumes it; the gap keeps a steady consumer from toggling at every chunk.
const PAUSE_ABOVE = 64
const RESUME_BELOW = 16

/** What a run can ask of the engine, once the request is there. */
export interface RequestHandle {
  cancel(): void
  pause(): void
  resume(): void
}

/** How a run is started and what becomes of its result. */
export interface GenerationPlan<R extends Result> {
  /** Sends the request; `receive` gets its events. A promise while the prompt is still being made. */
  start(receive: (event: NativeEvent) => void): RequestHandle | Promise<RequestHandle>
  finish(result: Result): R
  signal: AbortSignal | undefined
  site: CallSite
  /** Reported when the run is aborted before the engine has seen it. */
  seed: number
}

const NOT_STARTED: NativeDone = {
  finishReason: 'abort',
  promptTokens: 0,
  cachedTokens: 0,
  completionTokens: 0,
  guessedTokens: 0,
  acceptedTokens: 0,
  queueMs: 0,
  prefillMs: 0,
  ttftMs: 0,
  decodeMs: 0,
  seed: 0,
}

/**
 * A running generation: an async iterable of {@link Chunk} and a promise-like of its result, the same
 * object. It starts by itself; awaiting or iterating only looks at it.
 *
 * - Iterating late loses nothing: what was generated before comes as one first chunk.
 * - Leaving a `for await` loop early (`break`, `return`, `throw`) cancels the run; `await run` then
 *   resolves with `finishReason: 'abort'` and the text so far.
 * - A consumer that falls more than 64 chunks behind pauses its own sequence and no other one.
 * - A run that fails while nobody awaits or iterates it raises no `unhandledRejection`.
 *
 * @example
 * const run = model.generate('Once upon a time')
 * for await (const chunk of run) process.stdout.write(chunk.text)
 * const { finishReason, timings } = await run
 */
export class Generation<R extends Result = Result>
  implements AsyncIterable<Chunk>, PromiseLike<R>, AsyncDisposable
{
  readonly #plan: GenerationPlan<R>
  readonly #result: Promise<R>
  #resolve!: (result: R) => void
  #reject!: (error: unknown) => void
  #handle: RequestHandle | undefined
  #state: 'starting' | 'running' | 'done' | 'failed' = 'starting'
  #failure: unknown
  #finishReason: FinishReason | undefined
  #cancelled = false
  #paused = false
  // Everything received so far, for the result and for streams that join late.
  #texts: string[] = []
  #tokens: number[] = []
  #logprobs: TokenLogprob[] | undefined
  readonly #streams = new Set<ChunkStream>()

  /** @internal Runs are made by {@link Model.generate} and {@link Model.chat}. */
  constructor(plan: GenerationPlan<R>) {
    this.#plan = plan
    this.#result = new Promise<R>((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    // Whoever awaits or iterates still sees the failure; an unobserved one must not end the process.
    this.#result.catch(() => {})
    if (plan.signal?.aborted) {
      this.#fail(plan.signal.reason)
      return
    }
    plan.signal?.addEventListener('abort', this.#onAbort, { once: true })
    try {
      const handle = plan.start((event) => this.#receive(event))
      if (handle instanceof Promise) handle.then(this.#started, this.#startFailed)
      else this.#started(handle)
    } catch (error) {
      this.#startFailed(error)
    }
  }

  /**
   * Stops the run; nothing happens when it has ended. The stream ends, and the result has
   * `finishReason: 'abort'` and the text so far.
   */
  cancel(): void {
    if (this.#cancelled || this.#state === 'done' || this.#state === 'failed') return
    this.#cancelled = true
    if (this.#state === 'running') this.#handle?.cancel()
    else this.#receive({ id: 0, done: { ...NOT_STARTED, seed: this.#plan.seed } })
  }

  // biome-ignore lint/suspicious/noThenProperty: being awaitable is what this class is for
  then<A = R, B = never>(
    onFulfilled?: ((result: R) => A | PromiseLike<A>) | null,
    onRejected?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.#result.then(onFulfilled, onRejected)
  }

  catch<B = never>(onRejected?: ((error: unknown) => B | PromiseLike<B>) | null): Promise<R | B> {
    return this.#result.catch(onRejected)
  }

  finally(onSettled?: (() => void) | null): Promise<R> {
    return this.#result.finally(onSettled)
  }

  /**
   * The stream of chunks. Each call gives an independent stream of the whole text; leaving any of them
   * early cancels the run.
   */
  [Symbol.asyncIterator](): AsyncIterator<Chunk, undefined> {
    const stream = new ChunkStream(
      () => this.#adjustFlow(),
      () => this.cancel(),
    )
    let attached = false
    // A stream counts from its first next(): one that is never read must not pause the run.
    const attach = () => {
      if (attached) return
      attached = true
      this.#attach(stream)
    }
    return {
      next: () => {
        attach()
        return stream.next()
      },
      return: () => {
        attach()
        this.#streams.delete(stream)
        return stream.close()
      },
    }
  }

  /** Cancels the run and waits until the engine has let go of it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.cancel()
    await this.#result.catch(() => {})
  }

  readonly #onAbort = (): void => this.cancel()

  readonly #started = (handle: RequestHandle): void => {
    // Cancelled, or over, while the prompt was being made: the request that was sent is not wanted.
    if (this.#state !== 'starting') {
      handle.cancel()
      return
    }
    this.#handle = handle
    this.#state = 'running'
  }

  readonly #startFailed = (error: unknown): void => {
    if (this.#state === 'starting') this.#fail(error)
  }

  #receive(event: NativeEvent): void {
    if (this.#state === 'done' || this.#state === 'failed') return
    if (event.error) {
      this.#fail(fromNative(event.error, this.#plan.site))
      return
    }
    const { text = '', tokens = new Int32Array(0), logprobs, done } = event
    if (text) this.#texts.push(text)
    for (const token of tokens) this.#tokens.push(token)
    if (logprobs) {
      this.#logprobs ??= []
      this.#logprobs.push(...logprobs)
    }
    if (!done && !text && tokens.length === 0) return
    if (done) this.#finishReason = done.finishReason
    for (const stream of this.#streams) {
      stream.push({
        text,
        tokens: Uint32Array.from(tokens),
        ...(logprobs ? { logprobs } : {}),
        ...(done ? { finishReason: done.finishReason } : {}),
      })
    }
    if (done) this.#finish(done)
    else this.#adjustFlow()
  }

  #finish(done: NativeDone): void {
    const { promptTokens, cachedTokens, completionTokens, guessedTokens, acceptedTokens } = done
    const { queueMs, prefillMs, ttftMs, decodeMs } = done
    const later = completionTokens - 1
    const result: Result = {
      text: this.#texts.join(''),
      tokens: Uint32Array.from(this.#tokens),
      finishReason: done.finishReason,
      usage: { promptTokens, cachedTokens, completionTokens, guessedTokens, acceptedTokens },
      timings: {
        queueMs,
        prefillMs,
        ttftMs,
        decodeMs,
        tokensPerSecond: later > 0 && decodeMs > 0 ? (later / decodeMs) * 1000 : 0,
      },
      seed: done.seed,
      ...(this.#logprobs ? { logprobs: this.#logprobs } : {}),
    }
    let finished: R
    try {
      finished = this.#plan.finish(result)
    } catch (error) {
      this.#fail(error)
      return
    }
    this.#state = 'done'
    this.#release()
    for (const stream of this.#streams) stream.end()
    this.#streams.clear()
    this.#resolve(finished)
  }

  #fail(error: unknown): void {
    this.#state = 'failed'
    this.#failure = error
    this.#release()
    for (const stream of this.#streams) stream.end(error)
    this.#streams.clear()
    this.#reject(error)
  }

  #release(): void {
    this.#plan.signal?.removeEventListener('abort', this.#onAbort)
    this.#handle = undefined
  }

  #attach(stream: ChunkStream): void {
    const finishReason = this.#state === 'done' ? this.#finishReason : undefined
    if (this.#tokens.length > 0 || this.#texts.length > 0 || finishReason) {
      stream.push({
        text: this.#texts.join(''),
        tokens: Uint32Array.from(this.#tokens),
        ...(this.#logprobs ? { logprobs: [...this.#logprobs] } : {}),
        ...(finishReason ? { finishReason } : {}),
      })
    }
    if (this.#state === 'done') stream.end()
    else if (this.#state === 'failed') stream.end(this.#failure)
    else this.#streams.add(stream)
  }

  #adjustFlow(): void {
    if (this.#state !== 'running') return
    let pending = 0
    for (const stream of this.#streams) pending = Math.max(pending, stream.pending)
    if (!this.#paused && pending > PAUSE_ABOVE) {
      this.#paused = true
      this.#handle?.pause()
    } else if (this.#paused && pending < RESUME_BELOW) {
      this.#paused = false
      this.#handle?.resume()
    }
  }
}
