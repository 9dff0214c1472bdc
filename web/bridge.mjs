// The one place, besides sefi.js, that knows ComfyUI's page: its nodes, widgets, server and words.

import { api } from '../../scripts/api.js'
import { app } from '../../scripts/app.js'
import { translated } from './texts.mjs'

const DISPLAY = { serialize: false } // a display widget is no part of the workflow

/** Loads the pack's style sheet from beside this file. */
export function loadStyle() {
  const link = document.createElement('link')
  Object.assign(link, { rel: 'stylesheet', href: new URL('./sefi.css', import.meta.url).href })
  document.head.append(link)
}

/** The words of the page in its language; English if the server has no other. */
export async function loadTexts() {
  try {
    const words = await asked('/i18n')
    return translated(words[app.extensionManager.setting.get('Comfy.Locale')]?.sefi)
  } catch {
    return translated(null)
  }
}

/** Puts an element on a node; `height` tells the pixels that it needs. */
export function addPanel(node, name, element, height) {
  const widget = node.addDOMWidget(name, name, element, { ...DISPLAY, getMinHeight: height })
  widget.serialize = false
  for (const kind of ['wheel', 'pointerdown', 'pointermove', 'pointerup']) {
    element.addEventListener(kind, passToCanvas, { passive: false })
  }
}

/** Whether the wheel scrolls what is below it: a grid with more people than it shows. */
const scrolls = ({ target }) => {
  const grid = target.closest('.sefi-people')
  return grid !== null && grid.scrollHeight > grid.clientHeight
}

/** The wheel and the middle button go on moving the canvas, as over any other part of a node. */
function passToCanvas(event) {
  if (event.type === 'wheel') {
    if (scrolls(event)) return event.stopPropagation()
    event.preventDefault()
    app.canvas.processMouseWheel(event)
  } else if (event.type === 'pointermove') {
    if (event.buttons & 4) app.canvas.processMouseMove(event)
  } else if (event.button === 1) {
    const pressed = event.type === 'pointerdown'
    app.canvas[pressed ? 'processMouseDown' : 'processMouseUp'](event)
  }
}

/** Puts a button on a node. */
export function addButton(node, label, press) {
  node.addWidget('button', label, null, press, DISPLAY).serialize = false
}

/**
 * Calls `hear` with every message about a training, `remembered` with a node and the training that
 * the host remembered for it instead of running it, `noted` with a node and its line about a file
 * or about an identity that was lost, and `again` when messages may have been missed. A node's
 * number alone names none: a result counts for the workflow that its prompt was queued from.
 */
export function onTraining({ hear, remembered, noted, again }) {
  api.addEventListener('sefi.progress', (event) => hear(event.detail))
  api.addEventListener('sefi.note', (event) => noted(event.detail))
  api.addEventListener('reconnected', again)
  api.addEventListener('executed', async ({ detail }) => {
    const { output, prompt_id: prompt, node } = detail
    const [training] = output?.sefi_training ?? []
    const [line] = output?.sefi_saved ?? []
    if (!line && !(training && training.prompt !== prompt)) return
    const workflow = await workflowOf(prompt).catch(() => null)
    if (line) noted({ workflow, node, line })
    else if (workflow === workflowId()) remembered(nodeAt(node), training)
  })
}

/** The open workflow's graph, whichever of its subgraphs is looked at. */
export const root = () => app.rootGraph ?? app.graph

const workflowId = () => root().id

/** The workflow from which a prompt was queued. */
async function workflowOf(prompt) {
  const { queue_running: running, queue_pending: pending } = await asked('/queue')
  const queued = [...running, ...pending].find(([, id]) => id === prompt)
  const past = queued ?? (await asked(`/history/${prompt}`))[prompt]?.prompt
  return past?.[3]?.extra_pnginfo?.workflow?.id
}

/** The node of the open workflow that something belongs to; null if it is another's. */
export const nodeOf = ({ workflow, node }) => (workflow === workflowId() ? nodeAt(node) : null)

/** The node at an id of the server; "5:3" is node 3 in the subgraph of node 5. */
function nodeAt(id) {
  let graph = root()
  let node = null
  for (const part of id.split(':')) {
    node = graph?.getNodeById(part) ?? null
    graph = node?.subgraph
  }
  return node
}

/** The trainings of the open workflow that this tab has queued. */
export const trainings = () =>
  asked(`/sefi/trainings?${query({ workflow: workflowId(), client: clientId() })}`)

/** The host's id of this tab, which stays when it is loaded again. */
const clientId = () => api.clientId ?? api.initialClientId ?? window.name ?? ''

/** The address of what a training learns ("reference") or of its latest "preview", or of those of
 * one person of a cast; another one for each that is shown. */
export const pictureAddress = ({ prompt, node, ...training }, of, person = null) => {
  const { [of]: number } = person ?? training
  const whose = person ? { person: person.index } : {}
  return api.apiURL(`/sefi/picture?${query({ prompt, node, of, number, ...whose })}`)
}

/** Asks to end a training early and keep it; tells whether it was running. */
export async function keep({ prompt, node }) {
  const body = JSON.stringify({ prompt, node })
  const headers = { 'Content-Type': 'application/json' }
  const answer = await api.fetchApi('/sefi/keep', { method: 'POST', headers, body })
  return answer.ok && (await answer.json()).running
}

/** The cards of all identities. */
export const identities = () => asked('/sefi/identities')

/** The address of a card's picture, another one when the file has changed. */
export const coverAddress = ({ name, changed }) =>
  api.apiURL(`/sefi/cover?${query({ name, changed })}`)

const query = (values) => new URLSearchParams(values)

async function asked(route) {
  const answer = await api.fetchApi(route)
  if (!answer.ok) throw new Error(`${route}: ${answer.status}`)
  return answer.json()
}
