// SPDX-License-Identifier: Apache-2.0
// Figures out of measured values. Times are milliseconds.
import { monitorEventLoopDelay } from 'node:perf_hooks'

export function median(values) {
  return percentile(values, 50)
}

/** The smallest value that `percent` % of the values do not exceed. */
export function percentile(values, percent) {
  if (values.length === 0) throw new Error('no values')
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)]
}

/**
 * Figures of two sides that took turns, and of the limit at each turn: medians of all, the median of the ratios
 * within a turn and that of the shares of its limit. A machine that changes between turns changes neither.
 */
export function compareTurns(turns) {
  const middle = (pick) => {
    const values = turns.map(pick).filter((value) => Number.isFinite(value))
    return values.length > 0 ? median(values) : undefined
  }
  return {
    ours: middle(({ ours }) => ours),
    theirs: middle(({ theirs }) => theirs),
    limit: middle(({ limit }) => limit),
    ratio: middle(({ ours, theirs }) => ours / theirs),
    share: middle(({ ours, limit }) => ours / limit),
  }
}

/**
 * What an adapter costs, in percent: times with it, each between two without. A slow drift of the machine cancels.
 * `middle`, `low`, `high`: median and quartiles; `noise`: the median difference of neighbours without.
 */
export function adapterCost(withIt, without) {
  const costs = withIt.map((time, i) => 100 * (time / ((without[i] + without[i + 1]) / 2) - 1))
  const drifts = without.slice(1).map((time, i) => 100 * Math.abs(time / without[i] - 1))
  return {
    middle: median(costs),
    low: percentile(costs, 25),
    high: percentile(costs, 75),
    noise: median(drifts),
  }
}

/** Tokens per second of one sequence, from its first token to its last. */
export function rate(times) {
  return ((times.length - 1) / (times.at(-1) - times[0])) * 1000
}

/**
 * Tokens per second of several sequences in sum, while all of them stream. The tokens of a step arrive one after the
 * other, so each sequence is looked at from its token that is nearest to the beginning of that time to the one nearest
 * to its end.
 */
export function rateTogether(lists) {
  const from = Math.max(...lists.map((times) => times[0]))
  const to = Math.min(...lists.map((times) => times.at(-1)))
  if (to <= from) throw new Error('the sequences never streamed at the same time')
  const nearest = (times, moment) =>
    times.reduce((best, time) => (Math.abs(time - moment) < Math.abs(best - moment) ? time : best))
  const rates = lists.map((times) => {
    const [first, last] = [nearest(times, from), nearest(times, to)]
    return rate(times.slice(times.indexOf(first), times.indexOf(last) + 1))
  })
  return rates.reduce((sum, value) => sum + value, 0)
}

/** Observes how late the event loop is; the returned function ends that and tells { p50, p99, max }. */
export function watchEventLoop() {
  const histogram = monitorEventLoopDelay({ resolution: 1 })
  histogram.enable()
  return () => {
    histogram.disable()
    // The histogram holds how late a timer of 1 ms fired, that millisecond included.
    const late = (nanoseconds) => Math.max(0, nanoseconds / 1e6 - 1)
    return {
      p50: late(histogram.percentile(50)),
      p99: late(histogram.percentile(99)),
      max: late(histogram.max),
    }
  }
}
