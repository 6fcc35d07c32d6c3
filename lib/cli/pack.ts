// SPDX-License-Identifier: Apache-2.0
// maestrale pack: a GGUF file as the CPU computes with it, so that loading is mapping.
import { statSync } from 'node:fs'
import type { Command } from 'commander'

import { captureCallSite } from '../errors.js'
import { runJob } from '../job.js'
import { loadBinding } from '../native/load.js'
import { MINI, modelPath } from './options.js'
import { bytes, withProgress } from './terminal.js'

const EXAMPLES = `
Examples:
  maestrale pack model.gguf model.maestrale
  maestrale run model.maestrale "Once upon a time"

Never write into a packed file that a process uses; pack again and let the new file replace it.`

export function addPackCommand(program: Command): void {
  program
    .command('pack')
    .summary('write a file that loads at once')
    .description(
      'Writes the weights of a GGUF file as the CPU computes with them. Such a file is mapped, not read, ' +
        'and processes that use it share its memory.',
    )
    .argument('<model>', `a GGUF file, or '${MINI}' for the model that ships with the package`)
    .argument('<output>', 'the packed file, .maestrale by custom')
    .option('--json', 'print the result as one JSON object')
    .addHelpText('after', EXAMPLES)
    .action(pack)
}

async function pack(model: string, output: string, flags: { json?: boolean }): Promise<void> {
  const input = await modelPath(model)
  await withProgress('packing', (options) =>
    runJob((report) => loadBinding().pack(input, output, report), options, captureCallSite(pack)),
  )
  const size = statSync(output).size
  process.stdout.write(
    flags.json ? `${JSON.stringify({ output, size })}\n` : `${output}: ${bytes(size)}\n`,
  )
}
