// Which node gets which view, nothing more.

import { app } from '../../scripts/app.js'
import * as bridge from './bridge.mjs'
import { fromKeepsake, keepsake } from './curve.mjs'
import { element } from './dom.mjs'
import * as nodes from './nodes.mjs'
import { Picker } from './picker.mjs'
import { translated } from './texts.mjs'
import { TrainingPanel } from './training_panel.mjs'

const [LINE, SIGNS] = [15, 52] // pixels of a line, signs that fit into one
const KEEPSAKE = 'sefi_training' // the property of a node that goes into the workflow

const TRAINING = ['TrainSeFiID', 'TrainSeFiCast']
const SAVING = ['SaveSeFiEmbedding', 'ExportSeFiAsTextualInversion']
const SPEAKING = [...SAVING, 'ApplySeFiConditioning']

let texts = translated(null)
const panels = new Map() // by node
const lines = new Map() // by node that has something to say, where it does
const told = new Map() // by workflow and node, what this tab was told

// Before the page opens its socket, as it complains of messages that nobody listens to.
bridge.onTraining({ hear, remembered, noted, again: refresh })

app.registerExtension({
  name: 'sefi.identity',
  async setup() {
    bridge.loadStyle()
    texts = await bridge.loadTexts()
  },
  nodeCreated(node) {
    if (TRAINING.includes(node.comfyClass)) addTrainingPanel(node)
    if (node.comfyClass === 'LoadSeFiEmbedding') addPicker(node)
    if (SAVING.includes(node.comfyClass)) nodes.replaceInText(node, 'filename_prefix', app)
    if (SPEAKING.includes(node.comfyClass)) addLine(node)
  },
  afterConfigureGraph: refresh
})

function addTrainingPanel(node) {
  nodes.showDigits(node)
  const panel = new TrainingPanel(texts, {
    picture: bridge.pictureAddress,
    keep: bridge.keep,
    missed: refresh
  })
  bridge.addPanel(node, KEEPSAKE, panel.root, () => panel.height)
  nodes.keepFromCopies(node, KEEPSAKE)
  panels.set(node, panel)
  nodes.whenRemoved(node, () => {
    panels.delete(node)
    panel.remove()
  })
}

function addPicker(node) {
  let picker = null
  bridge.addButton(node, texts.browse, () => {
    picker?.remove()
    const pick = (name) =>
      nodes.choose(node, 'embedding', name, bridge.root()) || texts.driven
    const host = { identities: bridge.identities, cover: bridge.coverAddress, pick }
    const current = nodes.chosen(node, 'embedding', bridge.root())
    picker = new Picker(texts, host, current)
    picker.open()
  })
  nodes.whenRemoved(node, () => picker?.remove())
}

/** A node with a line: what it last saved, or what became of its identity. */
function addLine(node) {
  lines.set(node, null)
  nodes.whenRemoved(node, () => {
    lines.get(node)?.remove()
    lines.delete(node)
  })
}

const height = ({ textContent }) => LINE * Math.max(3, Math.ceil(textContent.length / SIGNS))

function noted(message) {
  told.set(`${message.workflow} ${message.node}`, message)
  showLines()
}

/** Shows on each node of the open workflow what it last said. */
function showLines() {
  for (const message of told.values()) {
    const node = bridge.nodeOf(message)
    if (!lines.has(node)) continue
    const line = lines.get(node) ?? element('p', { className: 'sefi-note sefi-line' })
    if (!lines.get(node)) bridge.addPanel(node, 'sefi_note', line, () => height(line))
    lines.set(node, line)
    line.textContent = message.line
    nodes.fit(node)
  }
}

function hear(message) {
  show(bridge.nodeOf(message), (panel) => panel.hear(message))
}

function remembered(node, training) {
  if (!panels.get(node)?.full) show(node, (panel) => panel.show(training))
}

/** Lets the panel of a node show something; the node then grows, and keeps what is over. */
function show(node, change) {
  const panel = panels.get(node)
  if (!panel) return
  const before = panel.full
  change(panel)
  if (panel.full !== before) nodes.fit(node)
  if (['finished', 'kept'].includes(panel.training?.state)) {
    node.properties[KEEPSAKE] = keepsake(panel.training)
  }
}

/** Shows what the workflow keeps, then what the server knows: after a load, a reload, an undo. */
async function refresh() {
  showLines()
  if (!panels.size) return
  for (const [node, panel] of panels) {
    const kept = fromKeepsake(node.properties?.[KEEPSAKE])
    if (kept && !panel.full) show(node, () => panel.show(kept))
  }
  try {
    for (const training of await bridge.trainings()) hear(training)
  } catch {
    // The server is away; it is asked again when it is back.
  }
}
