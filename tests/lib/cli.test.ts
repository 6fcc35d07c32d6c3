// SPDX-License-Identifier: Apache-2.0
// The command line as a user meets it: help, wrong use (exit status 2), failures (1) in one sentence,
// never a stack trace. Runs dist/, which `npm run build` makes.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

import manifest from '../../package.json' with { type: 'json' }

const main = fileURLToPath(new URL('../../dist/esm/cli/main.js', import.meta.url))

function maestrale(...args: string[]) {
  return spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', input: '' })
}

const COMMANDS = [
  'run',
  'chat',
  'inspect',
  'bench',
  'pack',
  'quantize',
  'merge',
  'pull',
  'doctor',
  'serve',
]

describe('help', () => {
  test('lists the commands and goes to standard output', () => {
    const { status, stdout, stderr } = maestrale('--help')
    expect([status, stderr]).toEqual([0, ''])
    for (const command of COMMANDS) expect(stdout).toContain(command)
  })

  test.each(COMMANDS)('of %s has examples', (command) => {
    const { status, stdout, stderr } = maestrale(command, '--help')
    expect([status, stderr]).toEqual([0, ''])
    expect(stdout).toContain('Examples:\n')
    expect(stdout).toContain(`maestrale ${command}`)
  })

  test('--version', () => {
    expect(maestrale('--version').stdout).toBe(`${manifest.version}\n`)
  })
})

describe('wrong use ends with 2', () => {
  test.each([
    [['nonsense'], "unknown command 'nonsense'"],
    [['run', '--nonsense'], "unknown option '--nonsense'"],
    [['run', '-n', 'many'], "argument 'many' is invalid. It must be a number."],
    [
      ['run', '--kv-cache-type', 'f32'],
      "argument 'f32' is invalid. Allowed choices are f16, bf16, q8_0.",
    ],
    [['run', 'no-such-file.gguf', 'text'], "there is no file 'no-such-file.gguf'"],
    [['inspect', 'no-such-file.gguf'], "there is no file 'no-such-file.gguf'"],
    [['run', main], "give a prompt to continue, or '-' to read it from standard input"],
    [['pull', 'no-repository'], "received 'no-repository'"],
    [['run', '--threads', '0'], '--threads must be an integer from 1 to 1024; received 0'],
    [
      ['run', '--gpu-layers', '2000'],
      '--gpu-layers must be an integer from 0 to 1024; received 2000',
    ],
    [
      ['run', '--double-quant'],
      "--double-quant must be false unless quantization is 'nf4' or 'fp4'; received true",
    ],
    [
      ['quantize', 'mini', 'out', '--type', 'q4_0', '--sliding-window', '-4'],
      '--sliding-window must be an integer of at least 1; received -4',
    ],
    [['merge', 'mini', 'no-such-adapter', 'out'], "there is no adapter 'no-such-adapter'"],
    [['bench', '--gen', '0'], '--gen must be an integer of at least 1; received 0'],
    [['bench', '--repeats', '1.5'], '--repeats must be an integer of at least 1; received 1.5'],
  ])('%j', (args, message) => {
    const { status, stdout, stderr } = maestrale(...args)
    expect(stderr).toContain(`${message}\n`)
    expect([status, stdout]).toEqual([2, ''])
    expect(stderr).toMatch(/^maestrale: /)
    expect(stderr).not.toContain('    at ')
  })
})

describe('what is no model or no adapter ends with 1 and says what it is', () => {
  const adapter = fileURLToPath(new URL('../../models/adapter-midjourney', import.meta.url))
  test.each([
    [
      ['inspect', main],
      /^'.*main.js' is no model: neither a GGUF file nor a packed one nor a directory$/,
    ],
    [
      ['inspect', join(adapter, 'adapter_model.safetensors')],
      /is no model: .*; name the directory that it is in$/,
    ],
    [
      ['inspect', adapter],
      /^'.*' is a LoRA adapter, which needs the model that it was trained on$/,
    ],
    [
      ['merge', 'mini', join(adapter, 'adapter_model.safetensors'), 'out'],
      /: name the directory that holds it and/,
    ],
  ])('%j', (args, message) => {
    const { status, stdout, stderr } = maestrale(...args)
    expect([status, stdout]).toEqual([1, ''])
    expect(stderr.replace(/^maestrale: /, '').trimEnd()).toMatch(message)
  })
})

test('inspect shows what a packed file was made from', () => {
  const folder = mkdtempSync(join(tmpdir(), 'maestrale-cli-'))
  try {
    const packed = join(folder, 'mini.maestrale')
    expect(maestrale('pack', 'mini', packed).status).toBe(0)
    const { config, format } = JSON.parse(maestrale('inspect', packed, '--json').stdout)
    expect(format).toBe('packed GGUF 3')
    expect(config).toEqual(JSON.parse(maestrale('inspect', 'mini', '--json').stdout).config)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('no colours when nobody looks at a terminal', () => {
  expect(maestrale('run', 'no-such-file.gguf', 'text').stderr).not.toContain('\x1b')
})
