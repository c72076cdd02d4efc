/** The element of the page with this hook. */
export function part<T extends HTMLElement = HTMLElement>(hook: string): T {
  const found = document.querySelector<T>(`[data-hook="${hook}"]`);
  if (found === null) throw new Error(`the page has no ${hook}`);
  return found;
}

export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className: string,
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  if (className !== '') node.className = className;
  node.append(...children);
  return node;
}

/** Shows a text, and leaves the node alone if it shows it already: a selection survives, and nothing is read aloud twice. */
export function say(node: HTMLElement, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}
