// The picker of Load SeFi Embedding: every identity with its cover, searched and picked.

import { element } from './dom.mjs'
import { facts, found, titleOf } from './gallery.mjs'

export class Picker {
  /**
   * `host` is what the picker asks of the page: identities() gives the cards, cover(card) the
   * address of a picture, pick(name) takes a choice, or tells why it cannot.
   */
  constructor(texts, host, chosen) {
    this.texts = texts
    this.host = host
    this.chosen = chosen
    this.cards = []
    this.search = element('input', { type: 'search', placeholder: texts.search })
    this.search.setAttribute('aria-label', texts.search)
    this.list = element('div', { className: 'sefi-cards' })
    this.message = element('p', { className: 'sefi-message' })
    const close = element('button', { type: 'button', textContent: '✕', title: texts.close })
    close.setAttribute('aria-label', texts.close)
    this.root = element(
      'dialog',
      { className: 'sefi-picker' },
      element('header', {}, element('h2', {}, texts.pickerTitle), this.search, close),
      this.message,
      this.list
    )
    close.addEventListener('click', () => this.remove())
    this.search.addEventListener('input', () => this.show())
    this.search.addEventListener('keydown', (event) => {
      if (event.key === 'Enter') this.list.querySelector('button')?.click()
    })
    this.root.addEventListener('click', (event) => {
      if (event.target === this.root) this.remove() // beside the dialog
    })
    this.root.addEventListener('close', () => this.remove())
    // The page has shortcuts of its own for plain letters.
    this.root.addEventListener('keydown', (event) => event.stopPropagation())
  }

  async open() {
    document.body.append(this.root)
    this.root.showModal()
    this.search.focus()
    try {
      this.cards = await this.host.identities()
      this.show()
    } catch {
      this.message.textContent = this.texts.failed
    }
  }

  show() {
    const cards = found(this.cards, this.search.value)
    this.message.textContent = cards.length
      ? ''
      : this.cards.length ? this.texts.noMatch : this.texts.none
    this.list.replaceChildren(...cards.map((card) => this.button(card)))
  }

  button(card) {
    const title = titleOf(card)
    const cover = card.cover
      ? element('img', { src: this.host.cover(card), alt: '', loading: 'lazy' })
      : element('span', { className: 'sefi-initial' }, [...title][0] ?? '')
    const hint = [card.name, card.notes].filter(Boolean).join('\n')
    const made = element(
      'button',
      { type: 'button', className: 'sefi-card', title: hint },
      element('span', { className: 'sefi-cover' }, cover),
      element('span', { className: 'sefi-title' }, title),
      element('span', { className: 'sefi-facts' }, facts(card, this.texts)),
      element('span', { className: 'sefi-name' }, card.name)
    )
    made.classList.toggle('sefi-chosen', card.name === this.chosen)
    made.addEventListener('click', () => {
      const refused = this.host.pick(card.name)
      if (typeof refused === 'string') this.message.textContent = refused
      else this.remove()
    })
    return made
  }

  remove() {
    this.root.remove()
  }
}
