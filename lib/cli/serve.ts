// SPDX-License-Identifier: Apache-2.0
// maestrale serve: the model behind HTTP, with the endpoints that OpenAI's clients ask. The first SIGINT or SIGTERM lets
// running requests end, the second one aborts them; either way the exit status is 0.
import { isIPv4 } from 'node:net'
import type { Command } from 'commander'

import type { Model } from '../index.js'
import { ApiServer } from '../server/server.js'
import { integer, nonEmptyText, number } from '../validate.js'
import {
  ADAPTER_HELP,
  adapterPath,
  addGenerateOptions,
  addModelOptions,
  collect,
  type GenerateFlags,
  generateOptions,
  type LoadFlags,
  MODEL_HELP,
  number as parseNumber,
  withModel,
} from './options.js'
import { styled, UsageError } from './terminal.js'

const EXAMPLES = `
Endpoints: POST /v1/chat/completions and /v1/completions, GET /v1/models, /health and /metrics.
Sampling options are for what a request leaves out.

Examples:
  maestrale serve                                    the model that ships with the package
  maestrale serve model.gguf --port 9000 -n 1024     longer completions where a request sets no max_tokens
  maestrale serve model.gguf --adapter pirate=./lora the model and, as model 'pirate', the adapter
  MAESTRALE_API_KEY=secret maestrale serve model.gguf --host 0.0.0.0
  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"messages": [{"role": "user", "content": "Translate to French: the dog"}]}'`

type ServeFlags = Omit<LoadFlags, 'adapter'> &
  Omit<GenerateFlags, 'adapter'> & {
    host: string
    port: number
    apiKey?: string
    modelName?: string
    grace: number
    adapter?: string[]
    json?: boolean
  }

export function addServeCommand(program: Command): void {
  const command = program
    .command('serve')
    .summary('answer requests over HTTP')
    .description(
      "Answers HTTP requests as OpenAI's API does; Ctrl-C ends it when they are answered.",
    )
    .argument('[model]', MODEL_HELP, 'mini')
    .option('--host <address>', 'where to listen; 0.0.0.0 is everywhere', '127.0.0.1')
    .option('--port <n>', '0 is any free one', parseNumber, 8080)
    .option(
      '--api-key <key>',
      'what clients have to send (default: $MAESTRALE_API_KEY, or nothing)',
    )
    .option(
      '--model-name <name>',
      "what clients call the model (default: the file's own name for it)",
    )
    .option('--grace <seconds>', 'time for running requests to end', parseNumber, 30)
    .option('--json', 'say where it listens as one JSON object')
    .addHelpText('after', EXAMPLES)
    .action(serve)
  addModelOptions(command)
    .option('--max-sequences <n>', 'requests computed together (default: 16)', parseNumber)
    .option(
      '--max-queue <n>',
      'requests that may wait, others get 429 (default: 1024)',
      parseNumber,
    )
    .option(
      '--adapter <[name=]path>',
      `a LoRA adapter, which requests name as model: ${ADAPTER_HELP}; may be given several times`,
      collect,
    )
    .option('--adapter-scale <x>', 'multiplies what the adapters add (default: 1)', parseNumber)
  addGenerateOptions(command)
}

async function serve(file: string, flags: ServeFlags): Promise<void> {
  const { host, port, grace, modelName, json, adapter = [], adapterScale, ...rest } = flags
  const apiKey = flags.apiKey ?? process.env.MAESTRALE_API_KEY
  integer(0, 65_535)(port, 'port')
  number(0, 86_400)(grace, 'grace')
  if (flags.apiKey !== undefined) nonEmptyText(flags.apiKey, 'apiKey')
  await withModel(file, rest, async (model) => {
    const server = new ApiServer(model, {
      defaults: generateOptions(rest),
      ...(modelName ? { name: modelName } : {}),
      ...(apiKey ? { apiKey } : {}),
    })
    for (const argument of adapter) await loadAdapter(model, server.name, argument, adapterScale)
    const address = await server.listen(port, host)
    const url = `http://${isIPv4(address.address) ? address.address : `[${address.address}]`}:${address.port}`
    if (json) process.stdout.write(`${JSON.stringify({ url, model: server.name })}\n`)
    else process.stdout.write(`${server.name} at ${styled('bold', url)}, Ctrl-C ends it\n`)
    if (!apiKey && !/^(127\.|::1$)/.test(address.address)) {
      process.stderr.write(
        'maestrale: everybody who reaches this machine can use it: no --api-key\n',
      )
    }
    await untilAsked(server, grace * 1000)
  })
}

async function loadAdapter(
  model: Model,
  base: string,
  argument: string,
  scale: number | undefined,
): Promise<void> {
  const [, name, path = argument] = /^([\w.-]+)=(.+)$/s.exec(argument) ?? []
  const adapter = await model.loadAdapter(await adapterPath(path), {
    ...(name === undefined ? {} : { name }),
    ...(scale === undefined ? {} : { scale }),
  })
  if (adapter.name === base) {
    throw new UsageError(
      `the adapter is called '${base}', as the model is; --adapter NAME=PATH names it`,
    )
  }
}

/** Serves until the system or the user asks for an end, and ends. */
async function untilAsked(server: ApiServer, graceMs: number): Promise<void> {
  await new Promise<void>((resolve) => {
    let asked = false
    const onSignal = () => {
      if (asked) server.abort()
      else void server.close(graceMs).then(resolve)
      asked = true
    }
    process.on('SIGINT', onSignal).on('SIGTERM', onSignal)
  })
}
