import '../app.css';
import './welcome.css';
import type { Socket } from 'socket.io-client';
import { onWake } from '../feed/wake';
import { type Json, ShapeError } from '../frames/check';
import { decodeFrame, readDevice } from '../frames/live';
import { clock } from '../state/age';
import { emptyFleet, reduceFleet } from '../state/fleet';
import { make, part, say } from './dom';
import { doorTitle, type LinkEvent, notice, reduceLink, since, transportLine, unlinked } from './link';
import { fate, type People, readGreeting, readMessage, readPeople, roleName } from './lobby';
import { newestRows } from './readings';
import { hasClient, open } from './socket';
import { Table } from './table';
import { drawPeople, Log } from './talk';

/** How long the hub has for the answer to a message. */
const patience = 10_000;

let link = unlinked;
let fleet = emptyFleet;
let people: People | undefined;
let token = '';
let socket: Socket | undefined;
/** This machine's clock is off by that much; ages must not be. */
let offset = 0;

const table = new Table(part('rows'));
const log = new Log(part('messages'), part('talk-empty'));
const words = part<HTMLInputElement>('message');
const secret = part<HTMLInputElement>('token');

let due = false;

function changed(): void {
  if (due) return;
  due = true;
  setTimeout(draw, 50);
}

function tell(e: LinkEvent): void {
  link = reduceLink(link, e, Date.now());
  if (e.type === 'refused') {
    token = '';
    forget();
  }
  changed();
}

/** What one person may see is not left for the next. */
function forget(): void {
  fleet = emptyFleet;
  people = undefined;
}

/** Begins anew, as whoever has the token, or the session of this browser. */
function begin(): void {
  socket?.off().disconnect();
  forget();
  tell({ type: 'retry' });
  const mine = open(token, {
    link: (e) => {
      if (socket === mine) tell(e);
    },
    event: (name, args) => {
      if (socket === mine) take(name, args);
    },
    ended: () => {
      setTimeout(() => {
        if (socket === mine) begin();
      }, 1000);
    },
  });
  socket = mine;
}

function again(): void {
  if (link.phase === 'refused') {
    begin();
    return;
  }
  tell({ type: 'retry' });
  socket?.disconnect().connect();
}

function take(name: string, args: Json[]): void {
  try {
    switch (name) {
      case 'welcome':
        tell({ type: 'welcome', greeting: readGreeting(args) });
        break;
      case 'snapshot':
      case 'reading': {
        const frame = decodeFrame(args[0] ?? null);
        if ('now' in frame && frame.now !== undefined) offset = frame.now - Date.now();
        fleet = reduceFleet(fleet, frame);
        break;
      }
      case 'device':
        fleet = reduceFleet(fleet, {
          type: 'changes',
          token: '',
          now: undefined,
          more: false,
          devices: [readDevice(args[0] ?? null)],
        });
        break;
      case 'people':
        people = readPeople(args[0] ?? null);
        break;
      case 'message':
        log.add(readMessage(args), false);
        break;
    }
  } catch (err) {
    // A newer hub may say more than this page knows, and others may send anything.
    if (!(err instanceof ShapeError)) throw err;
  }
  changed();
}

async function send(text: string): Promise<void> {
  const note = part('message-note');
  if (!socket?.connected || link.phase !== 'live') {
    say(note, 'Not sent: this page is not connected. Your text stays here.');
    return;
  }
  say(note, '');
  words.value = '';
  const tellFate = log.add({ from: socket.id ?? '', name: '', at: Date.now() + offset, text }, true);
  tellFate('sending…', false);
  try {
    const become = fate((await socket.timeout(patience).emitWithAck('message', text)) as Json);
    tellFate(become.text, become.failed);
  } catch {
    tellFate('no answer came: it is not known whether it was delivered', true);
  }
}

function draw(): void {
  due = false;
  const now = Date.now();
  const live = link.phase === 'live';
  drawLink(now, live);
  drawDoor();
  const { rows, all } = newestRows(fleet);
  table.draw(rows, now + offset, !live);
  part('readings').hidden = rows.length === 0;
  part('readings-empty').hidden = rows.length > 0;
  say(part('readings-empty'), live ? 'No device has sent anything yet.' : 'Readings come once this page is connected.');
  const which = all > rows.length ? `The ${rows.length} newest of ${all}` : 'Newest on top';
  say(
    part('readings-note'),
    rows.length === 0 ? '' : live ? which : `${which}, as they were ${since(link.trueAt, now)}`,
  );
  drawPeople(part('people'), people, link.greeting?.id ?? '');
  part('people').classList.toggle('old', !live);
  part('people-empty').hidden = people !== undefined;
  say(
    part('people-count'),
    people === undefined ? '' : live ? `${people.count}` : `${people.count}, ${since(link.trueAt, now)}`,
  );
}

function drawLink(now: number, live: boolean): void {
  const mark = part('link');
  mark.dataset.phase = link.phase;
  say(part('link-text'), live ? 'Connected' : 'Not connected');
  const { greeting } = link;
  if (greeting !== undefined) {
    say(part('welcome'), greeting.text);
    part('welcome').dataset.none = String(!live);
    say(part('whoami'), `You ${live ? 'are' : 'were'} ${greeting.name} (${roleName(greeting.role)}).`);
    say(part('id'), live ? greeting.id : '–');
    say(part('version'), greeting.version);
  }
  part('forget').hidden = token === '' || !live;
  say(part('heard'), since(link.heard, now));
  say(part('transport'), transportLine(link));
  part('transport').dataset.transport = link.transport;
  for (const lane of document.querySelectorAll<HTMLElement>('[data-lane]')) {
    lane.classList.toggle('in', lane.dataset.lane === link.transport);
  }
  drawSteps();
  const strip = notice(link, now);
  part('notice').hidden = strip === undefined;
  part('notice').dataset.tone = strip?.tone ?? '';
  say(part('notice-text'), strip?.text ?? '');
  say(part('notice-detail'), strip?.detail ?? '');
  const button = part('notice-button');
  say(button, strip?.button ?? '');
  const refused = link.phase === 'refused' ? `${doorTitle(link)}. ${link.detail}` : '';
  say(
    part('spoken'),
    [live ? 'Connected to the hub.' : '', strip?.text ?? '', refused].filter((t) => t !== '').join(' '),
  );
}

function drawSteps(): void {
  const list = part('steps');
  const items = link.steps.map((s) =>
    make('li', '', make('span', 'at', s.after === undefined ? clock(s.at, s.at) : `+${s.after} ms`), s.text),
  );
  const same =
    list.children.length === items.length && items.every((n, i) => list.children[i]?.isEqualNode(n) === true);
  if (!same) list.replaceChildren(...items);
}

function drawDoor(): void {
  const door = part('door');
  door.hidden = link.phase !== 'refused';
  if (door.hidden) return;
  say(part('door-title'), doorTitle(link));
  say(part('door-detail'), link.detail);
}

part('message-form').addEventListener('submit', (e) => {
  e.preventDefault();
  const text = words.value.trim();
  if (text !== '') void send(text);
});
part('token-form').addEventListener('submit', (e) => {
  e.preventDefault();
  token = secret.value.trim();
  secret.value = '';
  begin();
});
part('forget').addEventListener('click', () => {
  token = '';
  begin();
});
part('again').addEventListener('click', begin);
part('notice-button').addEventListener('click', () => {
  const what = notice(link, Date.now())?.button;
  if (what === 'Reload') location.reload();
  else if (what === 'Dismiss') tell({ type: 'read' });
  else again();
});

if (hasClient()) {
  begin();
  onWake(() => {
    if (link.phase === 'refused' || link.phase === 'broken') again();
  });
} else {
  tell({ type: 'missing' });
}
setInterval(draw, 1000);
