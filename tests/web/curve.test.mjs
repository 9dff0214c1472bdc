import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  LOSSES, ceiling, clock, dotPaths, fromKeepsake, isLeftOut, joined, keepsake, linePath,
  lossText, smoothed, stageColour, thinned
} from '../../web/curve.mjs'
import { ENGLISH, statusText } from '../../web/texts.mjs'

const points = (n, from = 1) => Array.from({ length: n }, (_, i) => [from + i, i + 0.5, i % 2 ? null : i, i % 5])

test('messages join only without a gap', () => {
  const first = points(3)
  const next = points(2, 4)
  assert.deepEqual(joined([], { since: 0, points: first }), first)
  assert.deepEqual(joined(first, { since: 3, points: next }), [...first, ...next])
  assert.equal(joined(first, { since: 4, points: next }), null)
  assert.equal(joined([], { since: 2, points: next }), null)
  assert.deepEqual(joined(first, { since: 0, points: next }), next) // told anew
  assert.deepEqual(joined(first, { since: 3, points: [] }), first)
})

test('a loss is left out if it is 0 at every step, and not before there is one', () => {
  const off = [[1, 0.5, 0, 0], [2, 0.4, 0, 1]]
  assert.ok(isLeftOut(off, LOSSES.attention) && !isLeftOut(off, LOSSES.denoising))
  assert.ok(!isLeftOut([...off, [3, 0.4, null, 1]], LOSSES.attention)) // not finite
  assert.ok(!isLeftOut([...off, [3, 0.4, 1e-9, 1]], LOSSES.attention))
  assert.ok(!isLeftOut([], LOSSES.attention))
})

test('thinning keeps the last point, order and the bound', () => {
  for (const n of [0, 1, 2, 239, 240, 241, 1000, 99999]) {
    const thin = thinned(points(n), 240)
    assert.ok(thin.length <= 240 && thin.length >= Math.min(n, 120))
    if (n) assert.equal(thin[thin.length - 1][0], n)
    for (let i = 1; i < thin.length; i++) assert.ok(thin[i][0] > thin[i - 1][0])
  }
})

test('smoothing is the weighted mean of all before, by the definition', () => {
  const given = points(40)
  const line = smoothed(given, LOSSES.denoising, 100)
  for (const [at, value] of line) {
    let sum = 0
    let weight = 0
    for (const [step, loss] of given.filter((point) => point[0] <= at)) {
      const share = Math.exp((step - at) / 10) * (1 - Math.exp(-1 / 10))
      sum += share * loss
      weight += share
    }
    assert.ok(Math.abs(value - sum / weight) < 1e-9)
  }
})

test('a constant smooths to itself, thinned or not; losses that are not finite are left out', () => {
  const flat = Array.from({ length: 300 }, (_, i) => [i + 1, 0.25, null, 0])
  for (const given of [flat, thinned(flat, 50)]) {
    for (const [, value] of smoothed(given, LOSSES.denoising, 300)) assert.ok(Math.abs(value - 0.25) < 1e-12)
    assert.deepEqual(smoothed(given, LOSSES.attention, 300), [])
  }
})

test('a ceiling is above nearly all values and never zero', () => {
  const spike = [...points(100).map((p) => [p[0], 1, 0, 0]), [101, 1e6, 0, 0]]
  assert.ok(ceiling(spike, LOSSES.denoising) < 2)
  assert.equal(ceiling([], 1), 1)
  assert.equal(ceiling([[1, 0, null, 0]], LOSSES.denoising), 1)
  assert.equal(ceiling([[1, null, null, 0]], LOSSES.denoising), 1)
})

test('marks stay inside the picture, and each stage has its path', () => {
  const given = [[1, 0, 0, 0], [5, 2, 0, 4], [10, 1, 0, 0], [10, null, 0, 1]]
  assert.deepEqual(dotPaths(given, LOSSES.denoising, 10, 1, 100, 50), [
    [0, 'M10 50h0M100 0h0'],
    [4, 'M50 0h0']
  ])
  assert.equal(linePath([[0, 0], [5, 0.5], [10, 9]], 10, 1, 100, 50), 'M0 50L50 25L100 0')
  assert.equal(linePath([], 10, 1, 100, 50), '')
})

test('stages have colours of their own', () => {
  for (const stages of [1, 2, 5, 50]) {
    const colours = Array.from({ length: stages }, (_, i) => stageColour(i, stages))
    assert.equal(new Set([...colours, stageColour(-1, stages)]).size, stages + 1)
  }
})

test('numbers as an artist reads them', () => {
  assert.deepEqual([0, 59.4, 125, 3725].map(clock), ['0:00', '0:59', '2:05', '1:02:05'])
  assert.deepEqual([null, 0.12345, 0, 12.34, 1234.5].map(lossText), ['–', '0.123', '0.00', '12.3', '1235'])
})

test('a keepsake comes back, small, without words; a broken one does not', () => {
  const training = { state: 'kept', note: '/home/me', total: 5000, done: 4000, stages: 5, points: points(4000) }
  const kept = JSON.parse(JSON.stringify(keepsake(training)))
  assert.ok(JSON.stringify(kept).length < 8000 && !JSON.stringify(kept).includes('/home'))
  const back = fromKeepsake(kept)
  assert.equal(back.state, 'kept')
  assert.deepEqual([back.total, back.done, back.stages], [5000, 4000, 5])
  assert.deepEqual(back.points, thinned(training.points))
  const broken = [
    null, 7, 'x', {}, { points: [] }, { ...kept, points: 'x' }, { ...kept, points: [[1]] },
    { ...kept, total: '<b>' }, { ...kept, points: [[1, '2', 3, 4]] }, { ...kept, stages: null }
  ]
  for (const bad of broken) assert.equal(fromKeepsake(bad), null)
  assert.equal(fromKeepsake({ ...kept, state: '<b>' }).state, 'finished')
})

test('the status tells the step, the candidates left and the time', () => {
  const running = { state: 'running', done: 130, total: 1000, left: 65, candidates: [4, 5] }
  assert.equal(
    statusText(ENGLISH, running), 'step 130 / 1000 · selecting a start, 4 of 5 · 1:05 left'
  )
  const decided = { ...running, left: null, candidates: [1, 5] }
  assert.equal(statusText(ENGLISH, decided), 'step 130 / 1000')
  assert.equal(statusText(ENGLISH, { ...running, state: 'finished' }), 'finished, 1000 steps')
  assert.equal(statusText(ENGLISH, { state: 'kept', done: 3, total: 9, left: null }),
    'stopped and kept at step 3 / 9')
})
