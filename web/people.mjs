// The people of a cast as a grid: each one's latest picture, their name, and how far they are.

import { element } from './dom.mjs'
import { filled } from './texts.mjs'

const OVER = ['finished', 'kept', 'failed']

/** The people of a message joined to those before; null if some are missing. */
export function joinedPeople(before, message) {
  const people = [...before]
  for (const person of message.people ?? []) people[person.index] = person
  const known = Object.keys(people).length // a hole is no key
  return known === (message.cast ?? 0) && known === people.length ? people : null
}

/** How many of them are done with, in words; nothing for a single training. */
export function countText(texts, people) {
  if (!people?.length) return ''
  const done = people.filter((person) => OVER.includes(person.state)).length
  return filled(texts.people, { done, of: people.length })
}

/** What stands below a person: their name and how far they are. */
export function captionText(texts, { name, state, done }) {
  const far = state === 'running' ? filled(texts.at, { step: done }) : texts[`person_${state}`]
  return `${name} · ${far}`
}

export class PeopleGrid {
  /** `picture` gives the address of a training's picture of a person. */
  constructor(texts, picture) {
    this.texts = texts
    this.picture = picture
    this.figures = new Map() // by index
    this.root = element('div', { className: 'sefi-people' })
  }

  /** Shows the people of a training; a picture that is already there stays. */
  show(training) {
    const people = training.people ?? []
    this.root.hidden = people.length === 0
    if (this.figures.size !== people.length || this.prompt !== training.prompt) this.fill(people)
    this.prompt = training.prompt
    for (const person of people) this.update(this.figures.get(person.index), training, person)
  }

  fill(people) {
    this.figures = new Map(
      people.map(({ index }) => {
        const parts = { image: element('img', { hidden: true }), text: element('figcaption') }
        return [index, { ...parts, root: element('figure', {}, parts.image, parts.text) }]
      })
    )
    this.root.replaceChildren(...[...this.figures.values()].map((figure) => figure.root))
  }

  update(figure, training, person) {
    const of = person.preview ? 'preview' : 'reference'
    const key = `${of} ${person[of]}`
    if (person[of] && figure.key !== key) {
      figure.key = key
      Object.assign(figure.image, { src: this.picture(training, of, person), hidden: false })
      figure.image.alt = person.name
    }
    figure.text.textContent = captionText(this.texts, person)
    figure.root.title = person.note
    figure.root.className = `sefi-person sefi-is-${person.state}`
  }
}
