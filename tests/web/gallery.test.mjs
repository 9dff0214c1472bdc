import assert from 'node:assert/strict'
import { test } from 'node:test'
import { facts, found, sizeText, titleOf } from '../../web/gallery.mjs'
import { ENGLISH, filled, translated } from '../../web/texts.mjs'

const ANNA = {
  name: 'people/anna.safetensors', title: 'Anna', class_word: 'person', family: 'SD 1.x',
  date: '2026-01-31', changed: 2, bytes: 35_000
}
const REX = { name: 'rex.sft', title: '', class_word: 'dog', family: 'SDXL', date: '', changed: 3, bytes: 90 }
const BROKEN = { name: 'broken.safetensors' }
const names = (cards) => cards.map((card) => card.name)

test('all words of a search must be somewhere, in any case; the newest is first', () => {
  const cards = [BROKEN, ANNA, REX]
  assert.deepEqual(names(found(cards, '')), [REX.name, ANNA.name, BROKEN.name])
  assert.deepEqual(found(cards, ' PERSON  people/ '), [ANNA])
  assert.deepEqual(found(cards, 'sd'), [REX, ANNA])
  assert.deepEqual(found(cards, 'dog person'), [])
  assert.deepEqual(found([{ name: 'x', title: 7 }], '7'), []) // not even a number is text
  assert.deepEqual(found([{ name: '.*' }], '(['), []) // a search is no pattern
})

test('facts and titles', () => {
  assert.equal(facts(ANNA, ENGLISH), 'person · SD 1.x · 2026-01-31 · 35 KB')
  assert.equal(facts(REX, ENGLISH), 'dog · SDXL · 90 B')
  assert.equal(facts(BROKEN, ENGLISH), ENGLISH.unreadable)
  assert.deepEqual([ANNA, REX, BROKEN].map(titleOf), ['Anna', 'rex', 'broken'])
  assert.deepEqual([999, 1000, 999_499, 999_500, 12_345_678].map(sizeText),
    ['999 B', '1 KB', '999 KB', '1.0 MB', '12.3 MB'])
})

test('a translation replaces the words it has, and no others', () => {
  const texts = translated({ keep: 'Behalten', unknown: 'x', left: 7 })
  assert.equal(texts.keep, 'Behalten')
  assert.equal(texts.left, ENGLISH.left)
  assert.deepEqual(Object.keys(texts), Object.keys(ENGLISH))
  assert.deepEqual(translated(undefined), ENGLISH)
  assert.equal(filled('{done} / {total} {x}', { done: 0, total: 7 }), '0 / 7 {x}')
})
