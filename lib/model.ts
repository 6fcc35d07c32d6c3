// SPDX-License-Identifier: Apache-2.0
// A loaded model and everything that can be asked of it. Requests go to the engine's thread; its events
// come back once a step for all of them and find their receivers here.
import { basename, resolve } from 'node:path'

import { type ChatMessage, parseToolCalls, type ToolCall } from './chat/format.js'
import { type CallSite, callNative, captureCallSite, disposedError, fromNative } from './errors.js'
import { Generation, type RequestHandle } from './generation.js'
import { type GenerationDefaults, readGenerationDefaults } from './generation-config.js'
import { resolveModel } from './hub/pull.js'
import { HUB_PREFIX, parseReference } from './hub/reference.js'
import { runJob } from './job.js'
import { type MergeOptions, mergeAdapter } from './merge.js'
import type { Binding, NativeEvent, NativeModel, NativePrompt } from './native/binding.js'
import { loadBinding } from './native/load.js'
import {
  ADAPTER_CHECKS,
  GENERATE_CHECKS,
  LOAD_CHECKS,
  nativeLoadOptions,
  nativeRequest,
  withDefaults,
} from './options.js'
import type { QuantizeResult } from './quantize.js'
import { type ChatTemplateOptions, TEMPLATE_CHECKS, Tokenizer } from './tokenizer.js'
import type {
  AdapterInfo,
  AdapterOptions,
  GenerateOptions,
  LoadOptions,
  ModelInfo,
  ModelStats,
  Result,
  Score,
  TokenIds,
} from './types.js'
import { type Checks, checkOptions, nonEmptyText, signal, tokenIds, wrongType } from './validate.js'

/** Options of {@link Model.chat}. */
export interface ChatOptions
  extends GenerateOptions,
    Pick<ChatTemplateOptions, 'tools' | 'continueFinalMessage'> {}

/** What a chat run amounts to. */
export interface ChatResult extends Result {
  /** The functions the model wants called, when it answers with calls; `text` then holds their source. */
  toolCalls?: ToolCall[]
}

/** Options of {@link Model.logits} and {@link Model.score}. */
export interface EvaluateOptions {
  /** Name of an adapter, see {@link Model.loadAdapter}. Default none: the base model alone. */
  adapter?: string
  /** Stops the computation; the promise then rejects with the signal's reason. */
  signal?: AbortSignal
}

const CHAT_CHECKS: Checks<ChatOptions> = {
  ...GENERATE_CHECKS,
  tools: TEMPLATE_CHECKS.tools,
  continueFinalMessage: TEMPLATE_CHECKS.continueFinalMessage,
}
const EVALUATE_CHECKS: Checks<EvaluateOptions> = { adapter: nonEmptyText, signal }

/** Hands the events of the engine to whoever waits for them. */
class Receivers {
  readonly #byId = new Map<number, (event: NativeEvent) => void>()
  #lastId = 0

  add(receive: (event: NativeEvent) => void): number {
    this.#lastId++
    this.#byId.set(this.#lastId, receive)
    return this.#lastId
  }

  remove(id: number): void {
    this.#byId.delete(id)
  }

  readonly dispatch = (events: NativeEvent[]): void => {
    for (const event of events) {
      const receive = this.#byId.get(event.id)
      if (event.done || event.error || event.values) this.#byId.delete(event.id)
      receive?.(event)
    }
  }

  /** Ends every request that the engine has not ended. */
  failAll(): void {
    const { code, message } = disposedError()
    this.dispatch([...this.#byId.keys()].map((id) => ({ id, error: { code, message } })))
  }
}

/** What an adapter is called when nobody says it: its folder, its file without .gguf, its repository. */
function adapterName(path: string): string {
  const place = path.startsWith(HUB_PREFIX) ? parseReference(path).repo : resolve(path)
  return basename(place, '.gguf')
}

/**
 * A model in memory, with an engine on a thread of its own. Any number of requests may run at a time;
 * they share every step of the engine and do not change each other's results.
 *
 * Comes from {@link loadModel}; free it with `dispose()` or `await using`.
 */
export class Model implements AsyncDisposable {
  /** The model's tokenizer. */
  readonly tokenizer: Tokenizer
  readonly #native: NativeModel
  readonly #receivers: Receivers
  readonly #defaults: GenerationDefaults
  readonly #path: string
  #info: ModelInfo | undefined
  #disposal: Promise<void> | undefined

  /** @internal Comes from {@link loadModel}. */
  constructor(native: NativeModel, receivers: unknown, defaults: GenerationDefaults, path: string) {
    this.#native = native
    this.#path = path
    this.#receivers = receivers as Receivers
    this.#defaults = defaults
    this.tokenizer = new Tokenizer(native)
  }

  /** What the model is and how it runs, a frozen object. */
  get info(): ModelInfo {
    if (!this.#info) {
      const native = callNative(loadModel, () => this.#native.info())
      this.#info = Object.freeze({
        ...native,
        slidingWindow: native.slidingWindow || null,
        quantization: Object.freeze({ ...native.quantization }),
        chatFormat: this.tokenizer.chatFormat,
        generationDefaults: Object.freeze({ ...this.#defaults }),
      })
    }
    return this.#info
  }

  /**
   * Counters of the engine at this moment.
   *
   * @throws MaestraleError ERR_DISPOSED
   */
  stats(): ModelStats {
    if (this.#disposal) throw disposedError()
    return callNative(this.stats, () => this.#native.stats())
  }

  /**
   * Continues a text. The run starts at once; iterate it for the stream, await it for the result, or both.
   *
   * @param prompt a text (the begin-of-sequence token is added when the vocabulary asks for it; control
   *   tokens are not read) or token ids, shape [n], taken as they are
   * @throws TypeError or RangeError with ERR_INVALID_ARG. The run fails with MaestraleError
   *   ERR_CONTEXT_LENGTH, ERR_QUEUE_FULL, ERR_ADAPTER, ERR_DISPOSED, ERR_OUT_OF_MEMORY or ERR_DEVICE, or with
   *   the reason of a signal that was aborted before the call.
   * @example
   * const run = model.generate('Once upon a time', { maxNewTokens: 64, temperature: 0 })
   * for await (const chunk of run) process.stdout.write(chunk.text)
   * const { timings } = await run
   */
  generate(prompt: string | TokenIds, options: GenerateOptions = {}): Generation {
    checkOptions(options, GENERATE_CHECKS)
    const native =
      typeof prompt === 'string' ? prompt : tokenIds(prompt, 'prompt', this.tokenizer.vocabSize, 1)
    const site = captureCallSite(this.generate)
    return this.#run(
      options,
      site,
      (result) => result,
      (send) => send(native),
    )
  }

  /**
   * Answers a conversation. Like {@link Model.generate}, with the prompt made by the model's chat format.
   *
   * @param messages in turn; texts never become control tokens
   * @throws as generate(); a conversation that the format cannot express fails the run with
   *   ERR_INVALID_ARG
   * @example
   * const { text } = await model.chat([{ role: 'user', content: 'Translate to French: good morning' }])
   */
  chat(messages: readonly ChatMessage[], options: ChatOptions = {}): Generation<ChatResult> {
    checkOptions(options, CHAT_CHECKS)
    if (!Array.isArray(messages)) wrongType('messages', 'an array of messages', messages)
    const { tools, continueFinalMessage, ...generateOptions } = options
    const site = captureCallSite(this.chat)
    const templateOptions = {
      ...(tools ? { tools } : {}),
      ...(continueFinalMessage === undefined ? {} : { continueFinalMessage }),
    }
    return this.#run(
      generateOptions,
      site,
      (result): ChatResult => {
        const toolCalls = this.#callsTools(result) ? parseToolCalls(result.text) : undefined
        return toolCalls ? { ...result, toolCalls } : result
      },
      async (send) => send(await this.tokenizer.renderChat(messages, templateOptions)),
      !continueFinalMessage,
    )
  }

  /**
   * The raw logits of every position, before any sampling option.
   *
   * @param tokens ids, shape [n], n >= 1, taken as they are
   * @returns shape [n, vocabSize], row-major: row i predicts token i + 1
   * @throws TypeError or RangeError with ERR_INVALID_ARG; MaestraleError ERR_CONTEXT_LENGTH,
   *   ERR_QUEUE_FULL, ERR_ADAPTER, ERR_OUT_OF_MEMORY, ERR_DISPOSED; the signal's reason
   * @example
   * const logits = await model.logits(tokens)
   * const last = logits.subarray((tokens.length - 1) * model.info.vocabSize)
   */
  async logits(tokens: TokenIds, options: EvaluateOptions = {}): Promise<Float32Array> {
    const site = captureCallSite(this.logits)
    checkOptions(options, EVALUATE_CHECKS)
    const ids = tokenIds(tokens, 'tokens', this.tokenizer.vocabSize, 1)
    return await this.#evaluate(options.signal, site, (id) =>
      this.#native.logits(id, ids, options.adapter),
    )
  }

  /**
   * How well the model predicts a text: the log-probability of each token after the first, and the
   * perplexity.
   *
   * @param tokens ids, shape [n], n >= 2, taken as they are
   * @throws as logits()
   * @example
   * const { perplexity } = await model.score(model.tokenizer.encode(text))
   */
  async score(tokens: TokenIds, options: EvaluateOptions = {}): Promise<Score> {
    const site = captureCallSite(this.score)
    checkOptions(options, EVALUATE_CHECKS)
    const ids = tokenIds(tokens, 'tokens', this.tokenizer.vocabSize, 2)
    const logprobs = await this.#evaluate(options.signal, site, (id) =>
      this.#native.score(id, ids, options.adapter),
    )
    const sum = logprobs.reduce((total, value) => total + value, 0)
    return { logprobs, perplexity: Math.exp(-sum / logprobs.length) }
  }

  /**
   * Loads a LoRA adapter beside the model, also while requests run: a PEFT directory (adapter_config.json,
   * adapter_model.safetensors), a GGUF adapter, or `'hf:org/repo'` with either. Requests choose it by name; requests with different
   * adapters and none share every step, and none changes the result of another. The base weights stay as
   * they are: low-rank products are added to theirs (Hu et al. 2021).
   *
   * @throws TypeError or RangeError with ERR_INVALID_ARG, also when there is no such file; MaestraleError
   *   ERR_ADAPTER (damaged, made for another model, the name is taken, or it asks for something that is not
   *   supported, which the message names), ERR_OUT_OF_MEMORY, ERR_DOWNLOAD, ERR_DISPOSED; the signal's reason
   * @example
   * await model.loadAdapter('./my-lora', { scale: 0.8 })
   * const { text } = await model.generate(prompt, { adapter: 'my-lora' })
   */
  async loadAdapter(path: string, options: AdapterOptions = {}): Promise<AdapterInfo> {
    const site = captureCallSite(this.loadAdapter)
    nonEmptyText(path, 'path')
    checkOptions(options, ADAPTER_CHECKS)
    const { name = adapterName(path), scale = 1, signal } = options
    signal?.throwIfAborted()
    const local = await resolveModel(path, options)
    signal?.throwIfAborted()
    return await this.#adapterJob(site, () => this.#native.loadAdapter(local, name, scale))
  }

  /**
   * Unloads an adapter. New requests for it are refused at once; the promise resolves when those that use it
   * have ended and its memory is free.
   *
   * @throws MaestraleError ERR_ADAPTER (no adapter has this name, or it is being unloaded), ERR_DISPOSED
   */
  async unloadAdapter(name: string): Promise<void> {
    const site = captureCallSite(this.unloadAdapter)
    nonEmptyText(name, 'name')
    await this.#adapterJob(site, () => this.#native.unloadAdapter(name))
  }

  /**
   * Writes the file that this model was loaded from, with a LoRA adapter folded into its weights:
   * {@link mergeAdapter} with the model's own path. The model itself does not change.
   */
  mergeAdapter(
    adapter: string,
    output: string,
    options: MergeOptions = {},
  ): Promise<QuantizeResult> {
    return mergeAdapter(this.#path, adapter, output, options)
  }

  async #adapterJob<T>(site: CallSite, job: () => Promise<T>): Promise<T> {
    if (this.#disposal) throw fromNative(disposedError(), site)
    try {
      return await job()
    } catch (error) {
      throw fromNative(error, site)
    }
  }

  /**
   * Frees the model. Runs that have not ended fail with ERR_DISPOSED, as does every later call, also of its
   * tokenizer; {@link loadTokenizer} gives one that lives by itself.
   * Idempotent; resolves when the engine's thread has ended and the memory is free.
   */
  dispose(): Promise<void> {
    this.#disposal ??= this.#native.dispose().then(() => this.#receivers.failAll())
    return this.#disposal
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose()
  }

  /** Did the answer begin with the control token that announces calls? Its text cannot forge one. */
  #callsTools({ tokens }: Result): boolean {
    const announcement = this.tokenizer.specialTokens['[TOOL_CALLS]']
    return announcement !== undefined && tokens[0] === announcement
  }

  /** `prepare` makes the prompt and passes it to `send`, at once or later. */
  #run<R extends Result>(
    options: GenerateOptions,
    site: CallSite,
    finish: (result: Result) => R,
    prepare: (
      send: (prompt: NativePrompt) => RequestHandle,
    ) => RequestHandle | Promise<RequestHandle>,
    answer = false,
  ): Generation<R> {
    const complete = withDefaults(options, this.#defaults)
    const request = nativeRequest(0, [], complete, this.tokenizer.vocabSize)
    return new Generation<R>({
      signal: options.signal,
      site,
      seed: request.seed,
      finish,
      start: (receive) =>
        prepare((prompt) =>
          this.#send(receive, site, (id) =>
            this.#native.generate({ ...request, id, prompt, ...(answer ? { answer } : {}) }),
          ),
        ),
    })
  }

  #send(
    receive: (event: NativeEvent) => void,
    site: CallSite,
    call: (id: number) => void,
  ): RequestHandle {
    if (this.#disposal) throw fromNative(disposedError(), site)
    const id = this.#receivers.add(receive)
    try {
      call(id)
    } catch (error) {
      this.#receivers.remove(id)
      throw fromNative(error, site)
    }
    return {
      cancel: () => this.#native.cancel(id),
      pause: () => this.#native.pause(id),
      resume: () => this.#native.resume(id),
    }
  }

  #evaluate(
    abort: AbortSignal | undefined,
    site: CallSite,
    call: (id: number) => void,
  ): Promise<Float32Array> {
    return new Promise((resolve, reject) => {
      abort?.throwIfAborted()
      const onAbort = () => {
        handle.cancel()
        reject(abort?.reason)
      }
      const receive = (event: NativeEvent) => {
        abort?.removeEventListener('abort', onAbort)
        if (event.values) resolve(event.values)
        else reject(fromNative(event.error ?? disposedError(), site))
      }
      const handle = this.#send(receive, site, call)
      abort?.addEventListener('abort', onAbort, { once: true })
    })
  }
}

/**
 * Loads a model from a GGUF file (version 2 or 3), a packed file, a Hugging Face directory or Mistral's own, or
 * from the Hugging Face hub. The work happens on other threads.
 *
 * @param path of the file or directory; or `'hf:org/repo'`, `'hf:org/repo:quant'`: what the cache has, else
 *   downloaded first, as {@link pullModel} does (HF_HUB_OFFLINE: never)
 * @throws TypeError or RangeError with ERR_INVALID_ARG; MaestraleError ERR_MODEL_FORMAT (damaged file),
 *   ERR_MODEL_UNSUPPORTED, ERR_OUT_OF_MEMORY, ERR_DEVICE, ERR_DOWNLOAD, ERR_NATIVE_LOAD; the signal's reason;
 *   whatever `onProgress` throws
 * @example
 * await using model = await loadModel('mistral-7b-instruct-v0.1.Q4_K_M.gguf', { threads: 4 })
 * const { text } = await model.generate('The mistral is a wind that', { maxNewTokens: 32 })
 */
export async function loadModel(path: string, options: LoadOptions = {}): Promise<Model> {
  const site = captureCallSite(loadModel)
  return await loadModelFrom(loadBinding, path, options, site)
}

/** @internal loadModel() on a given addon. */
export async function loadModelFrom(
  loadBinding: () => Binding,
  model: string,
  options: LoadOptions,
  site: CallSite,
): Promise<Model> {
  nonEmptyText(model, 'path')
  checkOptions(options, LOAD_CHECKS)
  options.signal?.throwIfAborted()
  // What is on disk begins to load before this function returns.
  const path = model.startsWith(HUB_PREFIX) ? await resolveModel(model, options) : model
  const receivers = new Receivers()
  const defaults = readGenerationDefaults(path)
  defaults.catch(() => {}) // for as long as nobody waits for it
  const native = await runJob(
    (report) =>
      loadBinding().loadModel(nativeLoadOptions(path, options), report, receivers.dispatch),
    options,
    site,
    (loaded) => loaded.dispose(),
  )
  try {
    return new Model(native, receivers, await defaults, path)
  } catch (error) {
    await native.dispose()
    throw fromNative(error, site)
  }
}
