// SPDX-License-Identifier: Apache-2.0
// Jobs of the addon: work on another thread that reports progress and that a signal stops.
import { type CallSite, fromNative } from './errors.js'
import type { NativeJob, NativeProgress } from './native/binding.js'
import type { LoadProgress } from './types.js'

/** How the caller of a job follows and stops it. */
export interface JobOptions {
  onProgress?: ((progress: LoadProgress) => void) | undefined
  signal?: AbortSignal | undefined
}

/**
 * The result of the job that `start` begins. Rejects with the signal's reason or with what `onProgress` throws,
 * whichever stops the job first. A result that comes all the same goes to `discard`; without one it counts.
 */
export async function runJob<T>(
  start: (report: NativeProgress | undefined) => NativeJob<T>,
  { onProgress, signal }: JobOptions,
  site: CallSite,
  discard?: (result: T) => Promise<void>,
): Promise<T> {
  signal?.throwIfAborted()
  let stopped: { reason: unknown } | undefined
  const stop = (reason: unknown) => {
    stopped ??= { reason }
    job.cancel()
  }
  const report = (loaded: number, total: number) => {
    try {
      if (!stopped) onProgress?.({ loaded, total })
    } catch (error) {
      stop(error)
    }
  }
  const job = start(onProgress ? report : undefined)
  const onAbort = () => stop(signal?.reason)
  signal?.addEventListener('abort', onAbort, { once: true })
  try {
    const result = await job.promise
    if (!stopped || !discard) return result
    await discard(result)
  } catch (error) {
    if (!stopped) throw fromNative(error, site)
  } finally {
    signal?.removeEventListener('abort', onAbort)
  }
  throw stopped.reason
}
