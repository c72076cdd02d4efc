// Who is here and what they write, on the page.

import { clock } from '../state/age';
import { make, say } from './dom';
import { laneName } from './link';
import { type Message, type People, roleName } from './lobby';

/** More than that are forgotten, the oldest first. */
const mostMessages = 200;

export class Log {
  constructor(
    private readonly list: HTMLElement,
    private readonly empty: HTMLElement,
  ) {}

  /** Adds a message. Whoever reads further up is left there. */
  add(m: Message, own: boolean): (fate: string, failed: boolean) => void {
    this.empty.hidden = true;
    this.list.tabIndex = 0; // from now on there may be something to scroll
    const end = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 40;
    const fate = make('p', 'fate');
    const by = make('p', 'by', make('strong', '', own ? 'You' : m.name), ` ${clock(m.at, Date.now())}`);
    const item = make('div', own ? 'entry own' : 'entry', by, make('p', 'text', m.text));
    if (own) item.append(fate);
    item.dataset.from = m.from;
    this.list.append(item);
    while (this.list.children.length > mostMessages) this.list.firstElementChild?.remove();
    if (end || own) this.list.scrollTop = this.list.scrollHeight;
    return (text, failed) => {
      say(fate, text);
      fate.classList.toggle('failed', failed);
      if (end || own) this.list.scrollTop = this.list.scrollHeight;
    };
  }
}

/** Lists who is here; self is the id of this page's socket. */
export function drawPeople(list: HTMLElement, people: People | undefined, self: string): void {
  const items = (people?.list ?? []).map((p) => {
    const item = make(
      'li',
      '',
      make('strong', '', p.name),
      make('span', 'muted', roleName(p.role)),
      ...(p.id === self ? [make('span', 'here', 'this page')] : []),
      make('span', 'muted lane-name', laneName(p.transport)),
    );
    item.dataset.id = p.id;
    item.title = `Socket ${p.id}`;
    return item;
  });
  if (people !== undefined && people.count > people.list.length) {
    items.push(make('li', 'muted', `and ${people.count - people.list.length} more`));
  }
  const same =
    list.children.length === items.length && items.every((item, i) => list.children[i]?.isEqualNode(item) === true);
  if (!same) list.replaceChildren(...items);
}
