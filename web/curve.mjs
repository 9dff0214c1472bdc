// A training's numbers as marks of a picture. A point is [step, denoising, attention, stage]; a
// loss may be null (it was not finite); stage -1 is a step of several stages. No page, no DOM.

export const LOSSES = { denoising: 1, attention: 2 } // places in a point

const MOST_KEPT = 240 // points of a curve that goes into the workflow

/** The points of a message joined to those before; null if some are missing between. */
export function joined(points, message) {
  if (message.since === 0) return message.points
  const last = points.length ? points[points.length - 1][0] : 0
  return message.since === last ? [...points, ...message.points] : null
}

/** At most `most` points, evenly chosen, the last one always. */
export function thinned(points, most = MOST_KEPT) {
  const apart = Math.max(1, Math.ceil(points.length / most))
  return points.filter((_, i) => (points.length - 1 - i) % apart === 0)
}

/**
 * The running mean of one loss, [step, value] each, over about a tenth of `span` steps.
 * Points count by the steps between them, so that a thinned curve smooths alike.
 */
export function smoothed(points, loss, span) {
  const memory = Math.max(2, span / 10) // steps
  const line = []
  let sum = 0
  let weight = 0
  let before = 0
  for (const point of points) {
    if (point[loss] === null) continue
    const keep = Math.exp((before - point[0]) / memory)
    sum = sum * keep + point[loss] * (1 - keep)
    weight = weight * keep + (1 - keep)
    before = point[0]
    line.push([point[0], sum / weight])
  }
  return line
}

/** Whether a loss is no part of a training: 0 at every step there is. */
export const isLeftOut = (points, loss) =>
  points.length > 0 && points.every((point) => point[loss] === 0)

/** The highest value to draw of a loss: a few outliers may leave the picture at its top. */
export function ceiling(points, loss) {
  const values = points.map((p) => p[loss]).filter((v) => v !== null).sort((a, b) => a - b)
  const high = values[Math.floor((values.length - 1) * 0.98)] ?? 0
  return high > 0 ? high * 1.1 : 1
}

/** The SVG path of [step, value] pairs as a line; `span` steps fill the width. */
export function linePath(pairs, span, top, width, height) {
  const place = placer(span, top, width, height)
  return pairs.map((pair, i) => (i ? 'L' : 'M') + place(...pair)).join('')
}

/** The SVG paths of one loss as dots, one for each stage that occurs: [stage, path] pairs. */
export function dotPaths(points, loss, span, top, width, height) {
  const place = placer(span, top, width, height)
  const paths = new Map()
  for (const point of points) {
    if (point[loss] === null) continue
    const stage = point[3]
    paths.set(stage, (paths.get(stage) ?? '') + `M${place(point[0], point[loss])}h0`)
  }
  return [...paths].sort((a, b) => a[0] - b[0])
}

function placer(span, top, width, height) {
  const round = (number) => Math.round(number * 10) / 10
  return (step, value) => {
    const x = (step / Math.max(1, span)) * width
    const y = height * (1 - Math.min(1, Math.max(0, value / top)))
    return `${round(x)} ${round(y)}`
  }
}

/** The colour of a stage: blue for the noisiest, where the layout forms, to orange for detail. */
export function stageColour(stage, stages) {
  if (stage < 0) return 'hsl(0 0% 60%)'
  const share = stages > 1 ? stage / (stages - 1) : 0
  return `hsl(${Math.round(215 - 190 * share)} 75% 58%)`
}

/** A loss to three digits, as an artist reads it. */
export function lossText(value) {
  if (value === null || value === undefined) return '–'
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3)
}

/** Seconds as a clock: 2:05, 1:02:05. */
export function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds))
  const two = (number) => String(number).padStart(2, '0')
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60]
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`
}

/** What a workflow keeps of a training that is over: its curve; no picture, no name of a file. */
export function keepsake({ state, total, done, stages, points }) {
  return { state, total, done, stages, points: thinned(points) }
}

/** A keepsake read back from a workflow, which may be a stranger's; null if it is none. */
export function fromKeepsake(kept) {
  if (!kept || !Array.isArray(kept.points)) return null
  const number = (value) => typeof value === 'number' && Number.isFinite(value)
  const loss = (value) => value === null || number(value)
  const whole = (point) =>
    Array.isArray(point) && number(point[0]) && loss(point[1]) && loss(point[2]) && number(point[3])
  if (![kept.total, kept.done, kept.stages].every(number) || !kept.points.every(whole)) return null
  const state = kept.state === 'kept' ? 'kept' : 'finished'
  const { total, done, stages, points } = kept
  const unkept = { note: '', left: null, reference: 0, preview: 0 }
  return { ...unkept, state, total, done, stages, points }
}
