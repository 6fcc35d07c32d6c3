// SPDX-License-Identifier: Apache-2.0
// What must compile and what must not, checked by tsc (npm run lint:types); never run.
import {
  type ChatMessage,
  type ChatResult,
  type Chunk,
  type ErrorCode,
  type FinishReason,
  type Generation,
  loadModel,
  loadTokenizer,
  MaestraleError,
  type Model,
  type ModelInfo,
  type Result,
} from '../../lib/index.js'

type Equal<A, B> =
  (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
function same<A, B>(_proof: Equal<A, B>): void {}

export async function checks(): Promise<void> {
  await using model = await loadModel('model.gguf', {
    device: 'cuda:1',
    gpuLayers: 'auto',
    threads: 'auto',
    contextLength: 32768,
    slidingWindow: null,
    kvCacheType: 'f16',
    maxSequences: 16,
    maxBatchTokens: 512,
    onProgress: ({ loaded, total }) => void (loaded / total),
    signal: AbortSignal.timeout(1000),
  })
  same<typeof model, Model>(true)

  const run = model.generate('text', { stop: ['\n\n'], logitBias: { 5: -1 }, seed: 42 })
  same<typeof run, Generation<Result>>(true)
  for await (const chunk of run) same<typeof chunk, Chunk>(true)
  const result = await run
  same<typeof result, Result>(true)
  same<typeof result.finishReason, FinishReason>(true)
  same<typeof result.tokens, Uint32Array>(true)
  same<typeof result.seed, number>(true)
  const viaPromise: Promise<Result> = Promise.resolve(run)
  await Promise.all([viaPromise, run.finally(() => {})])

  const messages: ChatMessage[] = [{ role: 'user', content: 'hello' }]
  const answer = await model.chat(messages, { temperature: 0, tools: [] })
  same<typeof answer, ChatResult>(true)
  messages.push({ role: 'assistant', content: answer.text })

  const logits = await model.logits(Uint32Array.of(1, 2))
  same<typeof logits, Float32Array>(true)
  const { perplexity, logprobs } = await model.score([1, 2, 3])
  same<typeof perplexity, number>(true)
  same<typeof logprobs, Float32Array>(true)
  same<typeof model.info, ModelInfo>(true)
  same<ModelInfo['slidingWindow'], number | null>(true)

  const tokenizer = await loadTokenizer('vocabulary.gguf')
  same<typeof tokenizer, typeof model.tokenizer>(true)
  const ids: Uint32Array = tokenizer.encode('text', { addBos: false, parseSpecial: true })
  const text: string = tokenizer.decode(ids, { keepSpecial: true })
  const rendered: Promise<Uint32Array> = tokenizer.applyChatTemplate(messages)
  const piece: string = tokenizer.streamDecoder().push(5)
  void [text, rendered, piece]

  const error: unknown = undefined
  if (error instanceof MaestraleError) same<typeof error.code, ErrorCode>(true)

  // @ts-expect-error option names are camelCase
  await loadModel('x', { context_length: 5 })
  // @ts-expect-error no such device
  await loadModel('x', { device: 'gpu' })
  // @ts-expect-error no such cache type
  await loadModel('x', { kvCacheType: 'f32' })
  // @ts-expect-error exactOptionalPropertyTypes: leave an option away instead
  await loadModel('x', { threads: undefined })
  // @ts-expect-error a string
  model.generate('x', { temperature: '0' })
  // @ts-expect-error no such option
  model.generate('x', { maxTokens: 5 })
  // @ts-expect-error tools belong to chat
  model.generate('x', { tools: [] })
  // @ts-expect-error no such role
  model.chat([{ role: 'robot', content: 'x' }])
  // @ts-expect-error info is read-only
  model.info.dim = 5
  // @ts-expect-error text is not tokens
  await model.logits('x')
}
