/** The last so many of something: however long the page stays open, it takes no more memory. */
export class Ring {
  #items = [];
  #start = 0;
  #capacity;

  /** @param {number} capacity */
  constructor(capacity) {
    this.#capacity = capacity;
  }

  get length() {
    return this.#items.length;
  }

  push(item) {
    if (this.#items.length < this.#capacity) {
      this.#items.push(item);
      return;
    }
    this.#items[this.#start] = item;
    this.#start = (this.#start + 1) % this.#capacity;
  }

  /** @param {number} index from the oldest; below zero from the newest */
  at(index) {
    const { length } = this.#items;
    const from = index < 0 ? length + index : index;
    return from < 0 || from >= length ? undefined : this.#items[(this.#start + from) % length];
  }

  clear() {
    this.#items = [];
    this.#start = 0;
  }

  /** From the oldest to the newest. */
  *[Symbol.iterator]() {
    for (let index = 0; index < this.#items.length; index += 1) yield this.at(index);
  }
}
