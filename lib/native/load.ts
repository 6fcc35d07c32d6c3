// SPDX-License-Identifier: Apache-2.0
// Loads the addon on first use and explains a failure once, in one error with the likely remedies.
import { loadAddon } from '#addon'
import { MaestraleError } from '../errors.js'
import type { Binding } from './binding.js'

let binding: Binding | undefined

function machine(): string {
  const report = process.report?.getReport() as
    | { header?: { glibcVersionRuntime?: string } }
    | undefined
  const glibc = report?.header?.glibcVersionRuntime
  const libc =
    process.platform === 'linux' ? ` with ${glibc ? `glibc ${glibc}` : 'another C library'}` : ''
  return `${process.platform}-${process.arch}${libc}, Node ${process.versions.node}`
}

/** The addon. Throws MaestraleError ERR_NATIVE_LOAD. */
export function loadBinding(): Binding {
  if (binding) return binding
  try {
    binding = loadAddon() as Binding
    return binding
  } catch (cause) {
    const reason = (cause instanceof Error ? cause.message : String(cause)).split('\n')[0]
    throw new MaestraleError(
      'ERR_NATIVE_LOAD',
      `The native part of maestrale does not load on ${machine()}: ${reason}. ` +
        'In a checkout, run "npm run build:native" (it needs g++ and cmake). In an application, install on the ' +
        'machine type that runs it, keep .node files out of bundles, and use a glibc based image instead of Alpine.',
      { cause },
    )
  }
}
