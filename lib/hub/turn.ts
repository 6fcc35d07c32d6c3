// SPDX-License-Identifier: Apache-2.0
// One download of a file at a time on this machine, whichever processes want it. Who listens on a socket that is named
// after the file has the turn; the others are connected to it and so learn at once when it ends, be it in order or with
// its process. The name is an abstract one (unix(7)), which the system forgets with the socket: nothing is ever left.
import { createHash } from 'node:crypto'
import { realpath } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { basename, dirname, join } from 'node:path'

import type { HubClient } from './client.js'
import { partialSize } from './partial.js'

const POLL_MS = 250
// A download that stands still for longer is not waited for: its process may be stopped.
const MAX_STILL_MS = 10_000

/** The right to download a file, and the duty to give it back. */
export interface Turn {
  end(): void
}

// Where there are no such sockets, and beside a download that stands still. Partial files have names of their own.
const ANYWAY: Turn = { end: () => {} }

/** Differs between the files of a machine, not between the ways to name one. */
async function socketName(target: string): Promise<string> {
  const path = join(await realpath(dirname(target)), basename(target))
  return `\0maestrale-${createHash('sha256').update(path).digest('hex')}`
}

/** The turn, or undefined while somebody else has it. */
function tryTurn(name: string): Promise<Turn | undefined> {
  return new Promise((resolve) => {
    const waiting = new Set<Socket>()
    const server = createServer((socket) => {
      waiting.add(socket)
      socket.on('error', () => {}).once('close', () => waiting.delete(socket))
    })
    const end = () => {
      server.close()
      for (const socket of waiting) socket.destroy()
    }
    server.once('error', (error: NodeJS.ErrnoException) => {
      resolve(error.code === 'EADDRINUSE' ? undefined : ANYWAY)
    })
    server.listen(name, () => resolve({ end }))
  })
}

/**
 * Waits until nobody else downloads `target`, whose folder is there. It may be complete then.
 *
 * @param onSize gets how many bytes the other one has, while that changes
 * @throws the signal's reason; whatever `onSize` throws
 */
export async function takeTurn(
  target: string,
  client: HubClient,
  onSize: (bytes: number) => void,
): Promise<Turn> {
  const name = await socketName(target)
  let size = -1
  let changed = performance.now()
  for (;;) {
    const turn = await tryTurn(name)
    if (turn) return turn
    const other = connect(name).on('error', () => {}) // it has just ended
    const ended = new Promise((resolve) => other.once('close', resolve))
    try {
      while (!other.destroyed) {
        const now = await partialSize(target)
        if (now !== size) {
          size = now
          changed = performance.now()
          onSize(size)
        }
        if (performance.now() - changed > MAX_STILL_MS) return ANYWAY
        await Promise.race([ended, client.pause(POLL_MS)])
      }
    } finally {
      other.destroy()
    }
  }
}
