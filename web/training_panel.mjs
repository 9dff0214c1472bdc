// The panel of a training: the losses, how long it takes, previews, "Stop and keep".

import { Chart } from './chart.mjs'
import { LOSSES, joined, stageColour } from './curve.mjs'
import { element } from './dom.mjs'
import { PeopleGrid, countText, joinedPeople } from './people.mjs'
import { filled, statusText } from './texts.mjs'

const HEIGHTS = { empty: 40, full: 250, cast: 420 } // pixels

export class TrainingPanel {
  /**
   * `texts` are the words of the page; `host` is what the panel asks of it: picture(training, of,
   * person) gives an address, keep(training) ends a training early, missed() tells of lost ones.
   */
  constructor(texts, host) {
    this.texts = texts
    this.host = host
    this.training = null
    this.status = element('span', { className: 'sefi-status' })
    this.button = element('button', { type: 'button', textContent: texts.keep })
    this.button.title = texts.keepHelp
    this.button.addEventListener('click', () => this.keep())
    this.charts = Object.keys(LOSSES).map((name) => new Chart(name, texts[name]))
    this.legend = element('div', { className: 'sefi-legend' })
    this.pictures = element('div', { className: 'sefi-pictures' })
    this.people = new PeopleGrid(texts, host.picture)
    this.note = element('p', { className: 'sefi-note' })
    this.root = element(
      'div',
      { className: 'sefi-panel' },
      element('div', { className: 'sefi-head' }, this.status, this.button),
      element('div', { className: 'sefi-charts' }, ...this.charts.map((chart) => chart.root)),
      this.legend,
      this.pictures,
      this.people.root,
      this.note
    )
    this.show(null)
  }

  /** Whether the panel has something to show. */
  get full() {
    return this.training !== null
  }

  /** The pixels that it needs. */
  get height() {
    if (!this.full) return HEIGHTS.empty
    return this.training.people?.length ? HEIGHTS.cast : HEIGHTS.full
  }

  /** Takes a message of a training: all of it, or what is new. */
  hear(message) {
    const same = this.training?.prompt === message.prompt
    const points = joined(same ? this.training.points : [], message)
    const people = joinedPeople((same && this.training.people) || [], message)
    if (points === null || people === null) this.host.missed()
    else this.show({ ...message, points, people })
  }

  /** Shows a training, or that there is none yet. */
  show(training) {
    const { texts } = this
    this.training = training
    this.root.classList.toggle('sefi-empty', training === null)
    this.root.classList.toggle('sefi-cast', Boolean(training?.people?.length))
    const status = training ? statusText(texts, training) : texts.empty
    const parts = [countText(texts, training?.people), status]
    this.status.textContent = parts.filter(Boolean).join(' · ')
    this.button.hidden = training?.state !== 'running'
    if (this.button.hidden) this.asked(false)
    this.note.textContent = training?.note ?? ''
    this.note.hidden = !this.note.textContent
    if (!training) return
    for (const chart of this.charts) chart.show(training)
    this.showLegend(training)
    this.showPictures(training)
    this.people.show(training)
  }

  showLegend({ stages, points }) {
    const { texts } = this
    const dots = Array.from({ length: stages }, (_, stage) => dot(stage, stages))
    const mixed = points.some((point) => point[3] < 0)
    this.legend.replaceChildren(
      texts.stages, ' ', texts.noisiest, ...dots, texts.finest,
      ...(mixed ? [dot(-1, stages), texts.mixed] : [])
    )
  }

  showPictures(training) {
    const shown = []
    if (training.reference) shown.push(['reference', this.texts.reference])
    if (training.preview) {
      shown.push(['preview', filled(this.texts.preview, { step: training.preview })])
    }
    // An image that is already there stays: it would flicker, and be asked for again.
    const key = (of) => `${training.prompt} ${of} ${training[of]}`
    const before = new Map([...this.pictures.children].map((child) => [child.dataset.key, child]))
    this.pictures.replaceChildren(
      ...shown.map(([of, caption]) => {
        const there = before.get(key(of))
        if (there) return there
        const image = element('img', { src: this.host.picture(training, of), alt: caption })
        const figure = element('figure', {}, image, element('figcaption', {}, caption))
        figure.dataset.key = key(of)
        return figure
      })
    )
  }

  async keep() {
    this.asked(true)
    if (!(await this.host.keep(this.training))) this.asked(false)
  }

  asked(yes) {
    this.button.disabled = yes
    this.button.textContent = yes ? this.texts.keeping : this.texts.keep
  }

  remove() {
    this.root.remove()
  }
}

function dot(stage, stages) {
  const made = element('i', { title: stage < 0 ? '' : String(stage) })
  made.style.background = stageColour(stage, stages)
  return made
}
