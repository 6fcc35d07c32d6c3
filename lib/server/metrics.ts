// SPDX-License-Identifier: Apache-2.0
// The engine's counters in the text format of Prometheus.
import type { Model } from '../index.js'

export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

type Sample = readonly [value: number, labels?: Readonly<Record<string, string>>]

function escapeLabel(value: string): string {
  return value.replace(/[\\"]/g, '\\$&').replaceAll('\n', '\\n')
}

function family(
  kind: 'gauge' | 'counter',
  name: string,
  help: string,
  samples: readonly Sample[],
): string {
  const lines = samples.map(([value, labels = {}]) => {
    const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escapeLabel(text)}"`)
    return `maestrale_${name}${pairs.length > 0 ? `{${pairs.join()}}` : ''} ${value}\n`
  })
  return `# HELP maestrale_${name} ${help}\n# TYPE maestrale_${name} ${kind}\n${lines.join('')}`
}

/** @param served what clients call the model; `responses`: how many answers had each status */
export function metricsText(
  model: Model,
  served: string,
  responses: ReadonlyMap<number, number>,
): string {
  const { device, isa } = model.info
  const stats = model.stats()
  const gauge = (name: string, help: string, ...samples: Sample[]) =>
    family('gauge', name, help, samples)
  const counter = (name: string, help: string, ...samples: Sample[]) =>
    family('counter', name, help, samples)
  return [
    gauge('model_info', 'What runs, as labels.', [1, { model_name: served, device, isa }]),
    gauge('num_requests_running', 'Sequences in the batch.', [stats.running]),
    gauge('num_requests_waiting', 'Requests that wait for a place in the batch.', [stats.queued]),
    gauge('kv_cache_usage_ratio', 'Pages of the KV cache that sequences hold, of all.', [
      stats.kvPagesUsed / Math.max(1, stats.kvPagesTotal),
    ]),
    gauge('kv_cache_pages', 'Pages of the KV cache.', [stats.kvPagesTotal]),
    gauge(
      'adapter_requests',
      'Requests that use an adapter and have not ended.',
      ...stats.adapters.map((adapter): Sample => [adapter.requests, { adapter: adapter.name }]),
    ),
    counter('prompt_tokens_total', 'Tokens of prompts.', [stats.promptTokens]),
    counter('cached_prompt_tokens_total', 'Of them, those that were not computed again.', [
      stats.cachedTokens,
    ]),
    counter('generation_tokens_total', 'Tokens generated.', [stats.completionTokens]),
    counter('steps_total', 'Batches computed.', [stats.steps]),
    counter('compute_seconds_total', 'Time spent computing them.', [stats.computeMs / 1000]),
    counter(
      'http_responses_total',
      'Answers by status.',
      ...[...responses].map(([status, count]): Sample => [count, { status: String(status) }]),
    ),
  ].join('')
}
