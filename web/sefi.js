// Which node gets which view, nothing more.

import { app } from '../../scripts/app.js'
import * as bridge from './bridge.mjs'
import { fromKeepsake, keepsake } from './curve.mjs'
import { Picker } from './picker.mjs'
import { translated } from './texts.mjs'
import { HEIGHTS, TrainingPanel } from './training_panel.mjs'

const KEEPSAKE = 'sefi_training' // the property of a node that goes into the workflow

let texts = translated(null)
const panels = new Map() // by node

// Before the page opens its socket, as it complains of messages that nobody listens to.
bridge.onTraining({ hear, remembered, again: refresh })

app.registerExtension({
  name: 'sefi.identity',
  async setup() {
    bridge.loadStyle()
    texts = await bridge.loadTexts()
  },
  nodeCreated(node) {
    if (node.comfyClass === 'TrainSeFiID') addTrainingPanel(node)
    if (node.comfyClass === 'LoadSeFiEmbedding') addPicker(node)
  },
  afterConfigureGraph: refresh
})

function addTrainingPanel(node) {
  bridge.showDigits(node)
  const panel = new TrainingPanel(texts, {
    picture: bridge.pictureAddress,
    keep: bridge.keep,
    missed: refresh
  })
  const height = () => (panel.full ? HEIGHTS.full : HEIGHTS.empty)
  bridge.addPanel(node, KEEPSAKE, panel.root, height)
  panels.set(node, panel)
  bridge.whenRemoved(node, () => {
    panels.delete(node)
    panel.remove()
  })
}

function addPicker(node) {
  let picker = null
  bridge.addButton(node, texts.browse, () => {
    picker?.remove()
    const pick = (name) => bridge.choose(node, 'embedding', name)
    const host = { identities: bridge.identities, cover: bridge.coverAddress, pick }
    picker = new Picker(texts, host, bridge.chosen(node, 'embedding'))
    picker.open()
  })
  bridge.whenRemoved(node, () => picker?.remove())
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
  if (panel.full !== before) bridge.fit(node)
  if (['finished', 'kept'].includes(panel.training?.state)) {
    node.properties[KEEPSAKE] = keepsake(panel.training)
  }
}

/** Shows what the workflow keeps, then what the server knows: after a load, a reload, an undo. */
async function refresh() {
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
