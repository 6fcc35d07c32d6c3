// SPDX-License-Identifier: Apache-2.0
// A stand-in for the hub with an empty cache in front of it, and the command in processes of its own, for the tests of
// lib/hub.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { vi } from 'vitest'

import { FakeHub } from './fake-hub.js'

const main = fileURLToPath(new URL('../../dist/esm/cli/main.js', import.meta.url))

/** A hub that holds `files` as org/repo, and the cache of whoever asks it. */
export class HubSetup {
  readonly hub: FakeHub = new FakeHub()
  readonly home: string = mkdtempSync(join(tmpdir(), 'maestrale-hub-'))
  readonly #children: ChildProcess[] = []

  static async open(files: Record<string, Buffer>): Promise<HubSetup> {
    const setup = new HubSetup()
    for (const name of ['HF_TOKEN', 'HF_HUB_OFFLINE', 'HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE']) {
      vi.stubEnv(name, undefined)
    }
    vi.stubEnv('HF_HOME', setup.home)
    vi.stubEnv('HF_ENDPOINT', await setup.hub.start())
    setup.hub.files = files
    return setup
  }

  async close(): Promise<void> {
    for (const child of this.#children) child.kill('SIGKILL') // of a test that failed
    vi.unstubAllEnvs()
    await this.hub.stop()
    rmSync(this.home, { recursive: true })
  }

  get repoFolder(): string {
    return join(this.home, 'hub', 'models--org--repo')
  }

  blobs(): string[] {
    return readdirSync(join(this.repoFolder, 'blobs'))
  }

  /** `maestrale ARGS`, running. */
  maestrale(...args: string[]): {
    child: ChildProcess
    ended: Promise<{ stdout: string; stderr: string; status: number | null }>
  } {
    const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#children.push(child)
    const ended = Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]).then(
      ([stdout, stderr, [status]]) => ({ stdout, stderr, status }),
    )
    return { child, ended }
  }
}
