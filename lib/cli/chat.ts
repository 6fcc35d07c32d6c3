// SPDX-License-Identifier: Apache-2.0
// maestrale chat: a conversation at the terminal. Ctrl-C stops the answer that is being written and keeps
// it in the conversation; twice at an empty prompt it leaves, as Ctrl-D does.
import { createInterface, type Interface } from 'node:readline'
import type { Command } from 'commander'

import type { ChatMessage, Model } from '../index.js'
import {
  addGenerateOptions,
  addLoadOptions,
  type GenerateFlags,
  generateOptions,
  type LoadFlags,
  MODEL_HELP,
  withModel,
} from './options.js'
import { figures } from './run.js'
import { reportFailure, styled } from './terminal.js'

const EXAMPLES = `
Commands in the conversation:
  /reset   forget the conversation
  /help    list these commands
  /exit    leave; Ctrl-D, and Ctrl-C twice at an empty prompt, do the same
  Ctrl-C   stop the answer

Examples:
  maestrale chat                                      the model that ships with the package
  maestrale chat mistral-7b-instruct.Q4_K_M.gguf --system "Answer in one sentence."
  echo "Translate to French: the dog" | maestrale chat mini -t 0`

const HELP = '/reset forgets the conversation, /exit leaves, Ctrl-C stops an answer'

type ChatFlags = LoadFlags & GenerateFlags & { system?: string; stats?: boolean }

export function addChatCommand(program: Command): void {
  const command = program
    .command('chat')
    .summary('talk to a model')
    .description('Talks to a model; the conversation is kept until /reset.')
    .argument('[model]', MODEL_HELP, 'mini')
    .option('--system <text>', 'what the model is told before the conversation')
    .option('--stats', 'say after every answer how fast it was')
    .addHelpText('after', EXAMPLES)
    .action((file: string, flags: ChatFlags) =>
      withModel(file, flags, (model) => new Conversation(model, flags).run()),
    )
  addGenerateOptions(addLoadOptions(command))
}

class Conversation {
  readonly #model: Model
  readonly #flags: ChatFlags
  readonly #terminal: Interface
  readonly #interactive = process.stdin.isTTY === true && process.stdout.isTTY === true
  #messages: ChatMessage[] = []
  #answering: AbortController | undefined
  #warned = false

  constructor(model: Model, flags: ChatFlags) {
    this.#model = model
    this.#flags = flags
    this.#terminal = createInterface({
      input: process.stdin,
      ...(this.#interactive ? { output: process.stdout } : {}),
      prompt: styled('cyan', '> '),
    })
    this.#reset()
  }

  async run(): Promise<void> {
    if (this.#interactive) {
      const { name, chatFormat } = this.#model.info
      process.stdout.write(
        `${styled('dim', `${name}, format ${chatFormat}; /help lists commands`)}\n`,
      )
    }
    this.#terminal.on('SIGINT', () => this.#onInterrupt())
    const interrupt = () => this.#onInterrupt()
    process.on('SIGINT', interrupt)
    try {
      this.#prompt()
      for await (const line of this.#terminal) {
        if (!(await this.#take(line.trim()))) break
        this.#prompt()
      }
    } finally {
      process.off('SIGINT', interrupt)
      this.#terminal.close()
      if (this.#interactive) process.stdout.write('\n')
    }
  }

  /** Handles one line; false: leave. */
  async #take(line: string): Promise<boolean> {
    this.#warned = false
    if (line === '/exit') return false
    if (line === '/reset') this.#reset()
    else if (line === '/help') process.stdout.write(`${HELP}\n`)
    else if (/^\/\w+$/.test(line)) process.stdout.write(`unknown command ${line}; ${HELP}\n`)
    else if (line !== '') await this.#answer(line)
    return true
  }

  async #answer(question: string): Promise<void> {
    const before = this.#messages.length
    this.#messages.push({ role: 'user', content: question })
    this.#answering = new AbortController()
    try {
      const answer = this.#model.chat(this.#messages, {
        ...generateOptions(this.#flags),
        signal: this.#answering.signal,
      })
      for await (const chunk of answer) process.stdout.write(chunk.text)
      process.stdout.write('\n')
      const result = await answer
      this.#messages.push({ role: 'assistant', content: result.text })
      if (this.#flags.stats) {
        process.stderr.write(`${styled('dim', figures(result), process.stderr)}\n`)
      }
    } catch (error) {
      // The question that failed leaves the conversation, which goes on when somebody sits there.
      this.#messages.length = before
      if (!this.#interactive) throw error
      reportFailure(error)
      process.exitCode = 0
    } finally {
      this.#answering = undefined
    }
  }

  #onInterrupt(): void {
    if (this.#answering) this.#answering.abort()
    else if (this.#terminal.line !== '') {
      // As in a shell: the half-written line goes, the program stays.
      this.#terminal.write(null, { ctrl: true, name: 'u' })
    } else if (this.#interactive && !this.#warned) {
      // It may have been meant for an answer that has just ended.
      this.#warned = true
      process.stdout.write(`\n${styled('dim', 'Ctrl-C again or Ctrl-D leaves')}\n`)
      this.#prompt()
    } else this.#terminal.close()
  }

  #reset(): void {
    const { system } = this.#flags
    this.#messages = system === undefined ? [] : [{ role: 'system', content: system }]
  }

  #prompt(): void {
    if (this.#interactive) this.#terminal.prompt()
  }
}
