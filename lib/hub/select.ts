// SPDX-License-Identifier: Apache-2.0
// Which files of a repository make a model: one GGUF file, or the safetensors files with everything small
// that is read beside them. Pickle files are never among them.
import { MaestraleError } from '../errors.js'
import type { HubReference } from './reference.js'

const USUAL_QUANT = 'Q4_K_M'
const NO_MODEL = /mmproj|imatrix/i
const SPLIT = /-\d{5}-of-\d{5}\.gguf$/i
const PICKLE = /\.(bin|pth|pt|ckpt)$/
const SIDE_FILES =
  /^(config|params|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|chat_template|adapter_config|.*\.safetensors\.index)\.json$|^(.*\.)?tokenizer.*\.model(\.v\d.*)?$|^chat_template\.jinja$/

/** The files that were chosen; `model` is what to load, relative to the snapshot, `''` for the snapshot itself. */
export interface Selection {
  model: string
  paths: string[]
}

/** Does the file's name have this quantisation in it, as a word of its own? */
function hasQuant(path: string, quant: string): boolean {
  const name = path.split('/').at(-1) ?? ''
  if (path.toLowerCase() === quant.toLowerCase() || name.toLowerCase() === quant.toLowerCase()) {
    return true
  }
  const escaped = quant.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
  return new RegExp(`(^|[-._])${escaped}([-.]|$)`, 'i').test(name)
}

function chooseGguf(files: readonly string[], quant: string | undefined): string | undefined {
  if (quant === undefined && files.length === 1) return files[0]
  const wanted = files.filter((path) => hasQuant(path, quant ?? USUAL_QUANT))
  // Of several folders, the file that lies highest.
  return wanted.sort((a, b) => a.split('/').length - b.split('/').length || (a < b ? -1 : 1))[0]
}

/**
 * Chooses among the files of a repository. Without a quantisation: the only GGUF file, else the one in Q4_K_M,
 * else, where there are no GGUF files, the safetensors files.
 *
 * @throws MaestraleError ERR_MODEL_UNSUPPORTED when no file fits, naming those that are there
 */
export function selectFiles(paths: readonly string[], { repo, quant }: HubReference): Selection {
  const refuse = (problem: string): never => {
    throw new MaestraleError('ERR_MODEL_UNSUPPORTED', `'${repo}' ${problem}.`)
  }
  const ggufs = paths.filter((path) => /\.gguf$/i.test(path) && !NO_MODEL.test(path))
  if (quant !== undefined || ggufs.length > 0) {
    if (ggufs.length === 0) refuse(`has no GGUF files, so none in '${quant}'`)
    const found = chooseGguf(ggufs, quant)
    if (found === undefined) {
      const names = ggufs.map((path) => path.split('/').at(-1)).sort()
      return refuse(
        `has no GGUF file in '${quant ?? USUAL_QUANT}'; name one of these after a colon: ${names.join(', ')}`,
      )
    }
    if (SPLIT.test(found)) refuse(`has '${found}' in parts, which are not read`)
    return { model: found, paths: [found] }
  }
  const top = paths.filter((path) => !path.includes('/'))
  const weights = top.filter((path) => path.endsWith('.safetensors'))
  // Repositories with both layouts hold the same weights twice.
  const native = weights.filter((path) => path.startsWith('consolidated'))
  const chosen =
    native.length < weights.length ? weights.filter((path) => !native.includes(path)) : native
  if (chosen.length === 0) {
    const pickle = top.find((path) => PICKLE.test(path))
    refuse(
      pickle
        ? `holds its weights in '${pickle}', a pickle file, which can run code when it is read and is never downloaded`
        : 'has neither GGUF nor safetensors files',
    )
  }
  // Small files first: when the last weight file is there, everything is.
  return {
    model: '',
    paths: [...top.filter((path) => SIDE_FILES.test(path)).sort(), ...chosen.sort()],
  }
}
