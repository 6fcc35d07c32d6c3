// SPDX-License-Identifier: Apache-2.0
// Charts as SVG text, without libraries: lines over a linear or logarithmic axis, and a roofline.

const WIDTH = 820
const HEIGHT = 420
const LEFT = 60
const RIGHT = 130 // room for names
const TOP = 36
const BOTTOM = 40
const COLOURS = [
  '#1f77b4',
  '#ff7f0e',
  '#2ca02c',
  '#d62728',
  '#9467bd',
  '#8c564b',
  '#e377c2',
  '#7f7f7f',
]
const DASHES = ['', '6 3']

export function escapeHtml(text) {
  return String(text).replace(
    /[&<>"]/g,
    (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c],
  )
}

/** Maps a value from [low, high] to pixels. */
function axis(low, high, from, to, logarithmic) {
  const place = logarithmic ? Math.log2 : (value) => value
  return (value) =>
    from + ((place(value) - place(low)) / (place(high) - place(low) || 1)) * (to - from)
}

function text(x, y, content, extra = '') {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${extra}>${escapeHtml(content)}</text>`
}

function line(x1, y1, x2, y2, stroke = '#ddd') {
  const at = [x1, y1, x2, y2].map((value) => value.toFixed(1))
  return `<line x1="${at[0]}" y1="${at[1]}" x2="${at[2]}" y2="${at[3]}" stroke="${stroke}"/>`
}

function frame(title, parts) {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}"
 font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="${escapeHtml(title)}">
<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>
${text(LEFT, 20, title, 'font-size="15"')}
${parts.join('\n')}
</svg>`
}

/** About five round steps up to `high`. */
function ticks(high) {
  const raw = high / 5
  const power = 10 ** Math.floor(Math.log10(raw))
  const step = [1, 2, 5, 10].map((n) => n * power).find((size) => size >= raw)
  return Array.from({ length: Math.floor(high / step) + 1 }, (_, i) => i * step)
}

function powersOfTwo(low, high) {
  const values = []
  for (let value = 2 ** Math.floor(Math.log2(low)); value <= high * 1.001; value *= 2)
    values.push(value)
  return values
}

/** series: [{ name, points: [[x, y], ...] }] */
export function lineChart({ title, series, logX }) {
  const points = series.flatMap((one) => one.points)
  if (points.length === 0) return ''
  const xs = points.map(([x]) => x)
  const high = Math.max(...points.map(([, y]) => y)) * 1.05
  const x = axis(Math.min(...xs), Math.max(...xs), LEFT, WIDTH - RIGHT, logX)
  const y = axis(0, high, HEIGHT - BOTTOM, TOP, false)
  const parts = ticks(high).flatMap((value) => [
    line(LEFT, y(value), WIDTH - RIGHT, y(value)),
    text(LEFT - 6, y(value) + 4, value, 'text-anchor="end"'),
  ])
  for (const value of powersOfTwo(Math.min(...xs), Math.max(...xs))) {
    parts.push(text(x(value), HEIGHT - BOTTOM + 18, value, 'text-anchor="middle"'))
  }
  series.forEach(({ name, points: own }, i) => {
    const colour = COLOURS[i % COLOURS.length]
    const dash = DASHES[Math.floor(i / COLOURS.length) % DASHES.length]
    const path = own.map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join(' ')
    const style = `fill="none" stroke="${colour}" stroke-width="1.6"${dash && ` stroke-dasharray="${dash}"`}`
    const top = TOP + 10 + i * 20
    parts.push(`<polyline points="${path}" ${style}/>`)
    parts.push(
      `<polyline points="${WIDTH - RIGHT + 10},${top} ${WIDTH - RIGHT + 34},${top}" ${style}/>`,
    )
    parts.push(text(WIDTH - RIGHT + 40, top + 4, name))
  })
  return frame(title, parts)
}

/** points: [{ x, y, name }]; both axes logarithmic. compute: the flat part; bandwidth: the slope. */
export function roofline({ title, points, compute, bandwidth }) {
  if (points.length === 0) return ''
  const xs = points.map((point) => point.x)
  const ys = points.map((point) => point.y)
  const [left, right] = [Math.min(...xs) / 1.3, Math.max(...xs) * 1.3]
  const [low, high] = [Math.min(...ys, left * bandwidth) / 1.3, Math.max(compute, ...ys) * 1.3]
  const x = axis(left, right, LEFT, WIDTH - RIGHT, true)
  const y = axis(low, high, HEIGHT - BOTTOM, TOP, true)
  const ridge = Math.min(Math.max(compute / bandwidth, left), right)
  const parts = []
  for (const value of powersOfTwo(left, right).filter((one) => one >= left)) {
    parts.push(text(x(value), HEIGHT - BOTTOM + 18, value, 'text-anchor="middle"'))
  }
  for (const value of powersOfTwo(low, high).filter((one) => one >= low)) {
    parts.push(line(LEFT, y(value), WIDTH - RIGHT, y(value)))
    parts.push(text(LEFT - 6, y(value) + 4, value, 'text-anchor="end"'))
  }
  parts.push(
    line(
      x(left),
      y(Math.min(compute, left * bandwidth)),
      x(ridge),
      y(Math.min(compute, ridge * bandwidth)),
      '#222',
    ),
  )
  parts.push(line(x(ridge), y(compute), x(right), y(compute), '#222'))
  parts.push(text(WIDTH - RIGHT + 8, y(compute) + 4, `${compute.toFixed(0)} G/s`))
  parts.push(
    text(
      (LEFT + WIDTH - RIGHT) / 2,
      HEIGHT - 6,
      'multiply-adds a byte of weights',
      'text-anchor="middle"',
    ),
  )
  for (const point of points) {
    const at = `cx="${x(point.x).toFixed(1)}" cy="${y(point.y).toFixed(1)}"`
    parts.push(
      `<circle ${at} r="2.5" fill="#1f77b4"><title>${escapeHtml(point.name)}</title></circle>`,
    )
  }
  return frame(title, parts)
}
