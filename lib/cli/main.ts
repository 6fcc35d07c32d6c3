#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
// The command line. Standard output carries what was asked for, standard error everything else.
// Exit status: 0, 1 for a failure, 2 for a wrong command line.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command, CommanderError } from 'commander'
import { packageRoot } from '#addon'

import { addBenchCommand } from './bench.js'
import { addChatCommand } from './chat.js'
import { addDoctorCommand } from './doctor.js'
import { addInspectCommand } from './inspect.js'
import { addMergeCommand } from './merge.js'
import { addPackCommand } from './pack.js'
import { addPullCommand } from './pull.js'
import { addQuantizeCommand } from './quantize.js'
import { addRunCommand } from './run.js'
import { addServeCommand } from './serve.js'
import { EXIT_USAGE, endQuietlyWhenReaderLeaves, reportFailure } from './terminal.js'

function version(): string {
  const manifest: { version: string } = JSON.parse(
    readFileSync(join(packageRoot, 'package.json'), 'utf8'),
  )
  return manifest.version
}

const program = new Command('maestrale')
  .description('Runs Mistral models on this machine.')
  .version(version(), '-v, --version')
  .helpCommand(false)
  .showHelpAfterError('(see --help)')
  .exitOverride()
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'maestrale: ')) })
  .addHelpText(
    'after',
    `
Examples:
  maestrale run                             try it: the small model that ships with the package
  maestrale run model.gguf "Once upon a time"
  maestrale chat model.gguf
  maestrale serve model.gguf --port 8080
  maestrale inspect model.gguf
  maestrale bench --model model.gguf --prompt 512 --gen 32 --json
  maestrale pull TheBloke/Mistral-7B-Instruct-v0.1-GGUF:Q4_K_M

MAESTRALE_ISA forces a kernel table, e.g. scalar or avx2.`,
  )

endQuietlyWhenReaderLeaves()
addRunCommand(program)
addChatCommand(program)
addServeCommand(program)
addInspectCommand(program)
addBenchCommand(program)
addPackCommand(program)
addPullCommand(program)
addMergeCommand(program)
addQuantizeCommand(program)
addDoctorCommand(program)

try {
  await program.parseAsync()
} catch (error) {
  // Commander has written its own message; --help and --version end with 0.
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : EXIT_USAGE
  else
    reportFailure(
      error,
      program.commands.find((command) => command.name() === program.args[0]),
    )
}
