// Which identities the picker shows, and in what words. A card is what the server tells of a file:
// {name, title, class_word, family, date, bytes, cover, ...}, or {name} of one it cannot read.

/** The cards that hold every word of the search somewhere, the newest first. */
export function found(cards, search) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean)
  return cards
    .filter((card) => {
      const text = searched(card)
      return words.every((word) => text.includes(word))
    })
    .sort((a, b) => (b.changed ?? 0) - (a.changed ?? 0) || a.name.localeCompare(b.name))
}

function searched(card) {
  const { name, title, class_word, family, author, notes, placeholder, date } = card
  return [name, title, class_word, family, author, notes, placeholder, date]
    .filter((text) => typeof text === 'string')
    .join('\n')
    .toLowerCase()
}

/** The line of small facts below a title. */
export function facts(card, texts) {
  if (card.bytes === undefined) return texts.unreadable
  const { class_word, family, date, bytes } = card
  return [class_word, family, date, sizeText(bytes)].filter(Boolean).join(' · ')
}

/** A title, or the file's name without its folder and ending. */
export function titleOf(card) {
  return card.title || card.name.split('/').pop().replace(/\.(safetensors|sft)$/i, '')
}

/** Bytes as an artist reads them: 35 KB, 1.2 MB. */
export function sizeText(bytes) {
  if (bytes < 1000) return `${bytes} B`
  if (bytes < 999_500) return `${Math.round(bytes / 1000)} KB`
  return `${(bytes / 1e6).toFixed(1)} MB`
}
