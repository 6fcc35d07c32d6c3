// SPDX-License-Identifier: Apache-2.0
// One engine in a process of its own, which measures what it is asked and is idle in between, so that two
// engines can take turns within seconds: whatever the machine does meanwhile, it does to both.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

import { percentElsewhere, scriptCommand, ticks } from '../measure.mjs'

export class Side {
  #child
  #lines

  /** Starts bench/peers/`script`; `opening` is then what it told of itself. */
  static async start(script, args, prefix = '') {
    const side = new Side()
    const [program, rest] = scriptCommand(`peers/${script}`, args, prefix)
    side.#child = spawn(program, rest, { stdio: ['pipe', 'pipe', 'inherit'] })
    side.#lines = createInterface({ input: side.#child.stdout })[Symbol.asyncIterator]()
    side.opening = await side.#answer()
    return side
  }

  /** What the measurement tells, with `elsewhere`: the percentage of the machine's CPU time that others took. */
  async measure(name, turn) {
    const before = ticks(this.#child.pid)
    this.#child.stdin.write(`${name} ${turn}\n`)
    const result = await this.#answer()
    return { ...result, elsewhere: percentElsewhere(before, ticks(this.#child.pid)) }
  }

  /** Ends the process and returns its last words. */
  async end() {
    const exit = once(this.#child, 'exit')
    this.#child.stdin.end()
    const closing = await this.#answer()
    await exit
    return closing
  }

  async #answer() {
    const { value, done } = await this.#lines.next()
    if (done) throw new Error(`${this.#child.spawnargs.join(' ')} ended without an answer`)
    return JSON.parse(value)
  }
}
