// A chart of one loss: a dot for each step in the colour of its stage, and the running mean.

import {
  LOSSES, ceiling, dotPaths, isLeftOut, linePath, lossText, smoothed, stageColour, thinned
} from './curve.mjs'
import { drawing, element } from './dom.mjs'

const [WIDTH, HEIGHT] = [200, 80] // in its own units
const MOST_DRAWN = 2000 // points

export class Chart {
  constructor(loss, title) {
    this.loss = LOSSES[loss]
    this.value = element('b')
    this.top = element('span', { className: 'sefi-top' })
    this.marks = drawing('svg', {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img',
      'aria-label': title
    })
    const caption = element('figcaption', {}, title, ' ', this.value, this.top)
    this.root = element('figure', { className: `sefi-chart sefi-${loss}` }, caption, this.marks)
  }

  show({ points, state, done, total, stages }) {
    const { loss } = this
    this.root.hidden = isLeftOut(points, loss)
    const span = state === 'running' ? total : done
    const top = ceiling(points, loss)
    const line = thinned(smoothed(points, loss, span), MOST_DRAWN)
    const drawn = thinned(points, MOST_DRAWN)
    const dots = dotPaths(drawn, loss, span, top, WIDTH, HEIGHT).map(([stage, d]) =>
      drawing('path', { d, class: 'sefi-dots', stroke: stageColour(stage, stages) })
    )
    const mean = drawing('path', {
      d: linePath(line, span, top, WIDTH, HEIGHT), class: 'sefi-mean'
    })
    this.marks.replaceChildren(...dots, mean)
    this.value.textContent = lossText(line[line.length - 1]?.[1])
    this.top.textContent = points.length ? lossText(top) : ''
  }
}
