// What can be done with a node of ComfyUI's page, given the node and the graph it is opened in.

/** Shows all digits of small numbers in the Vue rendering too, which by itself stops at three. */
export function showDigits(node) {
  for (const { options } of node.widgets ?? []) {
    if (options?.precision > 3) options.maxFractionDigits = options.precision
  }
}

/** Makes a node large enough for what is on it. */
export function fit(node) {
  const [width, height] = node.computeSize()
  node.setSize([Math.max(width, node.size[0]), Math.max(height, node.size[1])])
  node.setDirtyCanvas(true, true)
}

/** Calls `undo` when the node is removed. */
export function whenRemoved(node, undo) {
  const removed = node.onRemoved
  node.onRemoved = function (...args) {
    undo()
    return removed?.apply(this, args)
  }
}

/**
 * Sets what drives a combo of a node, also to a file that is newer than the list; tells whether
 * there is something that can be set: a link may bring it from a node that computes it.
 */
export function choose(node, name, value, root) {
  const driving = driver(node, name, root)
  if (!driving) return false
  const own = widgetOf(node, name)
  for (const { widget, owner } of [...(own ? [{ widget: own, owner: node }] : []), driving]) {
    const values = widget.options?.values
    if (Array.isArray(values) && !values.includes(value)) values.push(value)
    widget.value = value
    widget.callback?.(value)
    owner.setDirtyCanvas(true, true)
  }
  return true
}

const widgetOf = (node, name) => node.widgets?.find((candidate) => candidate.name === name)

/** The widget, and its node, that gives an input its value: its own, a primitive's, that of the
 * subgraph around it; null if it is none or there are several. */
function driver(node, name, root) {
  const widget = widgetOf(node, name)
  const input = node.inputs?.find((slot) => (slot.widget?.name ?? slot.name) === name)
  if (!input || input.link === null || input.link === undefined) {
    return widget ? { widget, owner: node } : null
  }
  const link = linkOf(node.graph, input.link)
  const origin = link && node.graph.getNodeById(link.origin_id)
  if (origin?.type === 'PrimitiveNode') {
    return origin.widgets?.length ? { widget: origin.widgets[0], owner: origin } : null
  }
  if (origin) return null
  const slot = node.graph.inputs?.[link?.origin_slot]
  const around = slot ? instancesOf(node.graph, root) : []
  return around.length === 1 ? driver(around[0], slot.name, root) : null
}

const linkOf = (graph, id) => graph.getLink?.(id) ?? graph.links?.get?.(id) ?? graph.links?.[id]

/** The nodes in a graph, and in the subgraphs in it, that are this subgraph. */
function instancesOf(subgraph, graph, seen = new Set()) {
  if (seen.has(graph)) return []
  seen.add(graph)
  return graph.nodes.flatMap((node) => [
    ...(node.subgraph === subgraph ? [node] : []),
    ...(node.subgraph ? instancesOf(subgraph, node.subgraph, seen) : [])
  ])
}

/** The value of what drives a node's widget. */
export function chosen(node, name, root) {
  return (driver(node, name, root)?.widget ?? widgetOf(node, name))?.value
}

/** Lets a text of a node take %date:...% and %Node.widget%, as the page's own Save nodes do. */
export function replaceInText(node, name, app) {
  const widget = widgetOf(node, name)
  const replaced = window.comfyAPI?.utils?.applyTextReplacements
  if (widget && replaced) {
    widget.serializeValue = () => replaced(app, String(widget.value ?? ''))
  }
}

/** Lets copies of a node begin without a property of it. */
export function keepFromCopies(node, property) {
  const { clone } = node
  node.clone = function (...args) {
    const copy = clone.apply(this, args)
    if (copy?.properties) delete copy.properties[property]
    return copy
  }
}
