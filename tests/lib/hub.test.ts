import { createHash, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'

import { parseReference } from '../../lib/hub/reference.js'
import { selectFiles } from '../../lib/hub/select.js'
import {
  type LoadProgress,
  loadModel,
  loadTokenizer,
  pullModel,
  quantizeModel,
} from '../../lib/index.js'
import { COMMIT, FakeHub } from './fake-hub.js'
import { HubSetup } from './hub-setup.js'

const MINI_PATH = fileURLToPath(new URL('../../models/mini-q4_k_m.gguf', import.meta.url))
const MINI = readFileSync(MINI_PATH)
const BIG = randomBytes(300_000)
const adapterFiles = () =>
  Object.fromEntries(
    ['adapter_config.json', 'adapter_model.safetensors'].map((name) => [
      name,
      readFileSync(new URL(`../../models/adapter-midjourney/${name}`, import.meta.url)),
    ]),
  )

let setup: HubSetup
let hub: FakeHub

beforeEach(async () => {
  setup = await HubSetup.open({
    'model.Q4_K_M.gguf': BIG,
    'model.Q8_0.gguf': randomBytes(5000),
    'README.md': MINI,
  })
  hub = setup.hub
})
afterEach(() => setup.close())

const repoFolder = () => setup.repoFolder
const blobs = () => setup.blobs()
const maestrale = (...args: string[]) => setup.maestrale(...args)
const failure = (code: string, message: string | RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) })

describe('a download', () => {
  test('ends in the shared cache, once', async () => {
    const pulled = await pullModel('hf:org/repo:q4_k_m')
    expect(readFileSync(pulled.path).equals(BIG)).toBe(true)
    expect(pulled).toMatchObject({
      repo: 'org/repo',
      revision: COMMIT,
      downloadedBytes: BIG.length,
    })
    expect(pulled.files).toEqual([{ path: 'model.Q4_K_M.gguf', size: BIG.length }])
    const sha256 = createHash('sha256').update(BIG).digest('hex')
    expect(pulled.path).toBe(join(repoFolder(), 'snapshots', COMMIT, 'model.Q4_K_M.gguf'))
    expect(readlinkSync(pulled.path)).toBe(join('..', '..', 'blobs', sha256))
    expect(readFileSync(join(repoFolder(), 'refs', 'main'), 'utf8')).toBe(COMMIT)
    expect(blobs()).toEqual([sha256])

    expect((await pullModel('org/repo:Q4_K_M')).downloadedBytes).toBe(0)
    expect(hub.downloads).toEqual(['model.Q4_K_M.gguf all'])
  })

  test('reports bytes, those that were there included', async () => {
    const seen: LoadProgress[] = []
    const onProgress = (progress: LoadProgress) => seen.push(progress)
    await pullModel('org/repo:Q4_K_M', { onProgress })
    expect(seen.length).toBeGreaterThan(1)
    expect(seen.at(-1)).toEqual({ phase: 'download', loaded: BIG.length, total: BIG.length })
    await pullModel('org/repo:Q4_K_M', { onProgress })
    expect(seen.at(-1)).toEqual({ phase: 'download', loaded: BIG.length, total: BIG.length })
  })

  test('goes on where the connection was cut', async () => {
    hub.fault = (_, n) => (n < 3 ? { cutAfter: 50_000 } : undefined)
    const { path } = await pullModel('org/repo:Q4_K_M')
    expect(readFileSync(path).equals(BIG)).toBe(true)
    const starts = hub.downloads.map((line) => Number(/bytes=(\d+)/.exec(line)?.[1] ?? 0))
    expect(starts).toHaveLength(4)
    expect(starts).toEqual([...starts].sort((a, b) => a - b))
    expect(starts[3]).toBeGreaterThan(100_000)
  })

  test('goes on where an earlier one was stopped', async () => {
    const controller = new AbortController()
    const reason = new Error('enough')
    hub.fault = (_, n) => (n === 0 ? { cutAfter: 100_000 } : undefined)
    const onProgress = () => controller.abort(reason)
    const stopped = pullModel('org/repo:Q4_K_M', { onProgress, signal: controller.signal })
    await expect(stopped).rejects.toBe(reason)
    expect(blobs()).toEqual([expect.stringMatching(/\.incomplete$/)])
    const { path } = await pullModel('org/repo:Q4_K_M')
    expect(readFileSync(path).equals(BIG)).toBe(true)
    expect(hub.downloads.at(-1)).toMatch(/ bytes=[1-9]\d*-299999$/)
  })

  test('stops at once while it waits to try again', async () => {
    const controller = new AbortController()
    const reason = new Error('enough')
    hub.fault = (_, n) => {
      if (n === 2) setTimeout(() => controller.abort(reason), 50)
      return { status: 503 }
    }
    const started = performance.now()
    const stopped = pullModel('org/repo:Q4_K_M', { signal: controller.signal })
    await expect(stopped).rejects.toBe(reason)
    expect(performance.now() - started).toBeLessThan(2500) // the third pause ends after 3500 ms
  })

  test.each([
    ['a corrupted byte', { corrupt: 200_000 }],
    ['a whole file instead of a part', { ignoreRange: true }],
    ['another part than the one asked for', { shiftRange: 10 }],
  ])('starts over after %s', async (_, fault) => {
    hub.fault = (_path, n) => (n === 0 ? { cutAfter: 100_000 } : n === 1 ? fault : undefined)
    const { path } = await pullModel('org/repo:Q4_K_M')
    expect(readFileSync(path).equals(BIG)).toBe(true)
    expect(hub.downloads.at(-1)).toBe('model.Q4_K_M.gguf all')
  })

  test('that is spoiled every time fails and leaves nothing that could be taken for the file', async () => {
    hub.fault = () => ({ corrupt: 7 })
    await expect(pullModel('org/repo:Q4_K_M')).rejects.toEqual(
      failure('ERR_DOWNLOAD', /arrives with other bytes than the hub announces/),
    )
    expect(blobs()).toEqual([])
    expect(existsSync(join(repoFolder(), 'refs'))).toBe(false)
  })

  test('of a leftover that is damaged starts over', async () => {
    const sha256 = createHash('sha256').update(BIG).digest('hex')
    mkdirSync(join(repoFolder(), 'blobs'), { recursive: true })
    writeFileSync(join(repoFolder(), 'blobs', `${sha256}.incomplete`), Buffer.alloc(1000))
    const { path } = await pullModel('org/repo:Q4_K_M')
    expect(readFileSync(path).equals(BIG)).toBe(true)
    expect(hub.downloads.at(-1)).toBe('model.Q4_K_M.gguf all')
  })

  test('survives a server that is busy for a moment', async () => {
    hub.fault = (_, n) => (n === 0 ? { status: 503 } : undefined)
    expect(readFileSync((await pullModel('org/repo:Q4_K_M')).path).equals(BIG)).toBe(true)
  })
})

describe('a refusal is one sentence', () => {
  test.each([
    [
      401,
      'RepoNotFound',
      /^hf:org\/repo does not exist, or is private and needs HF_TOKEN \(status 401\)\.$/,
    ],
    [403, 'GatedRepo', /is gated: accept its conditions on the hub and set HF_TOKEN/],
    [404, 'RevisionNotFound', /has no such revision \(status 404\)/],
    [401, undefined, /may not be read with no token; set HF_TOKEN \(status 401\)/],
    [404, undefined, /does not exist/],
    [500, undefined, /cannot be read at the moment \(status 500\)/],
  ])('%i %s', async (status, errorCode, message) => {
    hub.refusal = { status, ...(errorCode ? { errorCode } : {}) }
    await expect(pullModel('org/repo')).rejects.toEqual(failure('ERR_DOWNLOAD', message))
  })

  test('of one file', async () => {
    hub.fault = () => ({ status: 403, errorCode: 'GatedRepo' })
    await expect(pullModel('org/repo:Q8_0')).rejects.toEqual(failure('ERR_DOWNLOAD', /is gated/))
    expect(hub.downloads).toHaveLength(1)
  })

  test('when the server is not there', async () => {
    await hub.stop()
    await expect(pullModel('org/repo')).rejects.toEqual(
      failure('ERR_DOWNLOAD', /^http:\/\/127\.0\.0\.1:\d+ cannot be read: .*\(ECONNREFUSED\)\.$/),
    )
    await hub.start()
  })

  test('when the disk is too small', async () => {
    hub.relist = (entry) => ({ ...entry, size: 2 ** 52 })
    await expect(pullModel('org/repo:Q8_0')).rejects.toEqual(
      failure('ERR_DOWNLOAD', /needs 4503599627370496 bytes, but '.*' has \d+ left/),
    )
  })

  test('when the cache cannot be written', async () => {
    mkdirSync(dirname(repoFolder()), { recursive: true })
    writeFileSync(repoFolder(), 'a file where a folder belongs')
    await expect(pullModel('org/repo:Q8_0')).rejects.toEqual(
      failure('ERR_DOWNLOAD', /cannot be written to '.*': EEXIST/),
    )
  })

  test.each(['../../evil.gguf', '/evil.gguf', 'a//evil.gguf', 'a\\evil.gguf', ''])(
    'when the server lists the file %j',
    async (path) => {
      hub.relist = (entry) => ({ ...entry, path })
      await expect(pullModel('org/repo')).rejects.toEqual(
        failure('ERR_DOWNLOAD', /lists a file of 'org\/repo' that cannot be/),
      )
    },
  )

  test.each([
    'org',
    'org/repo/more',
    '../repo',
    'org/..',
    'org/re po',
    'org/repo@../x',
    'org--x/repo',
    'hf:',
  ])('when the name is %j', async (name) => {
    await expect(pullModel(name)).rejects.toEqual(failure('ERR_INVALID_ARG', /^model must be/))
    expect(hub.requests).toEqual([])
  })
})

test('the token goes to the hub and to nobody else', async () => {
  const cdn = new FakeHub()
  cdn.files = hub.files
  const elsewhere = await cdn.start()
  vi.stubEnv('HF_TOKEN', 'secret')
  hub.fault = (path) => ({ location: `${elsewhere}/org/repo/resolve/${COMMIT}/${path}` })
  await pullModel('org/repo:Q4_K_M')
  expect(hub.requests.map((request) => request.authorization)).toEqual(
    Array(3).fill('Bearer secret'),
  )
  expect(cdn.requests.map((request) => request.authorization)).toEqual([undefined])

  hub.nextPage = `${elsewhere}/api/models/org/repo/tree/${COMMIT}`
  await pullModel('org/repo:Q8_0')
  expect(cdn.requests.length).toBeGreaterThan(2)
  for (const { authorization } of cdn.requests) expect(authorization).toBeUndefined()
  await cdn.stop()
})

describe("loadModel('hf:...')", () => {
  beforeEach(() => {
    hub.files = { 'mini.Q4_K_M.gguf': MINI }
  })

  test('downloads, then uses the cache without asking', async () => {
    const phases = new Set<string | undefined>()
    const model = await loadModel('hf:org/repo:Q4_K_M', {
      onProgress: ({ phase }) => phases.add(phase),
    })
    expect([...phases]).toEqual(['download', undefined])
    expect((await model.generate('And', { maxNewTokens: 3 })).tokens).toHaveLength(3)
    await model.dispose()
    const asked = hub.requests.length
    vi.stubEnv('HF_HUB_OFFLINE', '1')
    expect((await loadTokenizer('hf:org/repo')).vocabSize).toBe(model.tokenizer.vocabSize)
    expect(hub.requests).toHaveLength(asked)
  })

  test('offline, what is not in the cache is an error', async () => {
    vi.stubEnv('HF_HUB_OFFLINE', '1')
    await expect(loadModel('hf:org/repo')).rejects.toEqual(
      failure(
        'ERR_DOWNLOAD',
        /^hf:org\/repo would have to be downloaded, which HF_HUB_OFFLINE forbids\.$/,
      ),
    )
    expect(hub.requests).toEqual([])
  })

  test('a checkpoint of which a shard is missing is not complete', async () => {
    const shards = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors']
    const map = Object.fromEntries(shards.map((name, i) => [`tensor${i}`, name]))
    hub.files = {
      'config.json': Buffer.from('{}'),
      'model.safetensors.index.json': Buffer.from(JSON.stringify({ weight_map: map })),
      ...Object.fromEntries(shards.map((name) => [name, randomBytes(5000)])),
    }
    const { path } = await pullModel('org/repo')
    rmSync(join(path, shards[1] ?? ''))
    const before = hub.downloads.length
    // The blob is still there: linked, not downloaded.
    await expect(loadModel('hf:org/repo')).rejects.toMatchObject({ code: 'ERR_MODEL_FORMAT' })
    expect(existsSync(join(path, shards[1] ?? ''))).toBe(true)
    expect(hub.downloads).toHaveLength(before)
  })
})

describe('hf: where a model or an adapter is named', () => {
  test('quantizeModel', async () => {
    hub.files = { 'mini.Q4_K_M.gguf': MINI }
    const phases: (string | undefined)[] = []
    const output = join(setup.home, 'out.gguf')
    const onProgress = ({ phase }: LoadProgress) => phases.push(phase)
    await quantizeModel('hf:org/repo:Q4_K_M', output, { type: 'q3_k', onProgress })
    expect([phases[0], phases.at(-1)]).toEqual(['download', undefined])
    expect(existsSync(output)).toBe(true)
    await expect(quantizeModel('hf:org/repo:Q9', output, { type: 'q3_k' })).rejects.toEqual(
      failure('ERR_MODEL_UNSUPPORTED', /has no GGUF file in 'Q9'/),
    )
  })

  test('loadAdapter and mergeAdapter', async () => {
    hub.files = adapterFiles()
    const model = await loadModel(MINI_PATH)
    const { name } = await model.loadAdapter('hf:org/repo')
    expect(name).toBe('repo')
    const { tokens } = await model.generate('And', { maxNewTokens: 3, adapter: 'repo' })
    expect(tokens).toHaveLength(3)
    const output = join(setup.home, 'out.gguf')
    await model.mergeAdapter('hf:org/repo', output)
    expect(existsSync(output)).toBe(true)
    expect(hub.downloads.sort()).toEqual([
      'adapter_config.json all',
      'adapter_model.safetensors all',
    ])
    await expect(model.loadAdapter('hf:org')).rejects.toEqual(failure('ERR_INVALID_ARG', /must be/))
    await model.dispose()
    await expect(model.loadAdapter('hf:org/repo')).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
  })

  test('loadAdapter reports its download, which a signal stops', async () => {
    hub.files = adapterFiles()
    await using model = await loadModel(MINI_PATH)
    const controller = new AbortController()
    const reason = new Error('enough')
    const { signal } = controller
    const onProgress = () => controller.abort(reason)
    await expect(model.loadAdapter('hf:org/repo', { onProgress, signal })).rejects.toBe(reason)
    expect(model.stats().adapters).toEqual([])
    await expect(model.loadAdapter('hf:org/repo', { signal })).rejects.toBe(reason)
    const seen: LoadProgress[] = []
    await model.loadAdapter('hf:org/repo', { onProgress: (progress) => seen.push(progress) })
    const total = Object.values(hub.files).reduce((sum, file) => sum + file.length, 0)
    expect(seen.at(-1)).toEqual({ phase: 'download', loaded: total, total })
  })

  test('an adapter in a pickle is refused, not downloaded', async () => {
    hub.files = { 'adapter_config.json': MINI, 'adapter_model.bin': MINI }
    await using model = await loadModel(MINI_PATH)
    await expect(model.loadAdapter('hf:org/repo')).rejects.toEqual(
      failure('ERR_MODEL_UNSUPPORTED', /'adapter_model.bin', a pickle file/),
    )
    expect(hub.downloads).toEqual([])
  })
})

describe('maestrale pull', () => {
  test('prints where the model is, and other commands take it from there', async () => {
    hub.files = { 'mini.Q4_K_M.gguf': MINI }
    const { stdout, stderr, status } = await maestrale('pull', 'org/repo:Q4_K_M', '--json').ended
    expect([status, stderr]).toEqual([0, ''])
    const pulled = JSON.parse(stdout)
    expect(pulled).toMatchObject({ revision: COMMIT, downloadedBytes: MINI.length })
    await hub.stop()
    const inspected = await maestrale('inspect', 'hf:org/repo', '--json').ended
    expect(JSON.parse(inspected.stdout).fileSize).toBe(MINI.length)
    await hub.start()
  })

  test('--adapter takes one from the hub', async () => {
    hub.files = adapterFiles()
    const args = ['run', 'mini', 'And', '-n', '3', '--json', '--adapter', 'hf:org/repo']
    const { stdout, stderr, status } = await maestrale(...args).ended
    expect([status, stderr]).toEqual([0, ''])
    expect(JSON.parse(stdout).tokens).toHaveLength(3)
  })

  test('says in one sentence why it fails', async () => {
    const { stdout, stderr, status } = await maestrale('pull', 'org/repo', '--revision', 'v9').ended
    expect([status, stdout]).toEqual([1, ''])
    expect(stderr).toBe('maestrale: hf:org/repo@v9 has no such revision (status 404).\n')
  })
})

describe('the files that make a model', () => {
  const select = (paths: string[], reference = 'org/repo') =>
    selectFiles(paths, parseReference(reference))
  const GGUFS = ['m.Q4_K_S.gguf', 'm.Q4_K_M.gguf', 'm-q8_0.gguf', 'mmproj-F16.gguf', 'imatrix.gguf']

  test.each([
    ['org/repo', 'm.Q4_K_M.gguf'],
    ['org/repo:q4_k_s', 'm.Q4_K_S.gguf'],
    ['org/repo:Q8_0', 'm-q8_0.gguf'],
    ['org/repo@v1:m.Q4_K_S.gguf', 'm.Q4_K_S.gguf'],
  ])('%s', (reference, expected) => {
    expect(select(GGUFS, reference)).toEqual({ model: expected, paths: [expected] })
  })

  test('the only GGUF file, whatever its type, and the one that lies highest', () => {
    expect(select(['x/m.Q2_K.gguf', 'README.md']).model).toBe('x/m.Q2_K.gguf')
    expect(select(['a/m.Q4_K_M.gguf', 'm.Q4_K_M.gguf']).model).toBe('m.Q4_K_M.gguf')
  })

  test('a quantisation is a whole word', () => {
    expect(() => select(GGUFS, 'org/repo:Q4_K')).toThrow(
      /no GGUF file in 'Q4_K'; name one of these after a colon: imatrix|m-q8_0.gguf, m.Q4_K_M.gguf/,
    )
  })

  test('safetensors with what is read beside them, in one layout, without pickles', () => {
    const files = [
      'README.md',
      'config.json',
      'consolidated.safetensors',
      'generation_config.json',
      'model-00001-of-00002.safetensors',
      'model-00002-of-00002.safetensors',
      'model.safetensors.index.json',
      'onnx/model.safetensors',
      'params.json',
      'pytorch_model.bin',
      'tokenizer.json',
      'tokenizer.model',
      'tokenizer.model.v3',
      'tokenizer_config.json',
    ]
    const { model, paths } = select(files)
    expect(model).toBe('')
    expect(paths.slice(-2)).toEqual(files.slice(4, 6))
    expect(paths).not.toContain('README.md')
    for (const name of ['config.json', 'params.json', 'tokenizer.json', 'tokenizer.model.v3']) {
      expect(paths).toContain(name)
    }
    expect(paths.some((name) => /consolidated|onnx|\.bin/.test(name))).toBe(false)
    expect(select(['params.json', 'consolidated.safetensors']).paths).toEqual([
      'params.json',
      'consolidated.safetensors',
    ])
  })

  test.each([
    [['pytorch_model.bin', 'config.json'], 'org/repo', /'pytorch_model.bin', a pickle file/],
    [['README.md'], 'org/repo', /neither GGUF nor safetensors/],
    [['model.safetensors'], 'org/repo:Q4_K_M', /has no GGUF files, so none in 'Q4_K_M'/],
    [['m.Q4_K_M-00001-of-00002.gguf'], 'org/repo', /in parts, which are not read/],
  ])('%j as %s is refused', (paths, reference, message) => {
    expect(() => select(paths, reference)).toThrow(message)
  })
})
