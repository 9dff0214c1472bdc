// The words of the page, in English. A language of locales/ may replace them by its main.json.

import { clock } from './curve.mjs'

export const ENGLISH = {
  empty: 'The losses and the previews show here while it trains.',
  step: 'step {done} / {total}',
  left: '{clock} left',
  choosing: 'selecting a start, {left} of {of}',
  finished: 'finished, {total} steps',
  kept: 'stopped and kept at step {done} / {total}',
  stopped: 'stopped at step {done} / {total}',
  keep: 'Stop and keep',
  keepHelp:
    'Ends the training now; the workflow goes on with what was learned so far. ' +
    'Cancel ends the workflow too.',
  keeping: 'Stopping…',
  denoising: 'denoising loss',
  attention: 'attention loss',
  stages: 'stages:',
  noisiest: 'layout',
  finest: 'detail',
  mixed: 'several',
  reference: 'learned from',
  preview: 'preview at step {step}',
  people: '{done} of {of} people',
  at: 'step {step}',
  person_waiting: 'waiting',
  person_finished: 'done',
  person_kept: 'kept',
  person_stopped: 'stopped',
  person_failed: 'failed',
  browse: 'Browse identities',
  pickerTitle: 'Identities',
  search: 'Search by name, title, class word …',
  none: 'There is no identity in models/sefi yet. Save SeFi Embedding puts one there.',
  noMatch: 'No identity has all of these words.',
  unreadable: 'this file cannot be read',
  failed: 'The server does not answer.',
  driven:
    'This choice comes by a link from another node, or from several copies of this subgraph: ' +
    'set it there.',
  close: 'Close'
}

/** English, but for the words that a translation has. */
export function translated(translation) {
  const known = Object.entries(translation ?? {}).filter(
    ([name, text]) => name in ENGLISH && typeof text === 'string'
  )
  return { ...ENGLISH, ...Object.fromEntries(known) }
}

/** A text with its {names} filled in. */
export function filled(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole)
}

/** How far a training is: its step, what it still chooses from, the time left; or how it ended. */
export function statusText(texts, { state, done, total, left, candidates }) {
  if (state !== 'running') return filled(texts[state], { done, total })
  const parts = [filled(texts.step, { done, total })]
  const [among, of] = candidates ?? [1, 1]
  if (among > 1) parts.push(filled(texts.choosing, { left: among, of }))
  if (left !== null) parts.push(filled(texts.left, { clock: clock(left) }))
  return parts.join(' · ')
}
