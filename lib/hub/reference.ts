// SPDX-License-Identifier: Apache-2.0
// How a model on the Hugging Face hub is named: hf:ORG/REPO, hf:ORG/REPO:QUANT, hf:ORG/REPO@REVISION:QUANT.
import { outOfRange } from '../validate.js'

export const HUB_PREFIX = 'hf:'

/** A model on the hub. */
export interface HubReference {
  /** `'org/name'`. */
  repo: string
  /** A branch, tag, pull request or commit. */
  revision: string
  /** What the name of a GGUF file must contain, e.g. `'Q4_K_M'`, or the whole name. */
  quant?: string
}

const REFERENCE = /^(?:hf:)?([\w][\w.-]*\/[\w][\w.-]*)(?:@([\w][\w./-]*))?(?::([\w][\w./-]*))?$/

/**
 * Reads `'org/repo:quant'`, with or without `hf:`.
 *
 * @throws RangeError with ERR_INVALID_ARG
 */
export function parseReference(text: string, revision?: string): HubReference {
  const match = REFERENCE.exec(text)
  const [, repo = '', own, quant] = match ?? []
  const reference = { repo, revision: revision ?? own ?? 'main', ...(quant ? { quant } : {}) }
  // The names become paths of the cache.
  if (!match || Object.values(reference).some((part) => /(^|\/)\.\.?(\/|$)|--|\/\//.test(part))) {
    outOfRange('model', "'hf:ORG/REPO', 'hf:ORG/REPO:QUANT' or 'hf:ORG/REPO@REVISION:QUANT'", text)
  }
  return reference
}

/** The shortest text that names the same. */
export function showReference({ repo, revision, quant }: HubReference): string {
  return `${HUB_PREFIX}${repo}${revision === 'main' ? '' : `@${revision}`}${quant ? `:${quant}` : ''}`
}
