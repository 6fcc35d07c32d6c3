// SPDX-License-Identifier: Apache-2.0
// What clients may name as `model`: the loaded model, and each of its adapters.
import type { Model } from '../index.js'
import { HttpError } from './errors.js'

/** The names that a server answers to. */
export class ServedModels {
  readonly base: string
  readonly #model: Model
  readonly #created = Math.floor(Date.now() / 1000)

  constructor(model: Model, base: string) {
    this.#model = model
    this.base = base
  }

  /** The body of GET /v1/models. */
  list(): object {
    const adapters = this.#model.stats().adapters.map(({ name }) => this.#entry(name))
    return { object: 'list', data: [this.#entry(this.base), ...adapters] }
  }

  /**
   * The body of GET /v1/models/NAME.
   *
   * @throws HttpError 404
   */
  describe(name: string): object {
    this.adapterOf(name)
    return this.#entry(name)
  }

  /**
   * The adapter that `name` stands for; none for the model itself. A name that means nothing here is an error and not the
   * base model, which would answer in place of an adapter whose name was misspelt.
   *
   * @throws HttpError 404
   */
  adapterOf(name: string): string | undefined {
    if (name === this.base) return undefined
    const names = this.#model.stats().adapters.map((adapter) => adapter.name)
    if (names.includes(name)) return name
    throw new HttpError(
      404,
      `There is no model '${name}' here; there is ${[this.base, ...names].join(', ')}.`,
      { code: 'model_not_found', param: 'model' },
    )
  }

  #entry(id: string): object {
    return {
      id,
      object: 'model',
      created: this.#created,
      owned_by: 'maestrale',
      max_model_len: this.#model.info.contextLength,
      ...(id === this.base ? {} : { parent: this.base }),
    }
  }
}
