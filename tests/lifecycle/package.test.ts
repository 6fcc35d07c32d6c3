// SPDX-License-Identifier: Apache-2.0
// The package as npm delivers it: packed with the binary of this build as a prebuilt one, and installed in an
// empty directory where neither a compiler nor a network is to be had. Needs `npm run build`.
import { execFileSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import manifest from '../../package.json' with { type: 'json' }

const root = fileURLToPath(new URL('../..', import.meta.url))
const work = realpathSync(mkdtempSync(join(tmpdir(), 'maestrale-package-')))
const stage = join(work, 'stage')
const app = join(work, 'app')
const installed = join(app, 'node_modules', 'maestrale')

const GREEDY = '{ maxNewTokens: 6, temperature: 0 }'
// Prints the text and the instruction set; `load` is how the module comes.
const program = (load: string) => `
${load}
const model = await loadModel(${JSON.stringify(join(installed, 'models', 'mini-q4_k_m.gguf'))}, { threads: 1 })
const { text } = await model.generate('And it came to pass', ${GREEDY})
console.log(JSON.stringify({ text, isa: model.info.isa }))
await model.dispose()`

/** node, npm and a shell: what an installation may count on. */
function bareTools(): string {
  const bin = join(work, 'bin')
  mkdirSync(bin)
  symlinkSync(process.execPath, join(bin, 'node'))
  symlinkSync('/bin/sh', join(bin, 'sh'))
  return bin
}

function run(file: string, args: string[], env: Record<string, string> = {}): string {
  return execFileSync(file, args, { cwd: app, encoding: 'utf8', env: { ...environment, ...env } })
}

const npm = (process.env.PATH ?? '')
  .split(delimiter)
  .map((folder) => join(folder, 'npm'))
  .find((path) => existsSync(path))
const environment: Record<string, string> = { HOME: work, PATH: bareTools() }

/** Packs folders; returns the paths of the tarballs. */
function pack(...folders: string[]): string[] {
  const args = ['pack', '--json', '--ignore-scripts', '--pack-destination', work, ...folders]
  const packed = JSON.parse(execFileSync('npm', args, { cwd: root, encoding: 'utf8' }))
  return packed.map(({ filename }: { filename: string }) => join(work, filename))
}

/** The packages that maestrale needs at run time, out of this checkout. */
function runtimeDependencies(): Record<string, string> {
  const args = ['ls', '--omit=dev', '--all', '--parseable']
  const list = execFileSync('npm', args, { cwd: root, encoding: 'utf8' })
  const folders = list.trim().split('\n').slice(1)
  const names = folders.map((folder) => folder.split('/node_modules/').at(-1) ?? '')
  return Object.fromEntries(pack(...folders).map((path, i) => [names[i], `file:${path}`]))
}

beforeAll(() => {
  for (const path of [
    ...manifest.files.filter((name) => name !== 'prebuilds'),
    'README.md',
    'LICENSE',
  ]) {
    cpSync(join(root, path), join(stage, path), { recursive: true })
  }
  cpSync(join(root, 'package.json'), join(stage, 'package.json'))
  const prebuilt = join(stage, 'prebuilds', `${process.platform}-${process.arch}`)
  mkdirSync(prebuilt, { recursive: true })
  const binary = join(prebuilt, 'maestrale.glibc.node')
  cpSync(join(root, 'build', 'Release', 'maestrale.node'), binary)
  execFileSync('strip', [binary])
  const [tarball] = pack(stage)

  mkdirSync(app)
  const dependencies = { maestrale: `file:${tarball}`, ...runtimeDependencies() }
  writeFileSync(
    join(app, 'package.json'),
    JSON.stringify({ name: 'app', private: true, dependencies }),
  )
  const options = [
    '--offline',
    '--install-links',
    '--no-audit',
    '--no-fund',
    '--foreground-scripts',
  ]
  run(process.execPath, [realpathSync(npm ?? ''), 'install', ...options])
}, 120_000)

afterAll(() => rmSync(work, { recursive: true, force: true }))

describe('installed', { timeout: 120_000 }, () => {
  test('it is a copy with a prebuilt binary and no sources', () => {
    expect(readdirSync(installed).sort()).toEqual(
      [
        'LICENSE',
        'README.md',
        'dist',
        'lib',
        'models',
        'package.json',
        'prebuilds',
        'scripts',
      ].sort(),
    )
    expect(existsSync(join(installed, 'build'))).toBe(false)
  })

  test.each([
    ['an ES module', 'module', "import { loadModel } from 'maestrale'", ''],
    ['CommonJS', 'commonjs', "const { loadModel } = require('maestrale'); (async () => {", '})()'],
  ])('%s runs the model', (_, type, load, end) => {
    const source = program(load) + end
    const out = run(process.execPath, [`--input-type=${type}`, '--eval', source])
    expect(JSON.parse(out).text.length).toBeGreaterThan(5)
  })

  test('any instruction set gives the same text', () => {
    const source = program("import { loadModel } from 'maestrale'")
    const runs = [undefined, 'scalar', 'avx2'].map((isa) => {
      const env = isa === undefined ? {} : { MAESTRALE_ISA: isa }
      return JSON.parse(run(process.execPath, ['--input-type=module', '--eval', source], env))
    })
    expect(new Set(runs.map(({ text }) => text)).size).toBe(1)
    expect(runs.slice(1).map(({ isa }) => isa)).toEqual(['scalar', 'avx2'])
  })

  test('the command line runs', () => {
    const command = join(app, 'node_modules', '.bin', 'maestrale')
    const { text } = JSON.parse(
      run(process.execPath, [command, 'run', '-n', '4', '-t', '0', '--json']),
    )
    expect(text.length).toBeGreaterThan(3)
  })

  test('the binary needs the C and C++ libraries and nothing else, CUDA least of all', () => {
    const folder = join(installed, 'prebuilds', `${process.platform}-${process.arch}`)
    const out = execFileSync('readelf', ['-d', join(folder, 'maestrale.glibc.node')], {
      encoding: 'utf8',
    })
    const needed = [...out.matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(
      (match) => match[1]?.split('.')[0],
    )
    const allowed = [
      'libstdc++',
      'libm',
      'libgcc_s',
      'libc',
      'libpthread',
      'libdl',
      'ld-linux-x86-64',
    ]
    expect(needed.filter((name) => !allowed.includes(name ?? ''))).toEqual([])
  })
})

describe('types resolve', { timeout: 120_000 }, () => {
  const typescript = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
  const source = `import { loadModel, MaestraleError, type Model } from 'maestrale'
export async function use(): Promise<string> {
  const model: Model = await loadModel('m.gguf', { device: 'cpu' })
  try {
    for await (const chunk of model.generate('x', { seed: 1 })) chunk.text satisfies string
    return (await model.chat([{ role: 'user', content: 'x' }])).text
  } catch (error) {
    return error instanceof MaestraleError ? error.code : ''
  }
}
// @ts-expect-error an option that does not exist
export const wrong = loadModel('m.gguf', { thread: 1 })
`
  test.each([
    ['NodeNext', 'NodeNext', 'use.mts'],
    ['NodeNext', 'NodeNext', 'use.cts'],
    ['Node16', 'Node16', 'use.mts'],
    ['ESNext', 'Bundler', 'use.ts'],
  ])('module %s, moduleResolution %s, %s', (module, moduleResolution, name) => {
    const folder = join(app, `${module}-${moduleResolution}-${name}`)
    mkdirSync(folder)
    writeFileSync(join(folder, name), source)
    const compilerOptions = {
      module,
      moduleResolution,
      target: 'ES2022',
      strict: true,
      noEmit: true,
      types: ['node'],
      typeRoots: [join(root, 'node_modules', '@types')],
    }
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: [name] }))
    run(process.execPath, [typescript, '-p', folder])
  })
})

test('publint has nothing to say', { timeout: 120_000 }, () => {
  const publint = join(root, 'node_modules', 'publint')
  const { bin } = JSON.parse(readFileSync(join(publint, 'package.json'), 'utf8'))
  const command = join(publint, typeof bin === 'string' ? bin : bin.publint)
  const out = execFileSync(process.execPath, [command, stage, '--strict', '--pack', 'false'], {
    encoding: 'utf8',
  })
  expect(out).toContain('All good')
  expect(basename(dirname(installed))).toBe('node_modules')
})
