// SPDX-License-Identifier: Apache-2.0
// The measured side's end of the conversation with side.mjs.
import { createInterface } from 'node:readline'

/**
 * Prints `opening`; then answers each line of stdin, "NAME TURN", with what measurements[NAME](TURN) resolves to;
 * when stdin ends, prints what `closing` resolves to. Each answer is a line of JSON.
 */
export async function answer(opening, measurements, closing) {
  const print = (object) => process.stdout.write(`${JSON.stringify(object)}\n`)
  print(opening)
  for await (const line of createInterface({ input: process.stdin })) {
    const [name, turn] = line.split(' ')
    print(await measurements[name](Number(turn)))
  }
  print(await closing())
}
