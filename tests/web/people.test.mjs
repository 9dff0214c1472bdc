import assert from 'node:assert/strict'
import { test } from 'node:test'
import { captionText, countText, joinedPeople } from '../../web/people.mjs'
import { ENGLISH } from '../../web/texts.mjs'

const person = (index, state = 'waiting', done = 0) => ({ index, name: 'abc'[index], state, done })

test('people join by their places, and whoever was missed is noticed', () => {
  const all = [person(0), person(1), person(2)]
  assert.deepEqual(joinedPeople([], { cast: 3, people: all }), all)
  const later = joinedPeople(all, { cast: 3, people: [person(1, 'running', 4)] })
  assert.deepEqual(later.map((one) => one.done), [0, 4, 0])
  assert.deepEqual(joinedPeople(later, { cast: 3, people: [] }), later)
  assert.equal(joinedPeople([], { cast: 3, people: [person(1)] }), null)
  assert.equal(joinedPeople([], { cast: 3, people: [person(0), person(1)] }), null)
  assert.deepEqual(joinedPeople([], {}), []) // a training of one
})

test('a cast is told in words', () => {
  const people = [person(0, 'failed'), person(1, 'running', 7), person(2, 'finished', 9)]
  assert.equal(countText(ENGLISH, people), '2 of 3 people')
  assert.equal(countText(ENGLISH, undefined), '')
  const said = people.map((one) => captionText(ENGLISH, one))
  assert.deepEqual(said, ['a · failed', 'b · step 7', 'c · done'])
})
