// SPDX-License-Identifier: Apache-2.0
// Measurements run in processes of their own, whose last line of output is one JSON object.
import { execFileSync } from 'node:child_process'
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'

import { root } from './common.mjs'

const MOST_ELSEWHERE = 3 // percent of the machine's CPU time; above it a figure is not to be trusted

/** CPU time of the whole machine from /proc/stat, in ticks: all of it, and what was not idle. */
export function parseMachineTicks(text) {
  const [user, nice, system, idle, iowait, irq, softirq, steal] = text
    .split('\n', 1)[0]
    .split(/\s+/)
    .slice(1)
    .map(Number)
  const busy = user + nice + system + irq + softirq + steal
  return { all: busy + idle + iowait, busy }
}

/** CPU time of a process and its ended children from /proc/PID/stat, in ticks. */
export function parseProcessTicks(text) {
  // The name in parentheses may hold spaces; fields are counted from behind it: utime is the 12th.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0)
}

/** Memory of a process from /proc/PID/smaps_rollup, in bytes. */
export function parseSmaps(text) {
  const field = (name) => Number(new RegExp(`^${name}: +(\\d+) kB$`, 'm').exec(text)[1]) * 1024
  return {
    rss: field('Rss'),
    pss: field('Pss'),
    shared: field('Shared_Clean') + field('Shared_Dirty'),
    private: field('Private_Clean') + field('Private_Dirty'),
  }
}

/** CPU time so far of the whole machine and of a process. */
export const ticks = (pid = 'self') => ({
  machine: parseMachineTicks(readFileSync('/proc/stat', 'utf8')),
  ours: parseProcessTicks(readFileSync(`/proc/${pid}/stat`, 'utf8')),
})

/** Percent of the machine's CPU time between two moments that went to other processes. */
export function percentElsewhere(before, after) {
  const busy = after.machine.busy - before.machine.busy - (after.ours - before.ours)
  return Math.max(0, (100 * busy) / Math.max(1, after.machine.all - before.machine.all))
}

/** Watches the machine; the returned function tells the percentage of its CPU time that others have taken since. */
export function watchElsewhere() {
  const before = ticks()
  return () => Number(percentElsewhere(before, ticks()).toFixed(1))
}

/** Program and arguments that run bench/`script`; `prefix` stands before them. */
export function scriptCommand(script, args, prefix = '') {
  const command = [...prefix.split(' '), process.execPath, join(root, 'bench', script), ...args]
  const [program, ...rest] = command.filter(Boolean)
  return [program, rest]
}

/**
 * Runs bench/`script` and returns its object, with `elsewhere`: the percentage of the machine's CPU time that
 * other processes took meanwhile. `prefix` stands before the command, e.g. 'taskset -c 0,1'.
 */
export function measure(script, args, prefix = '') {
  console.error([script, ...args].join(' '))
  const [program, rest] = scriptCommand(script, args, prefix)
  const elsewhereSince = watchElsewhere()
  const output = execFileSync(program, rest, { stdio: ['ignore', 'pipe', 'inherit'] })
  const elsewhere = elsewhereSince()
  if (elsewhere > MOST_ELSEWHERE)
    console.error(
      `  other processes took ${elsewhere} % of the CPU: measure again on an idle machine`,
    )
  return { ...JSON.parse(output.toString().trim().split('\n').at(-1)), elsewhere }
}

// Takes and frees the given number of bytes of memory.
const TOUCH = `
const pieces = []
for (let left = Number(process.argv[1]); left > 0; left -= 2 ** 28) pieces.push(Buffer.alloc(2 ** 28, 1))`

/**
 * Prepares for loading a file: reads it once, so that the disk is not measured, and takes as much memory and a
 * fifth more once, so that neither is a hypervisor that has to find memory for this machine first.
 */
export function warm(path) {
  execFileSync('cat', [path], { stdio: ['ignore', 'ignore', 'inherit'] })
  execFileSync(process.execPath, ['-e', TOUCH, String(1.2 * statSync(path).size)])
}

/** What `maestrale inspect --json` says of a model. */
export function inspect(model) {
  const args = [join(root, 'dist/esm/cli/main.js'), 'inspect', model, '--json']
  return JSON.parse(execFileSync(process.execPath, args, { maxBuffer: 1 << 28 }).toString())
}
