// SPDX-License-Identifier: Apache-2.0
// maestrale pull: a model from the Hugging Face hub to the cache that all of its libraries share.
import type { Command } from 'commander'

import { pullModel } from '../index.js'
import { bytes, withProgress } from './terminal.js'

const EXAMPLES = `
Without QUANT it takes the only GGUF file or the one in Q4_K_M, else the safetensors files. Pickle files are
never downloaded. What broke off is continued; every file is checked against the hub's hash.

Examples:
  maestrale pull TheBloke/Mistral-7B-Instruct-v0.1-GGUF:Q4_K_M
  maestrale run hf:TheBloke/Mistral-7B-Instruct-v0.1-GGUF:Q4_K_M "Once upon a time"
  HF_TOKEN=hf_... maestrale pull mistralai/Mistral-7B-Instruct-v0.3

HF_HOME is where the cache lies, HF_ENDPOINT another server, HF_HUB_OFFLINE=1 forbids downloads.`

interface PullFlags {
  revision?: string
  json?: boolean
}

export function addPullCommand(program: Command): void {
  program
    .command('pull')
    .summary('download a model from the Hugging Face hub')
    .description(
      "Downloads a model into the Hugging Face cache, where 'hf:ORG/REPO[:QUANT]' finds it.",
    )
    .argument('<model>', 'ORG/REPO, or ORG/REPO:QUANT for one of several GGUF files')
    .option('--revision <name>', "a branch, tag or commit (default: 'main')")
    .option('--json', 'print the result as one JSON object')
    .addHelpText('after', EXAMPLES)
    .action(pull)
}

async function pull(model: string, flags: PullFlags): Promise<void> {
  const revision = flags.revision === undefined ? {} : { revision: flags.revision }
  const pulled = await withProgress('downloading', (options) =>
    pullModel(model, { ...revision, ...options }),
  )
  const total = pulled.files.reduce((sum, file) => sum + file.size, 0)
  process.stdout.write(
    flags.json
      ? `${JSON.stringify(pulled)}\n`
      : `${pulled.path}\n${pulled.files.length} files, ${bytes(total)}, ${bytes(pulled.downloadedBytes)} downloaded\n`,
  )
}
